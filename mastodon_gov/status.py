"""The verb `status`: what runs."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from mastodon_gov.backups.bucket import look
from mastodon_gov.inventory import identity_path
from mastodon_gov.migrations import number
from mastodon_gov.release.known import of_status
from mastodon_gov.remote import LIB, application_host
from mastodon_gov.secrets import read

CERTIFICATE_DAYS = 21  # below this a renewal has failed at least once
QUEUE_SECONDS = 300
DAY = 86400
DISK_PERCENT = 85
# Findings of the sweep that say that somebody got past the lock; the others wait for the mail or the next look.
INTRUSIONS = ("foreign_address", "invite_outside_ledger", "guard_missing", "register_changed")


def problems(seen: dict[str, Any]) -> list[str]:
    """A sentence for everything in a status that needs a person."""
    found = [f"{part}: could not look: {value['error']}" for part, value in seen.items() if _is_error(value)]
    good = {part: value for part, value in seen.items() if not _is_error(value)}
    found += [
        f"{name} is {unit['state']}" for name, unit in good.get("services", {}).items() if unit["state"] == "failed"
    ]
    found += [f"unit {name} has failed" for name in good.get("failed_units", [])]
    found += _slot_problems(good.get("slots", {}))
    found += _upgrade_problems(good.get("upgrade") or {})
    if good.get("certificate", {}).get("days_left", 999) < CERTIFICATE_DAYS:
        found.append(
            f"the certificate ends in {good['certificate']['days_left']} days; see docs/it-team/certificates.md"
        )
    full = {place: use for place, use in good.get("disks", {}).items() if use["used_percent"] > DISK_PERCENT}
    found += [f"{place} is {use['used_percent']:.0f} % full" for place, use in full.items()]
    if good.get("queues", {}).get("oldest_s", 0) > QUEUE_SECONDS:
        found.append(f"the oldest job has waited {good['queues']['oldest_s']:.0f} s")
    if not good.get("lock", {}).get("ok", True):
        found.append(f"the lock in the database is broken: {', '.join(good['lock']['failed'])}; deploy again")
    found += [
        f"the sweep found {count} {kind}; `mastodon-gov sweep` shows what"
        for kind, count in good.get("sweep", {}).get("findings", {}).items()
        if kind in INTRUSIONS
    ]
    if good.get("release", {}).get("security"):
        found.append(f"{good['release']['sentence']} See docs/operator/releases.md")
    if good.get("restore", {}).get("held"):
        found.append("a restored instance is held: no visitors, no mail, no federation until `restore --open`")
    return found + [told for part in ("backup", "backup_bucket") for told in good.get(part, {}).get("problems", [])]


def _is_error(value: Any) -> bool:
    return isinstance(value, dict) and "error" in value


def drill_problems(told: dict[str, Any], allowed: int) -> list[str]:
    """What `status` says of the drills; `allowed` in days."""
    last = told.get("last") or {}
    found = [f"the last drill failed: {' '.join(last['problems']) or 'see its evidence'}"] if last.get("rc") else []
    if told.get("without_s", 0) > allowed * DAY:
        found.append(
            f"no drill has succeeded for {told['without_s'] // DAY} days (backups.drill_max_age_days is {allowed}): "
            "run `mastodon-gov drill`"
        )
    return found


def _slot_problems(slots: dict[str, Any]) -> list[str]:
    found = []
    for kind, both in slots.get("kinds", {}).items():
        active = [slot for slot, state in both.items() if state["active"]]
        if len(active) != 1:
            found.append(f"{kind}: {len(active)} slots are active, exactly one must be; deploy again")
        found += [f"{kind}@{slot} is older than what it reads; deploy again" for slot in active if both[slot]["stale"]]
    return found


def _upgrade_problems(last: dict[str, Any]) -> list[str]:
    if last.get("state", "done") in ("done", "held"):
        return []
    back = number(last["to"]) < number(last["from"])
    ways = "`mastodon-gov rollback` finishes it" if back else "`mastodon-gov upgrade` finishes it, `rollback` goes back"
    return [
        f"the way from {last['from']} to {last['to']} stopped, or still is, in the step `{last['step']}` "
        f"({last['state']}, {last['last'][:19]} UTC): {ways}"
    ]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@click.pass_obj
def status(directory: Path, as_json: bool) -> None:
    """Show what runs, since when, which release, and how old certificate, backup and queues are. Changes nothing.

    Exit: 0 all well, 1 something needs a person, 2 wrong usage or a wrong file of the instance, 4 no host reached.
    """
    host = application_host(directory)
    seen = json.loads(host.run([f"{LIB}/status.py"]))
    seen["backup_bucket"] = look(host.instance, read(directory, identity_path(directory)))
    seen["release"] = of_status(seen, directory)
    wrong = problems(seen) + drill_problems(seen["drill"], host.instance.backups.drill_max_age_days)
    if as_json:
        click.echo(json.dumps({"host": host.name, **seen, "problems": wrong}))
    else:
        _table(host.name, seen)
        for sentence in wrong:
            click.echo(f"! {sentence}")
    sys.exit(1 if wrong else 0)


def _when(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _table(name: str, seen: dict[str, Any]) -> None:
    table = Table("what", "state", "since or until", title=name, title_justify="left", box=None)
    for kind, both in seen.get("slots", {}).get("kinds", {}).items():
        for slot, state in both.items():
            if state["active"]:
                table.add_row(f"mastodon-{kind}@{slot}", str(state["release"]), _when(state["since"]))
    if not _is_error(seen["release"]):
        table.add_row("release", seen["release"]["sentence"], "")
    for unit, state in (seen["services"] if not _is_error(seen["services"]) else {}).items():
        table.add_row(unit, state["state"], _when(state["since"]))
    if not _is_error(seen["certificate"]):
        table.add_row("certificate", ", ".join(seen["certificate"]["names"]), _when(seen["certificate"]["not_after"]))
    if not _is_error(seen["queues"]):
        waiting = sum(seen["queues"]["waiting"].values())
        table.add_row(
            "jobs", f"{waiting} waiting, {seen['queues']['retry']} to retry, {seen['queues']['dead']} dead", ""
        )
    _backup_rows(table, seen["backup"])
    if (last := seen.get("upgrade")) and not _is_error(last):
        table.add_row("last upgrade", f"{last['from']} → {last['to']}: {last['state']}", f"{last['last'][:19]} UTC")
    if last := seen.get("drill", {}).get("last"):
        word = f"back in {last['rto_s']} s, {last['rpo_s']} s lost" if last["rc"] == 0 else "failed"
        table.add_row("drill", word, _when(last["at"]))
    for place, use in (seen["disks"] if not _is_error(seen["disks"]) else {}).items():
        table.add_row(f"disk {place}", f"{use['free_gib']} GiB free, {use['used_percent']} % used", "")
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _backup_rows(table: Table, backup: dict[str, Any]) -> None:
    if _is_error(backup) or not backup["last"]:
        return
    table.add_row("last backup", f"{backup['label']}, {backup['backups']} in all", _when(backup["last"]))
    beat = (backup["wal"] or {}).get("heartbeat") or {}
    if beat.get("repository_age") is not None:
        table.add_row("", f"everything up to {beat['repository_age']} s ago has left the host", "")
