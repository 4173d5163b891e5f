#!/usr/bin/python3 -IB
"""Facts of the role base for the audit: one JSON document. Reads only; no arguments."""

from __future__ import annotations

import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roles.base.files.facts_lib import output, tell
else:  # on the host the programs' common part lies one directory up
    sys.path.insert(0, "/usr/local/lib/mastodon-gov")
    from facts_lib import output, tell


def host() -> dict[str, object]:
    """Which system this is; `container` because a shared kernel is not the host's own. `booted` in s since 1970."""
    told = platform.freedesktop_os_release()
    release = Path("/opt/mastodon/current")
    return {
        "name": platform.node(),
        "system": told.get("PRETTY_NAME", ""),
        "version_id": told.get("VERSION_ID", ""),
        "kernel": platform.release(),
        "container": output("systemd-detect-virt", "--container", codes=(0, 1)).strip() not in ("", "none"),
        "release": release.resolve().name if release.exists() else "",
        "booted": round(time.time() - float(Path("/proc/uptime").read_text().split()[0])),
    }


def sysctl() -> dict[str, str]:
    """Every kernel setting that can be read."""
    lines = output("sysctl", "-a", codes=(0, 1, 255)).splitlines()
    return {name.strip(): value.strip() for name, sign, value in (line.partition("=") for line in lines) if sign}


if __name__ == "__main__":
    tell({"time": time.time, "host": host, "sysctl": sysctl})
