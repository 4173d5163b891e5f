"""Facts of the role base: units, and the sandboxes that services really run in."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roles.base.files.facts_lib import output
else:
    sys.path.insert(0, "/usr/local/lib/mastodon-gov")
    from facts_lib import output

# The kind of a service, and the units it runs as.
SERVICES = {
    "web": "mastodon-web@*.service",
    "sidekiq": "mastodon-sidekiq@*.service",
    "streaming": "mastodon-streaming@*.service",
    "postgresql": "postgresql@17-main.service",
    "redis": "redis-server.service",
    "nginx": "nginx.service",
}
ASKED = (
    "Id,MainPID,ActiveState,NeedDaemonReload,FragmentPath,DropInPaths,MemoryMax,TasksMax,LimitNOFILE,Restart,"
    "MemoryDenyWriteExecute"
)
READ_ONLY = ("/usr", "/etc", "/opt/mastodon/releases")


def settings(name: str) -> dict[str, str]:
    """Settings of a daemon of systemd from all its files together; the last one counts."""
    lines = [line.partition("=") for line in output("systemd-analyze", "cat-config", name).splitlines()]
    return {key.strip(): value.strip() for key, sign, value in lines if sign and not key.startswith("#")}


def failed_units() -> list[str]:
    """Units that systemd calls failed."""
    return [line.split()[0] for line in output("systemctl", "--failed", "--plain", "--no-legend").splitlines()]


def services() -> dict[str, dict[str, object]]:
    """The active unit of each service: systemd's settings, and what the kernel says of its main process."""
    listed = output("systemctl", "list-units", "--plain", "--no-legend", "--state=active", *SERVICES.values())
    names = [line.split()[0] for line in listed.splitlines()]
    blocks = output("systemctl", "show", "-p", ASKED, *names).strip().split("\n\n") if names else []
    exposed = exposures()
    found = {}
    for block in blocks:
        unit = dict(line.split("=", 1) for line in block.splitlines())
        kind = next(k for k, v in SERVICES.items() if re.fullmatch(v.replace("*", ".*"), unit["Id"]))
        found[kind] = unit | {"exposure": exposed[unit["Id"]], "process": process(unit["MainPID"])}
    return found


def exposures() -> dict[str, float]:
    """systemd's score of every service: 0 is a sandbox without holes, 10 none at all."""
    rows = [line.split() for line in output("systemd-analyze", "security", "--no-pager").splitlines()[1:]]
    return {row[0]: float(row[1]) for row in rows if len(row) > 2}


def process(pid: str) -> dict[str, object]:
    """Rights of a running process, and which of the places that it must not change it could."""
    lines = (line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    status = {line[0]: line[1] for line in lines if len(line) == 2}
    keys = ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp")
    return {**{key: status[key] for key in keys}, "writable": [p for p in READ_ONLY if _writable(pid, p)]}


def _writable(pid: str, place: str) -> bool:
    """Whether the mount that holds a place is writable in the process's own table of mounts."""
    rows = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    over = [row for row in rows if place == row[4] or place.startswith(row[4].rstrip("/") + "/")]
    nearest = max(over, key=lambda row: len(row[4]))
    return "ro" not in nearest[5].split(",")


PARTS = (failed_units, services)
