"""The way out of a drill: to the backup store and the resolvers; all else is refused and counted."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from roles.restore.files.catalogue import as_user
else:  # on the host the programs lie side by side
    from catalogue import as_user

USER = "mfg-drill"
RULES = """\
table inet mfg_drill
delete table inet mfg_drill
table inet mfg_drill {{
  counter blocked {{ }}
  chain drill {{
{allowed}
    counter name blocked
    meta l4proto tcp reject with tcp reset
    reject
  }}
  # Only what is the account's: packets that belong to no socket any more are other services' last words.
  chain output {{
    type filter hook output priority filter - 10; policy accept;
    meta skuid "{user}" jump drill
  }}
}}
"""


def rules(store: str, port: str) -> str:
    """The rules: the backup store and the resolvers, for this account; all else is counted and refused."""
    allowed = []
    for family, word in ((socket.AF_INET, "ip"), (socket.AF_INET6, "ip6")):
        try:
            found = sorted({str(each[4][0]) for each in socket.getaddrinfo(store, None, family, socket.SOCK_STREAM)})
        except socket.gaierror:
            found = []
        if found:
            allowed.append(f"    {word} daddr {{ {', '.join(found)} }} tcp dport {port} accept")
    for server in re.findall(r"^nameserver (\S+)", Path("/etc/resolv.conf").read_text(), re.M):
        word = "ip6" if ":" in server else "ip"
        allowed.append(f"    {word} daddr {server} meta l4proto {{ tcp, udp }} th dport 53 accept")
    return RULES.format(user=USER, allowed="\n".join(allowed))


def blocked() -> int:
    """Packets that the rules have refused."""
    shown = subprocess.run(
        ["nft", "-j", "list", "counter", "inet", "mfg_drill", "blocked"], capture_output=True, text=True, check=False
    ).stdout
    return next(
        (each["counter"]["packets"] for each in json.loads(shown or "{}").get("nftables", []) if "counter" in each), 0
    )


def reached(probes: list[list[Any]]) -> list[str]:
    """Those of the addresses (host, port) to which the drill's account can open a connection."""
    program = """
import json, socket, sys
for host, port in json.loads(sys.argv[1]):
    try:
        socket.create_connection((host, port), timeout=2).close()
        print(f"{host}:{port}")
    except OSError:
        pass
"""
    return str(as_user(USER, "python3", "-c", program, json.dumps(probes)).stdout).split()
