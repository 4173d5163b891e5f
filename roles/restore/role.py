"""Restore: the programs that bring a database back beside the running one, verify it, and switch."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from pyinfra import host
from pyinfra.api import FactBase, OperationError, operation

from mastodon_gov.instance import Node
from roles.lib import Commands, deploy
from roles.lib.files import Entry
from roles.lib.render import managed, program
from roles.lib.settle import settle
from roles.lib.units import Unit

PACKAGES: list[str] = []
UNITS: list[Unit] = []
LIB = "/usr/local/lib/mastodon-gov"
MODULES = ("recovery.py", "verify.py", "switching.py")


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


def files(node: Node) -> list[Entry]:
    """Programs, and the rules that keep a restored instance to itself."""
    storage = urlsplit(node.instance.object_storage.endpoint)
    return [
        *(program("restore", name, f"{LIB}/{name}", mode=0o644) for name in MODULES),
        program("restore", "restore.py", f"{LIB}/restore.py"),
        managed("restore/held.nft", f"{LIB}/held.nft", node, port=storage.port or 443),
    ]


@deploy("Restore")
def restore(node: Node) -> None:
    """Nothing runs until somebody asks for it."""
    settle(files=files(node))
