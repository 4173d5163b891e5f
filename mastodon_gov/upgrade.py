"""The verb `upgrade`: a plan, then a deploy with the new version in instance.yaml (docs/decisions/upgrades.md)."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from mastodon_gov import upgrade_probe
from mastodon_gov.deploying import Progress, run_checks, run_roles
from mastodon_gov.errors import Refusal
from mastodon_gov.instance import Instance
from mastodon_gov.instance.node import ReleaseBundle
from mastodon_gov.instance.release_line import FILE, put, write_release
from mastodon_gov.release.bundle import check_signature, migration_texts, migrations_of, read_release
from mastodon_gov.release.pins import pins
from mastodon_gov.release.select import selected
from mastodon_gov.remote import LIB, Host, application_host
from mastodon_gov.runner import Run, last_words
from mastodon_gov.upgrade_plan import (
    Migration,
    Need,
    Plan,
    backup_problems,
    choose,
    estimate,
    held_problems,
    measured,
    notes,
    path_refusal,
    pending,
    problems,
    refuse,
)

PROGRAM = Path(upgrade_probe.__file__)
HELD = "/var/lib/mastodon-gov/upgrade-held"


class Steps(Progress):
    """One line for each step of the application's role that did something; one for each other role."""

    def __call__(self, line: dict[str, Any]) -> None:
        """Take one operation's report."""
        if line["role"] != "Mastodon":
            super().__call__(line)
            return
        self.close_role()
        if self.status:
            self.status.update(line["operation"])
        if line["changed"] or line["failed"]:
            colour, word = ("red", "failed") if line["failed"] else ("green", "done")
            self.console.print(f"{line['operation']:<46} [{colour}]{word}[/] {line['seconds']:8.1f} s", highlight=False)


def ask(host: Host, function: str, asked: dict[str, Any]) -> Any:
    """Run the probe on the host, as root. It travels on standard input, so nothing is left there."""
    program = f"{PROGRAM.read_text()}\nprint(json.dumps({function}(json.loads({json.dumps(asked)!r}))))\n"
    return json.loads(host.run(["python3", "-"], program))


def look(host: Host) -> dict[str, Any]:
    """What the host is like. Refusal when nothing is deployed there yet."""
    if not host.run(["sh", "-c", "readlink /opt/mastodon/current || true"]).strip():
        raise Refusal(f"{host.name}: no release runs there yet. Deploy first: `mastodon-gov deploy`.")
    seen: dict[str, Any] = ask(host, "look", {})
    return seen


def bundle_of(instance: Instance, directory: Path, version: str) -> ReleaseBundle:
    """The bundle of a version. Refusal for a version nobody knows, and for one whose bundle is not here."""
    pins().version(version)
    return selected(instance.model_copy(update={"release": version}), directory)


def bundles_here(instance: Instance, directory: Path) -> list[str]:
    """Known versions whose bundle lies in releases/."""
    found = []
    for version in pins().known():
        try:
            bundle_of(instance, directory, version)
            found.append(version)
        except Refusal:
            continue
    return found


def make_plan(directory: Path, host: Host, version: str | None) -> Plan:
    """Everything that can be known before the first change."""
    seen, known = look(host), pins().known()
    origin = seen["serving"]
    wanted = version or choose(origin, host.instance.release, known, bundles_here(host.instance, directory))
    pins().version(wanted)
    refuse([sentence] if (sentence := path_refusal(origin.partition("-")[0], wanted, known)) else [])
    bundle = bundle_of(host.instance, directory, wanted)
    check_signature(bundle)  # before anything of it is believed
    archive, versions = Path(bundle.archive), seen["database"]["versions"] or []
    about, own = read_release(archive)[0], migrations_of(archive)
    texts = migration_texts(archive, own.known - set(versions))
    names = sorted(seen["database"]["tables"])
    before, after = pending(texts, own, versions, ask(host, "count", {"tables": names}) if texts else {})
    installed = any(path.startswith(f"{bundle.name}/") for path in seen["migrations"])
    need = Need((about.bytes >> 20) + about.files * 4 // 1024, archive.stat().st_size >> 20)
    swap = origin != bundle.name
    return Plan(
        origin=origin,
        target=bundle.name,
        before=before,
        after=after,
        installed=installed,
        held=seen["held"] == bundle.name,
        unfinished=_unfinished(seen),
        seconds=estimate(seen["journal"]),
        measured=measured(seen["rehearsals"], bundle.name),
        problems=tuple(
            problems(seen, need, (*before, *after), installed=installed, swap=swap)
            + held_problems(seen["held"], bundle.name)
            + backup_problems(seen)
        ),
        notes=tuple(notes(after, (*before, *after), seen)),
    )


def _unfinished(seen: dict[str, Any]) -> bool:
    """Whether something began and has not ended: by the journal, or by the slots."""
    last = seen["journal"][-1]["event"] if seen["journal"] else "closed"
    finished = last == "closed" or (last == "held" and seen["held"])
    return not finished or not seen["slots"]["settled"]


def show(plan: Plan) -> None:
    """The plan for a person."""
    click.echo(f"from             {plan.origin}, which serves")
    click.echo(f"to               {plan.target}, {'installed already' if plan.installed else 'to be installed'}")
    for title, half in (("before the swap", plan.before), ("after the swap", plan.after)):
        click.echo(f"{title:<16} {len(half)} migrations" + (" (held)" if half is plan.after and plan.held else ""))
        for each in half:
            click.echo(f"  {each.number} {each.name:<58} {_touched(each)}")
    click.echo(f"point of no return  {plan.no_return or 'none: the release before can come back'}")
    took = f"{plan.seconds:.0f} s, as the last upgrade here" if plan.seconds else "unknown: the first upgrade here"
    copy = f"; its migrations took {plan.measured:.0f} s on a restored copy" if plan.measured is not None else ""
    click.echo(f"time             {took}{copy}")
    for note in plan.notes:
        click.echo(f"note             {note}")
    for sentence in plan.problems:
        click.echo(f"! {sentence}")


def _touched(migration: Migration) -> str:
    rows = [f"{table} ({count} rows)" for table, count in migration.tables.items()]
    return ", ".join([*rows, *(f"{table} (new)" for table in migration.makes)])


def run_steps(directory: Path, console: Console) -> Run:
    """Deploy, one line a step. Refusal with the role's sentence when a step failed."""
    run = run_roles(directory, Steps(console))
    if run.failed or not run.hosts:
        raise Refusal(last_words(run.log) if run.failed else "No host was reached: the inventory is empty.")
    return run


def last_attempt(host: Host) -> dict[str, Any] | None:
    """The last way from release to release, as the host's journal has it."""
    found: dict[str, Any] | None = json.loads(host.run([f"{LIB}/journal.py", "last"]))
    return found


def go(directory: Path, host: Host, version: str, held: str, console: Console) -> dict[str, Any] | None:
    """Write the version and the mark, run the steps; the file gets its old text back when the checks refuse.

    `held` is the release whose post-deployment migrations shall wait, or "".
    """
    before = write_release(directory, version)
    try:
        run_checks(directory, console)
    except Refusal:
        put(directory / FILE, before)
        raise
    mark = f"printf %s {held} > {HELD}.new && mv {HELD}.new {HELD}" if held else f"rm -f {HELD}"
    host.run(["sh", "-c", mark])
    run_steps(directory, console)
    return last_attempt(host)


@click.command()
@click.argument("version", required=False)
@click.option("--plan", "only_plan", is_flag=True, help="Print what would happen and change nothing.")
@click.option("--hold", is_flag=True, help="Stop before the point of no return; `upgrade` again goes on from there.")
@click.option("--without-backup", is_flag=True, help="Begin although no fresh backup stands behind it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@click.pass_obj
def upgrade(  # noqa: PLR0913, PLR0917  each is an option of the command line
    directory: Path, version: str | None, only_plan: bool, hold: bool, without_backup: bool, as_json: bool
) -> None:
    """Go to another version of Mastodon while people use it, or finish what was interrupted.

    Without VERSION: the one of instance.yaml, or the newest whose bundle lies in releases/. Changes instance.yaml, the
    host, and its database; the release before stays on the host. Exit: 0 done or nothing to do, 1 refused or failed.
    """
    host = application_host(directory)
    plan = make_plan(directory, host, version)
    if only_plan:
        if as_json:
            click.echo(json.dumps(asdict(plan) | {"no_return": plan.no_return, "nothing": plan.nothing}))
        else:
            show(plan)
        return
    backup = [sentence for sentence in plan.problems if sentence.startswith("backup: ")]
    refuse([sentence for sentence in plan.problems if not (without_backup and sentence in backup)])
    done = None
    if plan.nothing and (hold or not plan.held):
        write_release(directory, plan.target.partition("-")[0])
    else:
        console = Console(stderr=as_json, quiet=as_json, soft_wrap=True)
        console.print(f"{plan.origin} → {plan.target}", highlight=False)
        done = go(directory, host, plan.target.partition("-")[0], plan.target if hold and plan.after else "", console)
    _end(plan, done, as_json)


def _end(plan: Plan, done: dict[str, Any] | None, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"from": plan.origin, "to": plan.target, "journal": done}))
        return
    if done is None:
        click.echo(f"Nothing to do: {plan.target} runs.")
        return
    for name, step in done["steps"].items():
        for note in step.get("notes", ()):
            click.echo(f"! {name}: {note}")
    seconds = sum(step.get("seconds", 0.0) for step in done["steps"].values())
    click.echo(f"{done['from']} → {done['to']}: {done['state']}, {seconds:.0f} s of steps, journal {done['attempt']}")
    if done["state"] == "held":
        click.echo(
            "Held before the point of no return. `mastodon-gov upgrade` goes on, `mastodon-gov rollback` goes back."
        )
