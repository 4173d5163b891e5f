#!/usr/bin/python3 -IB
"""Facts of the role backups for the audit: one JSON document. Reads only; no arguments."""

from __future__ import annotations

import configparser
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roles.base.files.facts_lib import output, psql, tell
else:  # on the host the programs' common part lies one directory up
    sys.path.insert(0, "/usr/local/lib/mastodon-gov")
    from facts_lib import output, psql, tell

CONF = Path("/etc/pgbackrest.conf")
SQL = """SELECT json_build_object('mode', current_setting('archive_mode'),
  'waiting', (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'),
  'oldest', (SELECT coalesce(extract(epoch FROM now() - min(modification)), 0)::int FROM pg_ls_archive_statusdir()
    WHERE name LIKE '%.ready'),
  'failing', coalesce(last_failed_time > last_archived_time, last_failed_time IS NOT NULL)) FROM pg_stat_archiver;"""


def repository() -> dict[str, Any]:
    """What the repository holds, by pgBackRest's own word. Its exit code says nothing, its status does."""
    conf = configparser.ConfigParser(interpolation=None)
    conf.read_string(CONF.read_text())
    stanza = next(name for name in conf.sections() if name != "global")
    words = ("timeout", "25", "pgbackrest", f"--stanza={stanza}", "--output=json", "--log-level-file=off", "info")
    told = json.loads(output("runuser", "-u", "postgres", "--", *words), strict=False)[0]
    full = [each["timestamp"]["stop"] for each in told["backup"] if each["type"] == "full"]
    return {
        "status": told["status"]["message"],
        "cipher": sorted({repo["cipher"] for repo in told["repo"]}),
        "type": conf["global"]["repo1-type"],
        "full": len(full),
        "age": int(time.time()) - max(full) if full else None,
        "damaged": [each["label"] for each in told["backup"] if each.get("error")],
    }


def archiver() -> dict[str, Any]:
    """PostgreSQL's own view of what it sends away; `oldest` in seconds."""
    told: dict[str, Any] = json.loads(psql(SQL))
    return told


def timer() -> str:
    """Whether the nightly backup is planned."""
    return output("systemctl", "is-active", "mfg-backup.timer", codes=(0, 3, 4)).strip()


def conf() -> str:
    """Owner, group and mode of the file with keys and passphrase."""
    return f"{CONF.owner()}:{CONF.group()} {CONF.stat().st_mode & 0o7777:04o}"


if __name__ == "__main__":
    tell({"repository": repository, "archiver": archiver, "timer": timer, "conf": conf})
