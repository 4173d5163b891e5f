"""Keeps visitors from a slot that is not healthy yet: nginx finds its ports closed and takes the other slot at once.

Without it a new slot that answers, but with errors, would get its share of the visitors until it is given up.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

TABLE = "inet mfg_slots"  # beside the firewall's own, which is loaded as a whole
# Only new connections: what was begun may end.
CLOSE = """add table {table}
add chain {table} output {{ type filter hook output priority 0; }}
add rule {table} output meta skuid www-data ct state new tcp dport {{ {ports} }} reject with tcp reset
"""
OPEN = f"add table {TABLE}\ndelete table {TABLE}\n"  # also where there is none


def nft(rules: str) -> None:
    """Load rules, all or none. Raises OSError with nft's own words."""
    done = subprocess.run(["nft", "-f", "-"], input=rules, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"nft does not take the rules that keep visitors from a new slot: {done.stderr.strip()[-300:]}")


def open_all() -> None:
    """Nothing is closed any more, also by a run that was killed."""
    nft(OPEN)


@contextmanager
def closed(ports: list[int]) -> Iterator[None]:
    """Until the end of the block nginx cannot reach these ports."""
    open_all()
    try:
        if ports:
            nft(CLOSE.format(table=TABLE, ports=", ".join(map(str, ports))))
        yield
    finally:
        open_all()
