#!/usr/bin/python3 -IB
"""Facts of the role firewall for the audit: one JSON document. Reads only; no arguments."""

from __future__ import annotations

import hashlib
import json
import pwd
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roles.base.files.facts_lib import output, tell
else:  # on the host the programs' common part lies one directory up
    sys.path.insert(0, "/usr/local/lib/mastodon-gov")
    from facts_lib import output, tell

CONFIRMED = Path("/var/lib/mastodon-gov/mfg-firewall.sha256")


def ruleset() -> dict[str, object]:
    """Digest of what is loaded, and the one that was confirmed from outside at the last deploy."""
    text = output("nft", "-s", "list", "ruleset")
    return {
        "digest": hashlib.sha256(text.encode()).hexdigest(),
        "confirmed": CONFIRMED.read_text().strip() if CONFIRMED.exists() else "",
    }


def _loaded(kind: str) -> list[dict[str, Any]]:
    rows = json.loads(output("nft", "-j", "list", "ruleset"))["nftables"]
    return [row[kind] for row in rows if kind in row]


def policies() -> dict[str, str]:
    """What each chain of the inet table does with what no rule names."""
    return {each["hook"]: each["policy"] for each in _loaded("chain") if "hook" in each and each["table"] == "mfg"}


def sets() -> dict[str, list[str]]:
    """Addresses of each set."""
    return {each["name"]: sorted(map(_network, each.get("elem", []))) for each in _loaded("set")}


def _network(element: Any) -> str:
    if isinstance(element, dict) and "prefix" in element:
        return f"{element['prefix']['addr']}/{element['prefix']['len']}"
    if isinstance(element, dict) and "range" in element:
        return "-".join(element["range"])
    return str(element)


def accepted() -> dict[str, list[dict[str, list[str]]]]:
    """Every rule that lets something through, by chain: what it compares, in nft's own names."""
    found: dict[str, list[dict[str, list[str]]]] = {}
    for rule in _loaded("rule"):
        if any("accept" in step for step in rule["expr"]):
            matches = [step["match"] for step in rule["expr"] if "match" in step]
            found.setdefault(rule["chain"], []).append({_left(m["left"], m["op"]): _right(m) for m in matches})
    return found


def _left(left: dict[str, Any], op: str) -> str:
    words = next(iter(left.values()))
    name = ".".join(str(word) for word in words.values()) if isinstance(words, dict) else str(words)
    return name if op in ("==", "in") else f"{name} {op}"


def _right(match: dict[str, Any]) -> list[str]:
    right = match["right"]
    values = right["set"] if isinstance(right, dict) and "set" in right else right
    listed = values if isinstance(values, list) else [values]
    if match["left"] == {"meta": {"key": "skuid"}}:
        return sorted(_name(value) for value in listed)
    return sorted(map(_network, listed))


def _name(uid: object) -> str:
    return pwd.getpwuid(uid).pw_name if isinstance(uid, int) else str(uid)


def service() -> str:
    """Whether the rules are loaded at the next start."""
    return output("systemctl", "is-enabled", "nftables.service", codes=(0, 1)).strip()


def pending() -> list[str]:
    """Changes that would be taken back by themselves."""
    listed = output("systemctl", "list-units", "--plain", "--no-legend", "mfg-*-rollback.timer")
    return [line.split()[0] for line in listed.splitlines()]


if __name__ == "__main__":
    parts = (ruleset, policies, sets, accepted, service, pending)
    tell({part.__name__: part for part in parts})
