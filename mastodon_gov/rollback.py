"""The verb `rollback`: back to the release before by the same swap, as long as the database allows it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from mastodon_gov.errors import Refusal
from mastodon_gov.migrations import Migrations, number, read_installed, refusal, strangers
from mastodon_gov.remote import Host, application_host
from mastodon_gov.upgrade import ask, bundle_of, go, look

LEFT_FOR = 600  # seconds until migrations that an interrupted run has left must have ended


@dataclass(frozen=True)
class Way:
    """From one release back to another (names). `refusal` says why there is none; then `point` is the restore point
    before it, and `lost` what came after that."""

    origin: str
    target: str
    left: tuple[str, ...] = ()
    refusal: str | None = None
    point: dict[str, Any] | None = None
    lost: dict[str, int] | None = None


def target_of(seen: dict[str, Any]) -> str:
    """The release that an unfinished upgrade came from or an unfinished rollback leads to, or else the one that served
    before. Refusal when there is none."""
    serving, journal = seen["serving"], seen["journal"]
    last = journal[-1] if journal else None
    if last and last["event"] != "closed":
        if number(last["to"]) < number(last["from"]):
            return str(last["to"])  # a rollback that stopped half-way goes on
        if number(last["from"]) <= number(serving):
            return str(last["from"])
    ways = [line["from"] for line in journal if line["to"] == serving and number(line["from"]) < number(serving)]
    before = ways[-1] if ways else seen["previous"]
    if before is None or number(before) >= number(serving):
        raise Refusal(f"{serving} serves, and this host has no older release that served before it. Nothing to do.")
    return str(before)


def restore_point(journal: list[dict[str, Any]], target: str) -> dict[str, Any] | None:
    """The last mark before the first migration that cannot be undone, of the way that led away from this release."""
    marks = [
        line
        for line in journal
        if line["event"] == "end" and line["step"].startswith("restore point") and line["from"] == target
        and "name" in line.get("told", {})
    ]  # fmt: skip
    after = [line for line in marks if line["told"]["name"].startswith("before-post-")]
    # A second try of the same way may have marked a moment between two such migrations.
    last = [line for line in after if line["attempt"] == after[-1]["attempt"]][:1] or marks[-1:]
    point: dict[str, Any] | None = last[0]["told"] if last else None
    return point


def find_way(host: Host, seen: dict[str, Any]) -> Way:
    """Whether and how."""
    target, installed = target_of(seen), read_installed(seen["migrations"])
    versions = seen["database"]["versions"] or []
    if target not in installed:
        raise Refusal(
            f"{target} is not on the host any more. Install its bundle again with `mastodon-gov release install`, "
            "then run rollback."
        )
    own = installed.get(target, Migrations())
    why = refusal(target, own, versions, installed)
    left = tuple(sorted(strangers(target, own, versions, installed)))
    if why is None:
        return Way(seen["serving"], target, left)
    point = restore_point(seen["journal"], target)
    lost = ask(host, "lost", {"moment": point["time"]}) if point else None
    return Way(seen["serving"], target, left, why, point, lost)


def settled_look(host: Host) -> dict[str, Any]:
    """What the host is like when no migration is at work: what it decides on must not change any more. Refusal when one
    that an interrupted run has left does not end."""
    deadline = time.monotonic() + LEFT_FOR
    while (seen := look(host))["migrating"] and not seen["deploying"]:
        if time.monotonic() > deadline:
            raise Refusal(
                f"{host.name}: migrations of an interrupted run are still at work after {LEFT_FOR} s; see `systemctl "
                "status mfg-migrate` there. Wait until they have ended, then run rollback again."
            )
        time.sleep(2)
    return seen


def offer(way: Way) -> str:
    """What is left when the swap is not possible."""
    if way.point is None or way.lost is None:
        return "The journal names no restore point of that upgrade; `mastodon-gov restore` takes any time instead."
    lost = ", ".join(f"{count} {what}" for what, count in way.lost.items())
    return (
        f"What leads back is a restore to the point {way.point['name']} ({way.point['time']}), with release "
        f"{way.target.partition('-')[0]}; it would lose what was made since then: {lost}."
    )


def show(way: Way) -> None:
    """The way for a person."""
    click.echo(f"from   {way.origin}, which serves")
    click.echo(f"to     {way.target}, by the same swap; nobody waits")
    kept = f"{len(way.left)} migrations of the newer release stay, with their data" if way.left else "as it is"
    click.echo(f"data   {kept}; no post, account or follower is lost")
    click.echo("note   What only the newer release knows is not shown meanwhile; upgrade again brings it back.")


@click.command()
@click.option("--plan", "only_plan", is_flag=True, help="Print what would happen and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@click.pass_obj
def rollback(directory: Path, only_plan: bool, as_json: bool) -> None:
    """Go back to the release that served before, or give an interrupted upgrade up, while people use it.

    Only while no post-deployment migration has run; otherwise says why, and what a restore would lose. Changes
    instance.yaml and the host. Exit: 0 done, 1 refused or failed.
    """
    host = application_host(directory)
    seen = settled_look(host)
    way = find_way(host, seen)
    if only_plan and as_json:
        click.echo(json.dumps(asdict(way)))
        return
    if way.refusal:
        raise Refusal(f"No way back from {way.origin} to {way.target}: {way.refusal}\n{offer(way)}")
    if only_plan:
        show(way)
        return
    version = way.target.partition("-")[0]
    if bundle_of(host.instance, directory, version).name != way.target:
        raise Refusal(
            f"releases/ holds another build of {version} than {way.target}, which served before. Carry that bundle "
            "here, or `mastodon-gov upgrade` to the other one later."
        )
    if seen["deploying"]:
        raise Refusal(f"Another deploy or upgrade is running ({seen['deploying']}). Wait until it has ended.")
    console = Console(stderr=as_json, quiet=as_json, soft_wrap=True)
    console.print(f"{way.origin} → {way.target}", highlight=False)
    done = go(directory, host, version, "", console)
    if as_json:
        click.echo(json.dumps({"from": way.origin, "to": way.target, "journal": done}))
    else:
        click.echo(f"{way.target} serves again; the file instance.yaml says so too.")
