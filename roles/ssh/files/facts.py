#!/usr/bin/python3 -IB
"""Facts of the role ssh for the audit: one JSON document. Reads only; no arguments."""

from __future__ import annotations

import grp
import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roles.base.files.facts_lib import output, tell
else:  # on the host the programs' common part lies one directory up
    sys.path.insert(0, "/usr/local/lib/mastodon-gov")
    from facts_lib import output, tell

KEYS = Path("/etc/ssh/keys")
STRANGER = "203.0.113.9"  # of a network that is kept for documents


def sshd() -> dict[str, list[str]]:
    """Every setting in force, by name, with all its values in order; then those that a Match block gives somebody else:
    root, each of our accounts, one person of each group, from an address that nobody declares."""
    found = _told()
    general = {name: list(values) for name, values in found.items()}
    for user in _people():
        for name, values in _told("-C", f"user={user},host=stranger.invalid,addr={STRANGER}").items():
            if values != general.get(name):
                found.setdefault(name, []).extend(f"{value} (for {user})" for value in values)
    return found


def _told(*words: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in output("sshd", "-T", *words).splitlines():
        name, _, value = line.partition(" ")
        found.setdefault(name, []).append(value)
    return found


def _people() -> list[str]:
    members = [each.gr_mem[0] for each in grp.getgrall() if each.gr_name.startswith("mfg-") and each.gr_mem]
    return sorted({"root", "nobody", *(path.name for path in KEYS.iterdir()), *members})


def keys() -> dict[str, dict[str, object]]:
    """Who has keys: owner and mode of each file, and the keys as type and digest."""
    found = {}
    for path in sorted(KEYS.iterdir()):
        seen = path.stat()
        words = [line.split() for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
        found[path.name] = {
            "uid": seen.st_uid,
            "mode": f"{seen.st_mode & 0o7777:04o}",
            "keys": [hashlib.sha256(" ".join(key[:2]).encode()).hexdigest() for key in words],
            "types": [key[0] for key in words],
        }
    return found


def host_keys() -> dict[str, dict[str, object]]:
    """Kind, bits, owner and mode of each key that sshd shows."""
    found: dict[str, dict[str, object]] = {}
    for name in _told()["hostkey"]:
        seen, words = Path(name).stat(), output("ssh-keygen", "-l", "-f", name).split()
        mode = f"{seen.st_mode & 0o7777:04o}"
        found[name] = {"type": words[-1].strip("()"), "bits": int(words[0]), "uid": seen.st_uid, "mode": mode}
    return found


if __name__ == "__main__":
    tell({"sshd": sshd, "keys": keys, "host_keys": host_keys})
