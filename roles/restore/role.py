"""Restore: the programs that bring a database back beside the running one, verify it, and switch."""

from __future__ import annotations

from urllib.parse import urlsplit

from mastodon_gov.instance import Node
from roles.lib import deploy
from roles.lib.files import Entry
from roles.lib.render import managed, program
from roles.lib.settle import settle
from roles.lib.units import Unit

PACKAGES: list[str] = []
UNITS: list[Unit] = []
LIB = "/usr/local/lib/mastodon-gov"
MODULES = ("recovery.py", "verify.py", "switching.py")


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
