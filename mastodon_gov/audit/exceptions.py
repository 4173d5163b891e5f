"""Accepted faults: `exceptions.yaml` in the instance directory, each with a reason, two names and a last day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from mastodon_gov.audit.catalogue import Id, Sentence, load, read_carefully
from mastodon_gov.audit.results import State, Verdict
from mastodon_gov.errors import Refusal
from mastodon_gov.instance.types import Allowed, Part

FILE = "exceptions.yaml"
Name = Annotated[str, Field(min_length=3, max_length=200), Allowed("a name of 3 to 200 characters, in quotes")]
Day = Annotated[date, Allowed('a day such as "2027-03-31"')]


class Accepted(Part):
    """One accepted fault of one control."""

    control: Id
    reason: Sentence
    owner: Name
    accepted_by: Name
    expires: Day


class Exceptions(Part):
    """All of an instance."""

    format: Literal[1]
    exceptions: tuple[Accepted, ...]


def read_exceptions(directory: Path) -> dict[str, Accepted]:
    """By control; none without the file. Raises Refusal for a wrong file, an unknown control, one that stands twice,
    and an owner who accepts his own fault."""
    path = directory / FILE
    if not path.exists():
        return {}
    found: dict[str, Accepted] = {}
    wrong = []
    for each in read_carefully(path, Exceptions).exceptions:
        if each.control not in load():
            wrong.append(f"{FILE}: found {each.control}. Allowed: a control of docs/auditor/controls.md. Correct it.")
        if each.control in found:
            wrong.append(f"{FILE}: found {each.control} twice. Allowed: each control once. Keep one of the two.")
        if each.owner == each.accepted_by:
            wrong.append(
                f"{FILE}: found {each.owner} as owner and accepted_by of {each.control}. Allowed: two people. "
                "Let somebody else accept it."
            )
        found[each.control] = each
    if wrong:
        raise Refusal("\n".join(wrong))
    return found


def apply(
    verdicts: Sequence[Verdict], accepted: Mapping[str, Accepted], today: date
) -> tuple[list[Verdict], list[str]]:
    """The verdicts with valid exceptions applied, and notes on exceptions that do nothing any more."""
    result, notes = [], []
    for each in verdicts:
        known = accepted.get(each.control.id)
        if known is None or each.state is State.NOT_RUN:
            result.append(each)
        elif each.state is State.PASSED:
            notes.append(f"{known.control} passes: take its exception out of {FILE}.")
            result.append(each)
        elif known.expires < today:
            why = f"The exception that {known.accepted_by} accepted expired on {known.expires}. {each.reason}"
            result.append(Verdict(each.control, State.FAILED, each.checks, why))
        else:
            why = f"{known.reason} Owner: {known.owner}; accepted by {known.accepted_by} until {known.expires}."
            result.append(Verdict(each.control, State.EXCEPTED, each.checks, why))
    return result, notes
