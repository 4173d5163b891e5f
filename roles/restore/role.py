"""Restore: the programs that bring a database back beside the running one, verify it, and switch."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from pyinfra import host
from pyinfra.api import FactBase, OperationError, operation

from mastodon_gov.instance import Node
from roles.lib import Commands, deploy
from roles.lib.files import Directory, Entry, ManagedFile
from roles.lib.render import managed, program
from roles.lib.settle import settle
from roles.lib.units import Unit

PACKAGES: list[str] = []
LIB = "/usr/local/lib/mastodon-gov"
SYSTEM = "/etc/systemd/system"
TIMER = "mfg-drill.timer"
UNITS = [Unit("mfg-drill.service", run=False), Unit(TIMER, reads=(f"{SYSTEM}/{TIMER}",))]
# A drill must not get out to any of these: somebody else's server, and this host's own services.
PROBES = [("1.1.1.1", 443), ("127.0.0.1", 6379), ("127.0.0.1", 3000)]
MODULES = tuple(
    f"{name}.py"
    for name in "beside catalogue choice egress held recovery rehearsal ruins state switching unsent verify".split()
)


class RestoreUnderWay(FactBase[dict[str, Any]]):
    """Which steps of a restore were done; empty when none is under way."""

    default = dict

    def command(self) -> str:
        """What restore.py writes down after each step."""
        return "cat /var/lib/mastodon-gov/restore.json 2>/dev/null; true"

    def process(self, output: list[str]) -> dict[str, Any]:
        """One JSON document."""
        found: dict[str, Any] = json.loads("".join(output) or "{}")
        return found


@operation()
def not_half_done() -> Commands:
    """Refuse a host between two databases: a deploy would make a new, empty one. Changes nothing."""
    done = host.get_fact(RestoreUnderWay).get("done", {})
    if "stop-application" in done and "start-database" not in done:
        raise OperationError(
            f"{host.name}: a restore was interrupted while it switched databases. Finish it with "
            "`mastodon-gov restore --switch`, then run this again."
        )
    host.noop("no restore is half done")
    yield from ()


def drill_settings(node: Node) -> str:
    """What the drill tries to reach, and how much may be lost (s): DESIGN's promise with its margin."""
    instance = node.instance
    relay = [(str(address), instance.mail.port) for address in instance.addresses.get(instance.mail.relay, ())]
    told = {
        "probes": [*PROBES, *(relay[:1] or [(instance.mail.relay, instance.mail.port)])],
        "rpo_s": 2 * instance.backups.archive_timeout + 120,
        "alone": "mastodon" not in node.groups,
    }
    return json.dumps(told)


def files(node: Node) -> list[Entry]:
    """Programs, the rules that keep a restored instance to itself, and the nightly drill."""
    storage = urlsplit(node.instance.object_storage.endpoint)
    hour, minute = map(int, node.instance.backups.full_at.split(":"))
    at = f"{(hour + 5) % 24:02}:{minute:02}:00"  # after the night's backup and its verification
    system = f"restore{SYSTEM}"
    return [
        *(program("restore", name, f"{LIB}/{name}", mode=0o644) for name in MODULES),
        program("restore", "restore.py", f"{LIB}/restore.py"),
        managed("restore/held.nft", f"{LIB}/held.nft", node, port=storage.port or 443),
        program("restore", "drill.py", f"{LIB}/drill.py"),
        ManagedFile(f"{LIB}/drill.json", drill_settings(node)),
        Directory("/var/lib/mfg-drill", user="mfg-drill", group="mfg-drill", mode=0o711),
        managed(f"{system}/mfg-drill.service", f"{SYSTEM}/mfg-drill.service", node),
        managed(f"{system}/{TIMER}", f"{SYSTEM}/{TIMER}", node, at=at),
    ]


@deploy("Restore")
def restore(node: Node) -> None:
    """Nothing of a restore runs until somebody asks for it; the drill runs each night."""
    settle(files=files(node), units_=UNITS)
