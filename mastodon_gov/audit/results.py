"""What an audit found: single checks, the state of each control, and the four numbers."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mastodon_gov.audit.catalogue import Control

LONGEST = 2000  # characters of an observation that are kept


class State(StrEnum):
    """Of a check and of a control. A check that could not look is `not run`, never passed."""

    PASSED = "passed"
    FAILED = "failed"
    EXCEPTED = "excepted"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Check:
    """One test on one host. `at` is UTC (ISO 8601), `seconds` its own time, `reason` why it failed or did not run."""

    control: str
    name: str
    role: str
    host: str
    state: State
    observed: str = ""
    expected: str = ""
    command: str = ""
    reason: str = ""
    at: str = ""
    seconds: float = 0.0
    foreseen: bool = False  # not run, and the pinned list, a container or --probe says so

    @classmethod
    def from_line(cls, told: Mapping[str, Any]) -> Check:
        """From the JSON line that the suite writes."""
        return cls(**{**told, "state": State(told["state"])})


@dataclass(frozen=True)
class Verdict:
    """The state of one control, and why."""

    control: Control
    state: State
    checks: tuple[Check, ...] = ()
    reason: str = ""

    @property
    def foreseen(self) -> bool:
        """Whether it did not run as the pinned list says."""
        return self.state is State.NOT_RUN and all(check.foreseen for check in self.checks)


@dataclass(frozen=True)
class Session:
    """What the suite reports of itself: remote commands, hosts without answer (sentence each), what hosts say of
    themselves, and the seconds by which each host's clock is ahead of ours."""

    commands: int = 0
    unreachable: Mapping[str, str] = field(default_factory=dict)
    hosts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    clocks: Mapping[str, float] = field(default_factory=dict)


def words(value: object) -> str:
    """An observation as text: what is none becomes JSON, and what is very long is cut."""
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters)"


def verdict(control: Control, checks: Collection[Check], pinned: Mapping[str, str]) -> Verdict:
    """Failed beats not run beats passed: a control passes only if everything of it was looked at and was right. What
    was foreseen not to run (a probe without --probe) decides only when there is nothing else."""
    checks = [check for check in checks if not check.foreseen] or list(checks)
    for state in (State.FAILED, State.NOT_RUN):
        if found := [check for check in checks if check.state is state]:
            reasons = dict.fromkeys(check.reason for check in found if check.reason)
            return Verdict(control, state, tuple(checks), " ".join(reasons))
    if not checks:
        if control.id in pinned:
            return Verdict(control, State.NOT_RUN, (), pinned[control.id])
        missing = Check(control.id, "", control.role, "", State.NOT_RUN, reason="No test of it ran.")
        return Verdict(control, State.NOT_RUN, (missing,), missing.reason)
    return Verdict(control, State.PASSED, tuple(checks))


def numbers(verdicts: Iterable[Verdict]) -> dict[State, int]:
    """How many controls are in each state."""
    listed = [each.state for each in verdicts]
    return {state: listed.count(state) for state in State}


def text(counts: Mapping[State, int]) -> str:
    """The four numbers as one line."""
    return ", ".join(f"{counts[state]} {state}" for state in State)
