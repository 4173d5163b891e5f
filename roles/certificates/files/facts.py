#!/usr/bin/python3 -IB
"""Facts of the role certificates for the audit: one JSON document. Reads only; no arguments."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roles.base.files.facts_lib import output, tell
else:  # on the host the programs' common part lies one directory up
    sys.path.insert(0, "/usr/local/lib/mastodon-gov")
    from facts_lib import output, tell

CURRENT = Path("/etc/mastodon-gov/tls/current")
HOOK = Path("/etc/letsencrypt/renewal-hooks/deploy/60-mfg-nginx")


def key() -> dict[str, object]:
    """Owner and mode of the key in force, and whether it is the certificate's."""
    path = (CURRENT / "privkey.pem").resolve()
    seen = path.stat()
    of = output("openssl", "x509", "-in", str(CURRENT / "fullchain.pem"), "-noout", "-pubkey")
    return {
        "owner": f"{path.owner()}:{path.group()}",
        "mode": f"{seen.st_mode & 0o7777:04o}",
        "fits": of == output("openssl", "pkey", "-in", str(path), "-pubout"),
        "authority": "placeholder" not in str(CURRENT.resolve()),
    }


def renewal() -> dict[str, object]:
    """certbot's timer, its hook, the server of the certificate in force, and the days since it was made."""
    name = CURRENT.resolve().name
    conf = Path("/etc/letsencrypt/renewal") / f"{name}.conf"
    lines = conf.read_text().splitlines() if conf.exists() else []
    return {
        "timer": output("systemctl", "is-active", "certbot.timer", codes=(0, 3, 4)).strip(),
        "enabled": output("systemctl", "is-enabled", "certbot.timer", codes=(0, 1, 4)).strip(),
        "hook": os.access(HOOK, os.X_OK) and HOOK.stat().st_uid == 0,
        "server": next((line.partition(" = ")[2] for line in lines if line.startswith("server = ")), ""),
        "age": int((time.time() - (CURRENT / "fullchain.pem").stat().st_mtime) // 86400),
    }


if __name__ == "__main__":
    tell({"key": key, "renewal": renewal})
