"""What runs in the two slots, as systemd and the links say; for slots.py."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path("/opt/mastodon")
KINDS = ("web", "sidekiq", "streaming")
SLOTS = ("a", "b")
ENV = Path("/etc/mastodon/mastodon.env")
LIBRARIES = "/run/mastodon-gov/libraries"  # touched when libraries that processes have in memory were replaced


def unit(kind: str, slot: str) -> str:
    return f"mastodon-{kind}@{slot}.service"


def show(kind: str, slot: str) -> dict[str, str]:
    return shown([(kind, slot)])[kind, slot]


def shown(wanted: list[tuple[str, str]]) -> dict[tuple[str, str], dict[str, str]]:
    """Properties of several units, by one question to systemd."""
    asked = "ActiveState,SubState,MainPID,InactiveExitTimestamp,FragmentPath,DropInPaths,NeedDaemonReload"
    words = ["systemctl", "show", "--timestamp=us+utc", "-p", asked, *(unit(kind, slot) for kind, slot in wanted)]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    blocks = text.strip().split("\n\n")
    return {
        key: dict(line.split("=", 1) for line in block.splitlines()) for key, block in zip(wanted, blocks, strict=True)
    }


def started(properties: dict[str, str]) -> float:
    text = properties.get("InactiveExitTimestamp", "")
    if not text:
        return 0.0
    return datetime.strptime(text[4:], "%Y-%m-%d %H:%M:%S.%f %Z").replace(tzinfo=UTC).timestamp()


def read_by(kind: str, slot: str, properties: dict[str, str]) -> float:
    """When the youngest file that this process reads was written."""
    own = [properties.get("FragmentPath", ""), *properties.get("DropInPaths", "").split()]
    files = [*own, str(ENV), f"/etc/mastodon/{kind}-{slot}.env", LIBRARIES]
    times = [os.stat(path).st_mtime for path in files if path and os.path.exists(path)]
    link = ROOT / "slot" / slot
    return max([*times, link.lstat().st_mtime if link.is_symlink() else 0.0])


def release_of(slot: str) -> str | None:
    link = ROOT / "slot" / slot
    return os.path.basename(os.readlink(link)) if link.is_symlink() else None


def status() -> dict[str, dict[str, dict[str, object]]]:
    found: dict[str, dict[str, dict[str, object]]] = {}
    for (kind, slot), seen in shown([(kind, slot) for kind in KINDS for slot in SLOTS]).items():
        since = started(seen)
        found.setdefault(kind, {})[slot] = {
            "active": seen["ActiveState"] in ("active", "activating", "reloading", "deactivating"),
            "ready": seen["ActiveState"] == "active",
            "release": release_of(slot),
            "since": since,
            "pid": int(seen["MainPID"]),
            "stale": read_by(kind, slot, seen) > since or seen["NeedDaemonReload"] == "yes",
        }
    return found


def settled(seen: dict[str, dict[str, dict[str, object]]], release: str) -> bool:
    """Exactly one ready slot of each kind, the same for all, on the release, and none older than what it reads."""
    active = {kind: [slot for slot in SLOTS if seen[kind][slot]["active"]] for kind in KINDS}
    if len({tuple(slots) for slots in active.values()}) != 1 or len(active["web"]) != 1:
        return False
    slot = active["web"][0]
    right = all(seen[k][slot]["ready"] and not seen[k][slot]["stale"] for k in KINDS)
    return right and release_of(slot) == release and current() == (release, slot)


def current() -> tuple[str, str] | None:
    try:
        return os.path.basename(os.readlink(ROOT / "current")), os.path.basename(os.readlink(ROOT / "active"))
    except OSError:
        return None
