"""nftables: default deny in and out, made from the one table of flows; no rule can lock us out for good."""

from __future__ import annotations

from collections.abc import Sequence

from mastodon_gov.instance import Node
from mastodon_gov.instance.flows import PRIVATE, Flow, outgoing, split
from mastodon_gov.instance.types import Network
from roles.lib import deploy
from roles.lib.confirmed import confirmed_file
from roles.lib.files import Entry, ManagedFile, managed_files
from roles.lib.packages import packages
from roles.lib.render import facts_program, managed
from roles.lib.units import Unit, units

PACKAGES = ["nftables"]
UNITS = [Unit("nftables.service")]
CONFIG = "/etc/nftables.conf"


def files() -> list[Entry]:
    """What lies on a host besides the rules."""
    return [facts_program("firewall")]


def _elements(networks: Sequence[object]) -> str:
    return f"elements = {{ {', '.join(map(str, networks))} }}" if networks else ""


def rules(flow: Flow) -> list[str]:
    """nftables statements for one flow."""
    names = ", ".join(f'"{user}"' for user in flow.users)
    who = f"meta skuid {{ {names} }} " if names else ""
    ports = f"{{ {', '.join(map(str, flow.ports))} }}"
    what = f"meta l4proto {{ {', '.join(flow.protocols)} }} th dport {ports} accept"
    if not flow.to:
        return [f"{who}ip daddr != @private4 {what}", f"{who}ip6 daddr != @private6 {what}"]
    v4, v6 = split(flow.to)
    named: list[tuple[str, Sequence[Network]]] = [("ip", v4), ("ip6", v6)]
    return [f"{who}{family} daddr {{ {', '.join(map(str, nets))} }} {what}" for family, nets in named if nets]


def config(node: Node) -> ManagedFile:
    """The ruleset. Accounts that no role of this host makes are left out: nft would not load their names."""
    admin4, admin6 = split(node.instance.access.networks)
    private4, private6 = split(PRIVATE)
    return managed(
        "firewall/etc/nftables.conf",
        CONFIG,
        node,
        mode=0o640,
        validate="/usr/sbin/nft -c -f",
        elements=_elements,
        admin4=admin4,
        admin6=admin6,
        private4=private4,
        private6=private6,
        public_ports=[80, 443] if "proxy" in node.groups else [],
        flows=outgoing(node.instance),
        rules=rules,
    )


@deploy("Firewall")
def firewall(node: Node) -> None:
    """The service is enabled last: after a reboot only what was confirmed is loaded."""
    packages(name="Install packages", names=PACKAGES)
    managed_files(name="Write files", entries=files())
    confirmed_file(
        name="Load rules, and take them back unless we can still sign in",
        file=config(node),
        apply=f"nft -f {CONFIG}",
        live="nft -s list ruleset",
        unit="mfg-firewall",
    )
    units(name="Run units", wanted=UNITS)
