"""The verb `audit`."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape

from mastodon_gov.audit.catalogue import load as load_catalogue
from mastodon_gov.audit.catalogue import load_pinned
from mastodon_gov.audit.exceptions import apply, read_exceptions
from mastodon_gov.audit.files import newest, read_report, refuse_unwritable, write_evidence
from mastodon_gov.audit.outside import HERE
from mastodon_gov.audit.report import Audit, changes, clock_notes, document
from mastodon_gov.audit.results import Check, State, verdict
from mastodon_gov.audit.suite import Asked, run_suite
from mastodon_gov.errors import Refusal
from mastodon_gov.instance.load import load

# As deploy's; importing them from there would load half of this product.
CLEAN, FAILED, DRIFT, NO_HOST = 0, 1, 3, 4
COLOURS = {State.PASSED: "green", State.FAILED: "red", State.EXCEPTED: "yellow", State.NOT_RUN: "cyan"}


LONGEST = 300  # characters of an observation on the terminal; the evidence has it all


def printable(text: str) -> str:
    """What a host said, without anything that a terminal would obey, and not too long for it."""
    shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}…"


class Progress:
    """A line for each role, and at once one for what failed or could not look."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.role, self.counts = "", dict.fromkeys(State, 0)

    def __call__(self, check: Check) -> None:
        """Take one check."""
        if check.role != self.role:
            self.close_role()
            self.role, self.counts = check.role, dict.fromkeys(State, 0)
        self.counts[check.state] += 1
        if check.state is State.FAILED or (check.state is State.NOT_RUN and not check.foreseen):
            what = f"observed {check.observed}, expected {check.expected}" if check.observed else check.reason
            what = f"{check.control} on {check.host}: {what}"
            self.console.print(f"[{COLOURS[check.state]}]{check.state}[/] {escape(printable(what))}", highlight=False)

    def close_role(self) -> None:
        """Print the line of the role that has ended."""
        if self.role:
            told = ", ".join(f"{count} {state}" for state, count in self.counts.items() if count)
            self.console.print(f"{self.role:<16} {told}", highlight=False)


def audit_once(asked: Asked, console: Console) -> Audit:
    """Run the suite and judge. Raises Refusal for a wrong instance, exceptions.yaml or catalogue."""
    instance = load(asked.directory)
    accepted = read_exceptions(asked.directory)
    catalogue = load_catalogue()
    groups = {group.upper() for group in asked.groups}
    if unknown := sorted({*groups} - {each.group for each in catalogue.values()} | {*asked.controls} - {*catalogue}):
        raise Refusal(
            f"audit: found {', '.join(unknown)}. Allowed: a group or control of docs/auditor/controls.md. Correct it."
        )
    wanted = [
        control
        for control in catalogue.values()
        if (control.level == "base" or asked.level == "strict")
        and (not groups or control.group in groups)
        and (not asked.controls or control.id in asked.controls)
    ]
    started, began = datetime.now(UTC), time.monotonic()
    progress = Progress(console)
    checks, session = run_suite(asked, progress)
    progress.close_role()
    pinned = load_pinned().always
    found = [verdict(each, [check for check in checks if check.control == each.id], pinned) for each in wanted]
    judged, notes = apply(found, accepted, datetime.now(UTC).date())
    return Audit(
        instance=instance.domain.web,
        asked=asked,
        started=started,
        seconds=time.monotonic() - began,
        verdicts=tuple(judged),
        checks=tuple(checks),
        session=session,
        accepted=tuple(accepted.values()),
        notes=(*notes, *clock_notes(session)),
    )


def _show(audit: Audit, console: Console) -> None:
    """What needs a person, with its remedy; then the four numbers."""
    for each in audit.verdicts:
        if each.state is State.FAILED:
            why = printable(each.reason)
            click.echo(f"! {each.control.id} {each.control.title}: {why} Remedy: {each.control.remedy}")
    for each in audit.unforeseen:
        click.echo(f"! {each.control.id} {each.control.title}: did not run: {printable(each.reason)}")
    for each in audit.verdicts:
        if each.state is State.EXCEPTED:
            click.echo(f"  {each.control.id} excepted: {each.reason}")
    for note in audit.notes:
        click.echo(f"! {note}")
    console.print(audit.summary, highlight=False, soft_wrap=True)


def _signing_key(asked: Asked, given: Path | None) -> Path:
    key = given or asked.key or asked.directory / f"{asked.account}_key"
    if not key.exists():
        raise Refusal(
            f"--evidence: found no key {key} to sign with. Allowed: an SSH key of yours, private or in your agent "
            "(then its .pub file). Name it: --sign-with KEY."
        )
    return key


@click.command()
@click.option("--level", type=click.Choice(["base", "strict"]), default="base", help="strict: both levels.")
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="Only this group of controls, such as SSH.")
@click.option("--control", "controls", multiple=True, metavar="ID", help="Only this control, such as MFG-SSH-01.")
@click.option("--probe", is_flag=True, help="Also what writes or provokes: 30 sign-ins, a marker in a log …")
@click.option("--as-auditor", is_flag=True, help="Over the account `auditor`, which may look and nothing else.")
@click.option("--key", type=click.Path(path_type=Path), help="Private key of the account (default: ACCOUNT_key).")
@click.option("--from", "outside_from", default=HERE, metavar="WHERE", help="Where a stranger asks from: USER@HOST.")
@click.option("--ssh-config", type=click.Path(path_type=Path, exists=True), help="ssh_config for --from.")
@click.option("--evidence", type=click.Path(path_type=Path), metavar="DIR", help="Write signed evidence below DIR.")
@click.option("--sign-with", type=click.Path(path_type=Path), metavar="KEY", help="SSH key that signs the evidence.")
@click.option("--compare", type=click.Path(path_type=Path), metavar="FILE", help="Say what changed since this one.")
@click.option("--history", type=click.Path(path_type=Path), metavar="DIR", help="Evidence to DIR; say only changes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@click.pass_obj
def audit(  # noqa: PLR0913, PLR0917
    directory: Path,
    level: str,
    groups: tuple[str, ...],
    controls: tuple[str, ...],
    probe: bool,
    as_auditor: bool,
    key: Path | None,
    outside_from: str,
    ssh_config: Path | None,
    evidence: Path | None,
    sign_with: Path | None,
    compare: Path | None,
    history: Path | None,
    as_json: bool,
) -> None:
    """Ask the running hosts whether every control holds. Changes nothing on them (but with --probe).

    Exit: 0 nothing failed and what did not run is what the pinned list says, 1 otherwise, 2 wrong usage,
    3 (--history) as 0, but something changed since the last audit, 4 no host was reached.
    """
    account = "auditor" if as_auditor else "deploy"
    given = key or directory / f"{account}_key"
    asked = Asked(
        directory=directory,
        level=level,
        groups=groups,
        controls=controls,
        probe=probe,
        account=account,
        key=given.resolve() if given.exists() else None,
        outside_from=outside_from,
        ssh_config=ssh_config,
    )
    place = history or evidence
    signer = _signing_key(asked, sign_with) if place else None
    if place:
        refuse_unwritable(place)
    before = read_report(compare) if compare else _last(history)
    # The first time nothing is known yet, so everything is told.
    only_changes = history is not None and before is not None
    console = Console(stderr=as_json, quiet=as_json or only_changes, soft_wrap=True)
    found = audit_once(asked, console)
    told = document(found)
    kept = write_evidence(told, place, signer) if place and signer else None
    changed = changes(before, told) if before else []
    _end(found, told, kept, changed, console, as_json, only_changes)


def _last(history: Path | None) -> dict[str, Any] | None:
    kept = newest(history) if history else None
    return read_report(kept) if kept else None


def _end(  # noqa: PLR0913, PLR0917
    found: Audit,
    told: dict[str, Any],
    kept: Path | None,
    changed: list[str],
    console: Console,
    as_json: bool,
    only_changes: bool,
) -> None:
    if as_json:
        click.echo(json.dumps({**told, "changes": changed, "evidence": str(kept) if kept else ""}))
    elif not only_changes:
        _show(found, console)
        if kept:
            click.echo(f"evidence: {kept}")
    if not as_json:
        for line in changed:
            click.echo(f"changed: {line}")
    if found.session.unreachable and len(found.session.unreachable) == len(found.session.hosts):
        click.echo("\n".join(found.session.unreachable.values()), err=True)
        sys.exit(NO_HOST)
    if not found.clean:
        sys.exit(FAILED)
    sys.exit(DRIFT if only_changes and changed else CLEAN)
