"""The verbs `deploy` and `plan`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from mastodon_gov.inventory import nodes
from mastodon_gov.runner import Run, last_words, run_pyinfra

# Exit codes of a run (issue 3 §8); 2, wrong usage, is click's.
CLEAN, FAILED, DRIFT, NO_HOST = 0, 1, 3, 4


class Progress:
    """One line a role: what it did and how long. On a terminal the role at work shows its current operation."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.role, self.seconds, self.changed, self.failed = "", 0.0, 0, False
        self.status = console.status("checking and connecting") if console.is_terminal else None
        if self.status:
            self.status.start()

    def __call__(self, line: dict[str, Any]) -> None:
        """Take one operation's report."""
        role = line["role"] or "Preparation"
        if role != self.role:
            self.close_role()
            self.role = role
        self.seconds += line["seconds"]
        self.changed += line["changed"]
        self.failed = self.failed or line["failed"]
        if self.status:
            self.status.update(f"{role}: {line['operation']}")

    def close_role(self) -> None:
        """Print the line of the role that has ended."""
        if self.role:
            word, colour = (
                f"{self.changed} changed" if self.changed else "settled",
                "yellow" if self.changed else "green",
            )
            if self.failed:
                word, colour = "failed", "red"
            line = f"{self.role:<20} [{colour}]{word:<14}[/] {self.seconds:6.1f} s"
            self.console.print(line, highlight=False)
        self.role, self.seconds, self.changed, self.failed = "", 0.0, 0, False

    def end(self, *, broken: bool) -> None:
        """The run is over; `broken` when it ended without a report, in the middle of the role at work."""
        self.failed = self.failed or broken
        self.close_role()
        if self.status:
            self.status.stop()


def run_checks(instance: Path, console: Console, limit: str | None = None) -> None:
    """The checks before a deploy, as its first line. Raises Refusal when one fails."""
    from mastodon_gov.check import refuse_unfit  # a quarter of a second, while pyinfra loads as well

    began = time.monotonic()
    checks = refuse_unfit(instance, limit=limit)
    console.print(f"{'Check':<20} {f'{checks} passed':<14} {time.monotonic() - began:6.1f} s", highlight=False)


def run_roles(instance: Path, progress: Progress, **how: Any) -> Run:
    """Run pyinfra while `progress` prints; `how` goes to run_pyinfra."""
    broken = True
    try:
        run = run_pyinfra(instance, on_progress=progress, **how)
        broken = bool(run.failed)
    finally:
        progress.end(broken=broken)
    return run


def _run(instance: Path, dry: bool, limit: str | None, verbose: int, as_json: bool) -> Run:
    console = Console(stderr=as_json, quiet=as_json, soft_wrap=True)
    nodes(instance, limit)  # wrong files get all their sentences, and no program is started for them
    how: dict[str, Any] = {} if dry else {"before": partial(run_checks, instance, console, limit)}
    return run_roles(instance, Progress(console), dry=dry, limit=limit, verbose=verbose, **how)


def _end(run: Run, as_json: bool, verb: str) -> int:
    """Print the summary; returns the exit code of a run without drift rules."""
    if as_json:
        told = {"changes": run.changes, "failed": run.failed, "hosts": run.hosts, "commands": run.commands}
        more = {"seconds": round(run.seconds, 2), "differences": run.differences}
        click.echo(json.dumps(told | more))
    if run.failed:
        click.echo(f"{verb} failed on {', '.join(run.failed)}:\n{last_words(run.log)}", err=True)
    if not run.hosts:
        click.echo(f"{verb} reached no host.", err=True)
        return NO_HOST
    if run.failed:
        return FAILED
    # What a role wants a person to do next; it may say so more than once.
    for note in dict.fromkeys(line.strip() for line in run.log.splitlines() if line.strip().startswith("NOTE: ")):
        click.echo(note, err=True)
    if not as_json:
        what = "operations would change" if verb == "plan" else "operations changed"
        click.echo(
            f"{len(run.changes)} {what} on {run.hosts} host(s), {run.commands} remote commands, {run.seconds:.1f} s"
        )
    return CLEAN


def _run_options(verb: Callable[..., None]) -> Callable[..., None]:
    """What `deploy` and `plan` have in common."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."),
        click.option("-v", "verbose", count=True, help="Show pyinfra's own log (-v, -vv); it never shows a secret."),
        click.option("--limit", help="Only this host or group; a host also with * and ?."),
    ):
        verb = option(verb)
    return verb


@click.command()
@_run_options
@click.pass_obj
def deploy(instance: Path, limit: str | None, verbose: int, as_json: bool) -> None:
    """Bring the hosts to what the instance says. Changes the hosts; a second run changes nothing.

    Begins with the checks of `check` (on hosts that are deployed already, and with services and keys as before: with
    the fast ones), and changes nothing when one fails.

    Exit: 0 clean, 1 failed, 2 wrong usage or a wrong file of the instance, 4 no host reached.
    """
    run = _run(instance, False, limit, verbose, as_json)
    if verbose:
        click.echo(run.log, err=True)
    sys.exit(_end(run, as_json, "deploy"))


@click.command()
@_run_options
@click.pass_obj
def plan(instance: Path, limit: str | None, verbose: int, as_json: bool) -> None:
    """Say what a deploy would change. Writes nothing on any host.

    Exit: 0 nothing to do, 1 failed, 2 wrong usage or a wrong file of the instance, 3 a deploy would change something,
    4 no host reached.
    """
    run = _run(instance, True, limit, verbose, as_json)
    if verbose:
        click.echo(run.log, err=True)
    code = _end(run, as_json, "plan")
    if not as_json:
        for change in run.changes:
            click.echo(f"  would change: {change}")
        for difference in run.differences:
            click.echo(f"    {difference}")
    sys.exit(code or (DRIFT if run.changes else CLEAN))
