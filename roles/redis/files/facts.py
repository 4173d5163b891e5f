#!/usr/bin/python3 -IB
"""Facts of the role redis for the audit: one JSON document. Reads only; no arguments."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roles.base.files.facts_lib import tell
else:  # on the host the programs' common part lies one directory up
    sys.path.insert(0, "/usr/local/lib/mastodon-gov")
    from facts_lib import tell

# An account that may ask for settings and users and nothing else; no data.
PASSWORD = Path("/etc/mastodon-gov/redis-audit")
SETTINGS = ("bind", "protected-mode", "maxmemory-policy", "appendonly", "port", "unixsocketperm", "dir")


def ask(*words: str) -> list[str]:
    """Lines of the running server's answer. The password travels in the environment."""
    env = {"PATH": "/usr/bin:/bin", "REDISCLI_AUTH": PASSWORD.read_text().strip()}
    asked = ["redis-cli", "--user", "audit", "--no-auth-warning", *words]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=False, env=env)
    if done.returncode or done.stdout.startswith(("NOPERM", "WRONGPASS", "NOAUTH", "ERR")):
        raise OSError(f"redis-cli: {(done.stdout + done.stderr).strip()[:200]}")
    return done.stdout.splitlines()


def settings() -> dict[str, str]:
    """Settings in force."""
    rows = ask("CONFIG", "GET", *SETTINGS)
    return dict(zip(rows[::2], rows[1::2], strict=True))


def users() -> dict[str, str]:
    """Rights of each user, without digests of passwords."""
    lines = (re.sub(r" #[0-9a-f]+", "", line) for line in ask("ACL", "LIST"))
    return {line.split()[1]: " ".join(line.split()[2:]) for line in lines if line}


if __name__ == "__main__":
    tell({"settings": settings, "users": users})
