"""The verb `restore`: a copy of the database beside the running one, verified, then switched on request."""

from __future__ import annotations

import getpass
import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from mastodon_gov.errors import Refusal
from mastodon_gov.journal import note
from mastodon_gov.remote import LIB, Host, database_host

PROGRAM = f"{LIB}/restore.py"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
LOOKS_LIKE_TIME = re.compile(r"\d{4}-?\d\d-?\d\d")


def moment(text: str, option: str) -> str:
    """A time with its zone as PostgreSQL and pgBackRest read it, in UTC. Raises Refusal for one without zone."""
    allowed = "a time with its zone, as in 2026-11-21T14:05:09+13:00 or 2026-11-21T01:05:09Z"
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Refusal(f"{option}: found {text!r}. Allowed: {allowed}. Nothing was changed.") from None
    if found.tzinfo is None:
        raise Refusal(
            f"{option}: found {text!r}, which has no time zone. Allowed: {allowed}. An hour more or less is an hour of "
            "posts. Nothing was changed."
        )
    return f"{found.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00"


def target(text: str) -> list[str]:
    """Kind and value for the host's program. Raises Refusal for what is neither time nor name nor `latest`."""
    if text == "latest":
        return ["latest"]
    if LOOKS_LIKE_TIME.match(text):
        return ["time", moment(text, "--to")]
    if NAME.fullmatch(text):
        return ["name", text]
    raise Refusal(f"--to: found {text!r}. Allowed: a time with zone, the name of a restore point, or latest.")


def journal(host: Host, what: str) -> None:
    """Who did what, in the host's journal."""
    note(host.run, "restore", by=getpass.getuser(), whom=host.name, why=what)


def show_list(told: dict[str, Any]) -> None:
    """Backups, names and the window, in UTC."""
    click.echo(f"can be reached: {told['window']['oldest']} to {told['window']['newest']}")
    for each in told["backups"]:
        damaged = "  DAMAGED PAGES" if each["damaged"] else ""
        click.echo(
            f"backup  {each['stop']}  {each['type']:<5} {each['bytes'] / 2**20:8.0f} MiB  {each['label']}{damaged}"
        )
    if told["repository"] != 1:
        click.echo(
            "Names of restore points lie in the first repository only: from this one, restore to a time or latest."
        )
    for each in told["points"]:
        click.echo(f"point   {each['time'][:19].replace('T', ' ')}+00:00  {each['name']}")


def show_copy(told: dict[str, Any]) -> None:
    """What the copy is, and what a switch to it would lose."""
    report = told["done"]["verify"]["result"]
    click.echo(f"verified copy of backup {told['label']}; last change {told['done']['recover']['result'] or 'unknown'}")
    for label in told.get("damaged", []):
        click.echo(f"backup {label} is damaged and was not used. See `pgbackrest verify` on the host")
    if unsent := told["done"].get("archive", {}).get("result"):
        click.echo(f"{unsent} WAL segments of this host had not reached the backup repository and are not in the copy")
    click.echo("it holds " + ", ".join(f"{count} {table}" for table, count in report["counts"].items()))
    click.echo(f"a secret of it was {report['secret']}; manifest {report['manifest'] or 'none'}")
    if told["target"].get("repository", 1) != 1:
        click.echo("manifests lie in the first repository only: counts and fingerprints of secrets were not compared")
    if not report["lost"]:
        click.echo("what a switch would lose is not known: the running database does not answer")
    click.echo(f"a switch loses what is newer: {counted(report['lost'])}")


def counted(lost: dict[str, int | None]) -> str:
    """Rows of each table, in words."""
    found = {table: count for table, count in lost.items() if count or count is None}
    return ", ".join(f"{'too many' if n is None else n} {table}" for table, n in found.items()) or "nothing"


@click.command()
@click.option("--list", "listing", is_flag=True, help="Show backups, restore points and the window. Changes nothing.")
@click.option("--to", "to", help="A time with zone, the name of a restore point, or latest: restore it beside, verify.")
@click.option("--as-of", help="The backups as they lay in the bucket at this time: after somebody destroyed them.")
@click.option("--repository", type=click.IntRange(1, 2), help="With --list or --to: 2 is the second one.")
@click.option("--beside-only", is_flag=True, help="Leave the copy open for reading, and print how to open it.")
@click.option("--switch", is_flag=True, help="Put the verified copy in the place of the database.")
@click.option("--back", is_flag=True, help="Undo the switch: the database that was kept takes its place again.")
@click.option("--open", "opening", is_flag=True, help="Let visitors, mail and federation through again.")
@click.option("--sign-off", is_flag=True, help="Remove the database that was put aside. Nothing leads back after that.")
@click.option("--drop-beside", is_flag=True, help="Remove the copy.")
@click.option("--onto-empty", is_flag=True, help="With --to: onto a host that holds nothing yet, all of it.")
@click.option("--media-to", help="Put back pictures and videos that were deleted or overwritten after this time.")
@click.option("--state", is_flag=True, help="Show what was done so far. Changes nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@click.pass_obj
def restore(  # noqa: PLR0913, PLR0917  each is an option of the command line
    directory: Path,
    listing: bool,
    to: str | None,
    as_of: str | None,
    repository: int | None,
    beside_only: bool,
    switch: bool,
    back: bool,
    opening: bool,
    sign_off: bool,
    drop_beside: bool,
    onto_empty: bool,
    media_to: str | None,
    state: bool,
    as_json: bool,
) -> None:
    """Bring the database back to a moment. docs/operator/restore.md is the page for the night it is needed.

    --to changes nothing but a directory beside the running database. --switch stops the application, keeps the old
    database beside, and starts on the copy; only administrators reach it until --open. Until --sign-off, which removes
    the old one, --back undoes the switch.
    Run the same command again after an interruption: it goes on where it stopped.
    """
    verbs = {"list": listing, "back": back, "open": opening, "sign-off": sign_off, "drop": drop_beside, "state": state}
    chosen = [verb for verb, given in verbs.items() if given]
    if (
        len(chosen) + bool(to or switch) + bool(media_to) != 1
        or (beside_only and (switch or not to))
        or (onto_empty and not to)
        or (repository and (onto_empty or not (to or listing)))
    ):
        raise click.UsageError(
            "Give one of --list, --to (with --switch or --beside-only), --switch, --back, --open, --sign-off, "
            "--drop-beside, --state. --repository goes with --list and --to, and not with --onto-empty."
        )
    if media_to:
        from mastodon_gov.storage.versions import put_back

        told = put_back(directory, datetime.fromisoformat(moment(media_to, "--media-to")))
        click.echo(json.dumps(told) if as_json else f"{told['put_back']} of {told['objects']} objects put back")
        return
    host = database_host(directory)
    then = ["--as-of", moment(as_of, "--as-of")] if as_of else []
    place = ["--repository", str(repository)] if repository else []
    if chosen:
        told = json.loads(host.follow([PROGRAM, chosen[0], *then, *place]))
        if chosen[0] not in ("list", "state"):
            journal(host, chosen[0])
        _end(told, chosen[0], as_json)
        return
    told = {}
    if onto_empty:
        _onto_empty(directory, host, [*target(str(to)), *then], as_json)
        return
    if to:
        asked = target(to)
        journal(host, f"beside, to {' '.join(asked)}")
        told = json.loads(host.follow([PROGRAM, "beside", *asked, *then, *place]))
        if not as_json:
            show_copy(told)
    if beside_only:
        told = json.loads(host.follow([PROGRAM, "look"]))
        _end(told, "look", as_json)
    elif switch or _wanted(as_json):
        journal(host, "switch")
        told = json.loads(host.follow([PROGRAM, "switch", *then]))
        _media(directory, told)
        _end(told, "switch", as_json)
    else:
        _media(directory, told)
        _end(told, "beside", as_json)


def _media(directory: Path, told: dict[str, Any]) -> None:
    """Pictures lie outside the database: say what its moment misses."""
    from mastodon_gov.storage.versions import advice

    if when := told["done"].get("verify", {}).get("result", {}).get("moment"):
        click.echo(advice(directory, datetime.fromisoformat(when)), err=True)


def _onto_empty(directory: Path, host: Host, asked: list[str], as_json: bool) -> None:
    from mastodon_gov.worst_day import phases

    took = phases(directory, host, asked)
    journal(host, f"onto empty, to {' '.join(asked)}")
    _media(directory, json.loads(host.run([PROGRAM, "state"])))
    if as_json:
        click.echo(json.dumps({"phases": took, "seconds": round(sum(took.values()), 1)}))
    else:
        click.echo(f"{sum(took.values()):7.1f} s  in all\n{NEXT['switch']}")


def _wanted(as_json: bool) -> bool:
    """Ask a person; nobody else is asked."""
    question = "Stop the application now and put this copy in the place of the database?"
    return not as_json and sys.stdin.isatty() and click.confirm(question)


NEXT = {
    "beside": "The running database was not touched. Next: `restore --switch`, or `restore --drop-beside`.",
    "switch": "It serves administrators only; no mail and no federation leave it. Look at it, then `restore --open`; "
    "if it is the wrong moment, `restore --back`.",
    "back": "The database of before the switch is in its place again, for administrators only. Look at it, then "
    "`restore --open`. The one that was given up is kept until `restore --sign-off`.",
    "open": "Open again. The database that was put aside is kept until `restore --sign-off`.",
    "sign-off": "The database that was put aside was removed.",
    "drop": "The copy was removed.",
}


def _end(told: dict[str, Any], verb: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(told))
    elif verb == "list":
        show_list(told)
    elif verb == "look":
        click.echo(f"Read-only, on the host {told['psql']}\nRemove it with `restore --drop-beside`.")
    elif verb == "state":
        done = ", ".join(told.get("done", {}))
        click.echo(
            f"to {told['target']['kind']} {told['target']['value']}: {done}" if done else "no restore is under way"
        )
    else:
        if verb == "back":
            click.echo(f"written since the switch, and given up: {counted(told['lost'])}")
        click.echo(NEXT[verb])
