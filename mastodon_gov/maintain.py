"""The verb `maintain`: Debian's packages, restarts, a swap of slots, and a reboot when one is due."""

from __future__ import annotations

import getpass
import json
import re
import socket
import time
from pathlib import Path
from typing import Any

import click

from mastodon_gov.errors import Refusal
from mastodon_gov.remote import LIB, Host, application_host
from mastodon_gov.status import problems

SPACE = 1024  # MiB that must be free at / and /var: packages are unpacked beside the old ones
LONGEST = 3600  # seconds; a point release of Debian with a slow mirror
BACK_WITHIN = 600  # seconds until a host must be well again after a reboot
NUMBERS = re.compile(r"\d+")


def look(host: Host) -> dict[str, Any]:
    """What there is to do. Refusal when nothing is deployed there yet."""
    seen: dict[str, Any] = json.loads(host.run([f"{LIB}/maintain.py", "look"], timeout=300))
    return seen


def against(seen: dict[str, Any], without_backup: bool) -> list[str]:
    """Sentences that stand against beginning."""
    found = [] if without_backup else [f"backup: {sentence}" for sentence in seen["backup"]]
    for place, free in seen["free_mib"].items():
        if free < SPACE:
            found.append(f"disk: {free} MiB are free at {place}, {SPACE} are needed. Make room: `apt-get clean`.")
    return found


def show(seen: dict[str, Any]) -> None:
    """The plan for a person."""
    age = "never fetched" if seen["lists_age"] is None else f"lists {seen['lists_age'] // 3600} h old"
    click.echo(f"packages  {len(seen['packages'])} to upgrade ({age}; fetched anew when it begins)")
    for each in seen["packages"]:
        click.echo(f"  {each['package']:<32} {each['from']} → {each['to']}")
    click.echo(f"restarts  {', '.join(seen['outdated']) or 'nothing runs with old files now'}")
    click.echo(f"reboot    {seen['reboot'] or 'not needed now'}")


def work(host: Host, who: str) -> None:
    """Run it in a unit of its own, which goes on when our connection ends; wait for its end."""
    unit = f"mfg-maintain-{int(time.time())}"
    host.run(
        ["systemd-run", "-q", "--collect", f"--unit={unit}", "--wait", f"{LIB}/maintain.py", "run", who],
        timeout=LONGEST,
    )


def said(host: Host) -> str:
    """The sentence of the step that failed."""
    last = look(host)["journal"]
    return str(last[0].get("said", "")) if last else ""


def boot(host: Host) -> tuple[str, str]:
    """What tells one boot from another. A container shares its host's boot; its first process is another one."""
    told = host.run(["cat", "/proc/sys/kernel/random/boot_id", "/proc/1/stat"], timeout=20).splitlines()
    return told[0], told[1].split()[21]


def reboot(host: Host) -> None:
    """Restart the machine and wait until it is another boot."""
    before = boot(host)
    host.run(["systemd-run", "-q", "--on-active=1", "systemctl", "reboot"])
    deadline = time.monotonic() + BACK_WITHIN
    while time.monotonic() < deadline:
        time.sleep(2)
        try:
            if boot(host) != before:
                return
        except Refusal:
            continue
    raise Refusal(f"{host.name} did not come back within {BACK_WITHIN} s after its reboot. Look at its console.")


def wrong_with(host: Host) -> list[str]:
    """What `status` finds on the host itself."""
    return problems(json.loads(host.run([f"{LIB}/status.py"])))


def new_problems(wrong: list[str], before: list[str]) -> list[str]:
    """Those that were not there before, whatever their numbers are now."""
    old = {NUMBERS.sub("", sentence) for sentence in before}
    return [sentence for sentence in wrong if NUMBERS.sub("", sentence) not in old]


def healthy(host: Host, before: list[str]) -> None:
    """Wait until `status` finds nothing that it did not find `before`. Refusal with what it finds at the deadline."""
    deadline = time.monotonic() + BACK_WITHIN
    wrong = ["it does not answer"]
    while time.monotonic() < deadline:
        try:
            if not (wrong := new_problems(wrong_with(host), before)):
                return
        except Refusal as refusal:
            wrong = [str(refusal)]
        time.sleep(2)
    raise Refusal("\n".join([f"{host.name} is not well {BACK_WITHIN} s after the maintenance:", *wrong]))


@click.command()
@click.option("--plan", "only_plan", is_flag=True, help="Print what would happen and change nothing.")
@click.option("--no-reboot", is_flag=True, help="Do not restart the machine, also when that is due.")
@click.option("--without-backup", is_flag=True, help="Begin although no fresh backup stands behind it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@click.pass_obj
def maintain(directory: Path, only_plan: bool, no_reboot: bool, without_backup: bool, as_json: bool) -> None:
    """Upgrade Debian's packages, restart only what runs with old files, swap the slots, reboot when it is due.

    Changes the host. Exit: 0 done, 1 refused, failed, or the host is not well afterwards.
    """
    host = application_host(directory)
    before = look(host)
    if only_plan:
        click.echo(json.dumps(before)) if as_json else show(before)
        return
    if sentences := against(before, without_backup):
        raise Refusal("\n".join([*sentences, "Nothing was changed."]))
    known = wrong_with(host)
    who, began = f"{getpass.getuser()}@{socket.gethostname()}", time.monotonic()
    try:
        work(host, who)
    except Refusal:
        raise Refusal(f"{host.name}: {said(host) or 'see `journalctl -u mfg-maintain-*`'}") from None
    after = look(host)
    restarted = bool(after["reboot"]) and not no_reboot
    if restarted:
        reboot(host)
    healthy(host, known)
    host.run([f"{LIB}/maintain.py", "close", who])
    told = {"packages": before["packages"], "left": after["outdated"], "reboot": after["reboot"], "rebooted": restarted}
    if as_json:
        click.echo(json.dumps(told | {"seconds": round(time.monotonic() - began, 1)}))
        return
    click.echo(
        f"{len(before['packages'])} packages were to upgrade, all is well after {time.monotonic() - began:.0f} s"
    )
    if after["reboot"] and not restarted:
        click.echo(f"! a reboot is due: {after['reboot']}")
