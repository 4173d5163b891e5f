"""Keys of other servers' accounts on the way back to an older release (docs/decisions/upgrades.md)."""

from __future__ import annotations

from pyinfra.api import FactBase, QuoteString, StringCommand, operation

from mastodon_gov.instance import Node
from roles.lib import Commands
from roles.lib.seen import seen
from roles.mastodon.database import observe
from roles.mastodon.processes import LIB, SlotsSettled, journalled


class KeysElsewhere(FactBase[bool]):
    """Whether the host is on its way back to a release that looks for these keys where they are not any more."""

    default = bool

    def command(self, release: str) -> StringCommand:
        """No, where the program is not there yet: nothing has ever run."""
        return StringCommand(f"[ ! -e {LIB}/legacy_keys.py ] || {LIB}/legacy_keys.py look", QuoteString(release))

    def process(self, output: list[str]) -> bool:
        """The program's own verdict."""
        return output == ["yes"]


@operation()
def legacy_keys(node: Node, after: bool) -> Commands:
    """Put them back before the older release starts, and once more when nobody is left who moves them away. Where
    nothing is on its way, nobody is asked."""
    release = node.release
    on_its_way = observe(node).unfinished or not seen(SlotsSettled, release=release.name)
    if on_its_way and seen(KeysElsewhere, release=release.name):
        step = "keys after" if after else "keys before"
        yield journalled(release, step, f"{LIB}/legacy_keys.py put")
