#!/usr/bin/python3 -IB
"""Facts of the role mail for the audit: one JSON document. Reads only; no arguments."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roles.base.files.facts_lib import output, tell
else:  # on the host the programs' common part lies one directory up
    sys.path.insert(0, "/usr/local/lib/mastodon-gov")
    from facts_lib import output, tell

ASKED = ("host", "port", "tls", "tls_starttls", "tls_certcheck", "from")
APPLICATION = ("SMTP_SERVER", "SMTP_ENABLE_STARTTLS", "SMTP_OPENSSL_VERIFY_MODE")


def host() -> dict[str, str]:
    """How the host's own mail would be sent, by msmtp's own reading of its settings."""
    rows = (line.partition(" = ") for line in output("msmtp", "--pretend", "-a", "default", "root").splitlines())
    return {name: value for name, sign, value in rows if sign and name in ASKED}


def application() -> dict[str, str]:
    """The same of the application. Ruby writes its title over its environment; streaming, with the same, does not."""
    shown = output("systemctl", "show", "-P", "MainPID", "mastodon-streaming@a", "mastodon-streaming@b").split()
    for pid in shown:
        if pid != "0":
            rows = Path(f"/proc/{pid}/environ").read_text().split("\0")
            return {key: value for key, _, value in (row.partition("=") for row in rows) if key in APPLICATION}
    raise OSError("streaming does not run")


def listening() -> list[str]:
    """Sockets that take mail."""
    rows = (line.split() for line in output("ss", "-Hltn").splitlines())
    return sorted({row[3] for row in rows if row[3].rpartition(":")[2] in ("25", "465", "587")})


def secret() -> str:
    """Owner and mode of the file with the relay's password."""
    path = Path("/etc/msmtprc")
    return f"{path.owner()} {path.stat().st_mode & 0o7777:04o}"


if __name__ == "__main__":
    tell({"host": host, "application": application, "listening": listening, "secret": secret})
