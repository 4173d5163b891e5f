#!/usr/bin/python3
"""Bring this host's Debian packages up to date, and restart no more than what runs with old files.

    maintain.py look        what would be upgraded, what runs with files that are gone, whether a reboot is due (JSON)
    maintain.py run WHO     lock, restore point, packages, restarts, slots; each step in the journal
    maintain.py restarts WHO
                            only restarts and slots, and nothing where nothing runs with old files: what the nightly
                            security upgrades call when they have ended
    maintain.py close WHO   the last line in the journal, after everything was seen to be well

Killed at any point, `run` again goes on: packages that were left half configured are configured first, and what must
restart is read from the processes, not remembered. Exit 1: a sentence on stderr.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from roles.mastodon.files.journal import append, records
else:  # on the host the programs lie side by side
    from journal import append, records

LIB = "/usr/local/lib/mastodon-gov"
JOURNAL = Path("/var/lib/mastodon-gov/journal/maintenance.jsonl")
LOCK = Path("/run/mastodon-gov/deploy.lock")
STAMP = Path("/run/mastodon-gov/libraries")  # slots.py: whoever is older than this must be started anew
NGINX_PID = Path("/run/nginx/nginx.pid")  # as nginx.conf and its unit have it
POLICY = Path("/usr/sbin/policy-rc.d")
# Debian's own restart would stop PostgreSQL and nginx in any order and whenever a package comes by.
DENY = "#!/bin/sh\n# mastodon-gov maintain: what must restart is restarted afterwards, in order\nexit 101\n"
APT = ["apt-get", "-y", "-q", "-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"]
ENV = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
# A restart of these ends sessions or the machine's own bookkeeping: they wait for the next boot.
AT_BOOT = re.compile(r"^(dbus|systemd-logind|systemd-machined|user@|session-|([a-z]+-)?getty|init\.scope|machine)")
# Databases first, then those who use them; whatever is not named comes between.
ORDER = {"postgresql@17-main.service": 0, "redis-server.service": 1, "nginx.service": 8, "ssh.service": 9}


class Failed(Exception):
    """A sentence for a person."""


def output(*words: str) -> str:
    """What a program printed. Failed with its own words."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=ENV)
    if done.returncode:
        raise Failed(f"{' '.join(words[:4])} ended with {done.returncode}: {done.stderr.strip()[-600:]}")
    return done.stdout


def upgrades() -> list[dict[str, str]]:
    """Packages that a dist-upgrade would install, from the lists as they are."""
    found = re.findall(r"^Inst (\S+) (?:\[(\S+)\] )?\((\S+)", output("apt-get", "-s", "dist-upgrade"), re.MULTILINE)
    return [{"package": name, "from": old, "to": new} for name, old, new in found]


def unit_of(pid: str) -> str:
    """The unit a process belongs to."""
    return Path(f"/proc/{pid}/cgroup").read_text().strip().rpartition("/")[2]


def outdated() -> list[str]:
    """Units with a process that maps a program or library that was replaced."""
    found = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):  # it has ended
            for line in maps.read_text().splitlines():
                place = line.partition("/")[2]
                if line.endswith(" (deleted)") and place.startswith(("usr/", "lib/", "opt/")) and " r-xp " in line:
                    found.add(unit_of(maps.parent.name))
                    break
    return sorted(unit for unit in found if unit)


def reboot_due() -> str:
    """Why the machine must boot anew; "" when it need not."""
    if Path("/run/reboot-required").exists():
        return "a package asked for it"
    kernels = [path.name.removeprefix("vmlinuz-") for path in Path("/boot").glob("vmlinuz-*")]
    running = os.uname().release
    # A container has no kernel of its own.
    if kernels and running not in kernels:
        return f"the running kernel {running} is gone"
    newest = max(kernels, key=lambda name: [int(part) for part in re.findall(r"\d+", name)], default=running)
    if newest != running:
        return f"kernel {newest} is installed, {running} runs"
    stay = [unit for unit in outdated() if AT_BOOT.match(unit)]
    return f"{', '.join(stay)} run with old libraries" if stay else ""


def look() -> dict[str, Any]:
    """Everything a person wants to know before."""
    lists = max((path.stat().st_mtime for path in Path("/var/lib/apt/lists").glob("*Packages*")), default=0.0)
    space = {place: os.statvfs(place) for place in ("/", "/var")}
    return {
        "packages": upgrades(),
        "lists_age": int(time.time() - lists) if lists else None,
        "outdated": outdated(),
        "reboot": reboot_due(),
        "free_mib": {place: (s.f_bavail * s.f_frsize) >> 20 for place, s in space.items()},
        "backup": json.loads(output(f"{LIB}/backup-status"))["problems"],
        "journal": records(JOURNAL)[-1:],
    }


@contextlib.contextmanager
def packages_restart_nothing() -> Any:
    """While packages are installed their scripts start and stop nothing (the interface of invoke-rc.d)."""
    POLICY.write_text(DENY)
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)


def install() -> None:
    """Everything that is newer; a person's configuration files stay."""
    with packages_restart_nothing():
        output("dpkg", "--configure", "-a", "--force-confdef", "--force-confold")
        output("apt-get", "-q", "update")
        output(*APT, "dist-upgrade")


def renew_nginx() -> None:
    """A new nginx beside the old one, on the same sockets; the old one ends its connections."""
    old = NGINX_PID.read_text().strip()
    os.kill(int(old), 12)  # SIGUSR2
    deadline = time.monotonic() + 20
    while not (NGINX_PID.exists() and NGINX_PID.read_text().strip() not in ("", old)):
        if time.monotonic() > deadline:
            raise Failed("nginx did not start a successor; it still serves. See journalctl -u nginx.")
        time.sleep(0.1)
    os.kill(int(old), 3)  # SIGQUIT


def lasting(unit: str) -> bool:
    """Whether it runs until somebody stops it. A job (a backup, this very run, after a new libc) ends by itself, and a
    restart would end its work."""
    told = output("systemctl", "show", "-p", "Type,Transient", unit)
    return "Type=oneshot" not in told and "Transient=yes" not in told


def due() -> list[str]:
    """Units that a restart brings to the new files, at any time."""
    return [unit for unit in outdated() if not AT_BOOT.match(unit) and lasting(unit)]


def restart() -> None:
    """Whoever runs with old files, in their order. Mastodon's own processes follow by a swap of slots."""
    units = due()
    output("systemctl", "daemon-reexec")
    for unit in sorted(units, key=lambda name: ORDER.get(name, 5)):
        if unit == "nginx.service":
            renew_nginx()
        elif unit.endswith(".service") and not unit.startswith("mastodon-"):
            output("systemctl", "restart", unit)
    if any(unit.startswith("mastodon-") for unit in units):
        STAMP.touch()


def swap() -> None:
    """The slots, with their health gate; nothing when no process is older than what it reads."""
    current = os.path.basename(os.readlink("/opt/mastodon/current"))
    print(output(f"{LIB}/slots.py", "settle", current).strip(), file=sys.stderr)


RESTARTS: dict[str, Callable[[], object]] = {"restarts": restart, "slots": swap}


def run(who: str, steps: dict[str, Callable[[], object]]) -> None:
    """Steps under the host's lock."""
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failed("Another deploy or upgrade is running. Wait until it has ended.") from None
        lock.truncate(0)
        lock.write(f"{who}, maintain, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n")
        lock.flush()
        name = f"maintain-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        for step, do in steps.items():
            recorded(who, name, step, do)


def whole(who: str) -> None:
    """All of it."""
    name = f"maintain-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    run(who, {"restore point": lambda: output(f"{LIB}/restore-point", name), "packages": install, **RESTARTS})


def recorded(who: str, name: str, step: str, do: Any) -> None:
    """A step between two lines of the journal."""
    line, began = {"attempt": name, "what": "maintain", "step": step, "who": who}, time.monotonic()
    append({"event": "start"} | line, JOURNAL)
    try:
        do()
    except Exception as error:
        append({"event": "end", "code": 1, "said": str(error)[:600]} | line, JOURNAL)
        raise
    append({"event": "end", "code": 0, "seconds": round(time.monotonic() - began, 2)} | line, JOURNAL)


def main(words: list[str]) -> int:
    """Do one thing."""
    os.umask(0o022)
    try:
        if words == ["look"]:
            print(json.dumps(look()))
        elif words[:1] == ["run"] and len(words) == 2:
            whole(words[1])
        elif words[:1] == ["restarts"] and len(words) == 2:
            if due():
                run(words[1], RESTARTS)
        elif words[:1] == ["close"] and len(words) == 2:
            append({"event": "closed", "what": "maintain", "who": words[1], "attempt": "", "result": "done"}, JOURNAL)
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except (Failed, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
