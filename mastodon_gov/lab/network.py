"""The bridge of a lab: addresses, IPv4 egress by NAT (no IPv6 egress), and cutting machines off.

Lab N has 10.89.N.0/24, fd89:N::/64, the bridge `mfgN` and the nftables tables `mfg_N`; the host is .1 and ::1.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from typing import Any

from mastodon_gov.errors import Refusal
from mastodon_gov.lab.state import locked

RUN = Path("/run/mfg-lab")  # cleared at boot, like the bridges it describes
NUMBERS = range(1, 255)

RULES = """
table inet mfg_{n} {{}}
delete table inet mfg_{n}
table inet mfg_{n} {{
  chain egress {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr 10.89.{n}.0/24 ip daddr != 10.89.{n}.0/24 masquerade
  }}
  chain between {{
    type filter hook forward priority filter; policy accept;
    iifname "mfg{n}" oifname != "mfg{n}" meta nfproto ipv6 drop
    iifname "mfg{n}" oifname "mfg*" oifname != "mfg{n}" drop
  }}
}}
"""
CUTS = """
table bridge mfg_{n} {{
  set alone {{ type ifname; }}
  set pairs {{ type ifname . ifname; }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname @alone drop
    oifname @alone drop
    iifname . oifname @pairs drop
  }}
  chain input {{ type filter hook input priority filter; policy accept; iifname @alone drop; }}
  chain output {{ type filter hook output priority filter; policy accept; oifname @alone drop; }}
}}
"""


def run(*argv: str, stdin: str | None = None, check: bool = True) -> str:
    """Run a host command and return its output; refuse with its error text."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise Refusal(f"{' '.join(argv)} failed with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def bridge(number: int) -> str:
    """The name of the lab's bridge."""
    return f"mfg{number}"


def address4(number: int, index: int) -> str:
    """IPv4 address of a machine; index 1 is the host."""
    return f"10.89.{number}.{index}"


def address6(number: int, index: int) -> str:
    """IPv6 address of a machine, with the same digits as the IPv4 one."""
    return f"fd89:{number}::{index}"


def taken_networks(addresses: Iterable[dict[str, Any]], routes: Iterable[dict[str, Any]]) -> list[IPv4Network]:
    """IPv4 networks in use here, from `ip -j addr` and `ip -j route`.

    Networks wider than /16 do not count: a company's route to 10.0.0.0/8 leaves room for our narrower one.
    """
    texts = [
        f"{a['local']}/{a['prefixlen']}"
        for link in addresses
        for a in link.get("addr_info", ())
        if a.get("family") == "inet"
    ]
    texts += [r["dst"] for r in routes if re.fullmatch(r"[\d.]+(/\d+)?", r.get("dst", ""))]
    return [n for n in (IPv4Network(t, strict=False) for t in texts) if n.prefixlen >= 16]


def choose_number(taken: list[IPv4Network], reserved: set[int]) -> int:
    """The first N whose 10.89.N.0/24 nobody uses."""
    for number in NUMBERS:
        network = ip_network(f"10.89.{number}.0/24")
        if number not in reserved and not any(network.overlaps(t) for t in taken):
            return number
    raise Refusal(
        "no free lab network: every 10.89.N.0/24 is used by an address or route of this host (`ip addr`, "
        "`ip route`) or by another lab. Remove labs with `mastodon-gov lab down`, or remove that route."
    )


def claims() -> dict[int, Path]:
    """The numbers in use on this host since its start, and the directory of the lab that uses each."""
    return {int(p.name): Path(p.read_text()) for p in RUN.glob("[0-9]*")}


def claims_of(lab_root: Path) -> set[int]:
    """The numbers a lab has claimed: one, or none."""
    return {number for number, root in claims().items() if root == lab_root}


def claim(lab_root: Path, reserved: set[int], wanted: int | None = None) -> int:
    """Reserve a number for a lab on this host; a number the lab already has stays, unless another lab took it."""
    with locked(RUN / "lock"):
        taken = claims()
        if wanted is not None and taken.get(wanted, lab_root) != lab_root:
            raise Refusal(
                f"the addresses 10.89.{wanted}.0/24 of the lab in {lab_root} are now used by the lab in "
                f"{taken[wanted]}. Remove one of them with `mastodon-gov lab down`."
            )
        addresses = json.loads(run("ip", "-j", "addr"))
        routes = json.loads(run("ip", "-j", "-4", "route"))
        number = wanted or choose_number(taken_networks(addresses, routes), reserved | taken.keys())
        (RUN / str(number)).write_text(str(lab_root))
        return number


def up(number: int) -> None:
    """Make the bridge and the rules; does nothing where they are already there."""
    name = bridge(number)
    with locked(RUN / "lock"):
        if not Path("/sys/class/net", name).exists():
            run("ip", "link", "add", name, "type", "bridge")
        run("ip", "addr", "replace", f"{address4(number, 1)}/24", "dev", name)
        run("ip", "-6", "addr", "replace", f"{address6(number, 1)}/64", "dev", name, "nodad")
        run("ip", "link", "set", name, "up")
        Path(f"/proc/sys/net/ipv4/conf/{name}/forwarding").write_text("1")
        _forward_uplink()
        run("nft", "-f", "-", stdin=RULES.format(n=number))
        if not run("nft", "list", "table", "bridge", f"mfg_{number}", check=False):  # keep the cuts that are made
            run("nft", "-f", "-", stdin=CUTS.format(n=number))


def down(number: int) -> None:
    """Remove bridge, rules and claim; does nothing where they are gone."""
    with locked(RUN / "lock"):
        # The kernel removes the interfaces of ended machines only after a while.
        for port in Path("/sys/class/net", bridge(number), "brif").glob("*"):
            run("ip", "link", "del", port.name, check=False)
        run("ip", "link", "del", bridge(number), check=False)
        for family in ("inet", "bridge"):
            run("nft", "delete", "table", family, f"mfg_{number}", check=False)
        (RUN / str(number)).unlink(missing_ok=True)
        if not list(RUN.glob("[0-9]*")):
            _restore_uplinks()


def _forward_uplink() -> None:
    """Let the interface of the default route forward; remember it, to undo it with the last lab."""
    for route in json.loads(run("ip", "-j", "-4", "route", "show", "default")):
        switch = Path(f"/proc/sys/net/ipv4/conf/{route['dev']}/forwarding")
        if switch.read_text().strip() == "0":
            (RUN / f"forwarding-{route['dev']}").touch()
            switch.write_text("1")


def _restore_uplinks() -> None:
    for mark in RUN.glob("forwarding-*"):
        switch = Path(f"/proc/sys/net/ipv4/conf/{mark.name.removeprefix('forwarding-')}/forwarding")
        if switch.exists():
            switch.write_text("0")
        mark.unlink()


def docker_warning(number: int) -> str | None:
    """Docker sets the forward policy to drop, and an accept in our table does not override that: say so."""
    if "policy drop" not in run("nft", "list", "chain", "ip", "filter", "FORWARD", check=False):
        return None
    name = bridge(number)
    return (
        "the host drops forwarded packets (chain `ip filter FORWARD`, usually set by Docker): machines of this "
        "lab cannot reach the package archive, and maybe not each other. Allow it: "
        f"`iptables -I DOCKER-USER -i {name} -j ACCEPT; iptables -I DOCKER-USER -o {name} -j ACCEPT`"
    )


def cut(number: int, interface: str, other: str | None) -> None:
    """Drop every frame of one machine, or every frame between two; the links stay up, as in a real partition."""
    _elements("add", number, interface, other)


def heal(number: int, interface: str, other: str | None) -> None:
    """Undo one `cut`; nothing to undo is no error."""
    _elements("add", number, interface, other)
    _elements("delete", number, interface, other)


def heal_all(number: int) -> None:
    """Undo every `cut` of the lab."""
    for name in ("alone", "pairs"):
        run("nft", "flush", "set", "bridge", f"mfg_{number}", name)


def _elements(verb: str, number: int, interface: str, other: str | None) -> None:
    table = f"bridge mfg_{number}"
    if other is None:
        line = f'{verb} element {table} alone {{ "{interface}" }}'
    else:
        both = f'"{interface}" . "{other}", "{other}" . "{interface}"'
        line = f"{verb} element {table} pairs {{ {both} }}"
    run("nft", "-f", "-", stdin=line + "\n")
