#!/usr/bin/python3
"""restore-point NAME: mark this moment in the WAL so that a restore can stop exactly here, and send the WAL off.

Prints JSON: name, time (UTC), lsn, wal, and `archived`: whether the WAL that holds the mark has left this host.
Exit code 1 with a sentence when no mark was made. A mark that is not archived yet is a mark: it is sent later.
"""

from __future__ import annotations

import json
import os
import pwd
import re
import subprocess
import sys
import time

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
ARCHIVED_WITHIN = 60
MARK = """
select json_build_object('name', :'name', 'time', to_char(clock_timestamp() at time zone 'UTC',
  'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), 'lsn', lsn, 'wal', pg_walfile_name(lsn)) from pg_create_restore_point(:'name') lsn;
"""
# The switch must come after the mark, or the mark waits in an open file.
SWITCH = "select from pg_switch_wal();"
ARCHIVED = "select coalesce(last_archived_wal >= :'wal', false) from pg_stat_archiver;"


def psql(sql: str, **values: str) -> str:
    """Run SQL from standard input, where psql puts in values and quotes them."""
    given = [word for name, value in values.items() for word in ("-v", f"{name}={value}")]
    words = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", *given, "-f", "-"]
    ran = subprocess.run(words, input=sql, capture_output=True, text=True, timeout=30, check=False)
    if ran.returncode:
        sys.exit(f"No restore point was made: PostgreSQL answered: {ran.stderr.strip()[:500]}")
    return ran.stdout.strip()


def become_postgres() -> None:
    """Root gives its rights up: nothing here needs them."""
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        os.initgroups("postgres", account.pw_gid)
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    os.chdir("/")


def main() -> None:
    """Mark, switch, wait until it is archived."""
    name = sys.argv[1] if len(sys.argv) == 2 else ""
    if not re.fullmatch(NAME, name):
        sys.exit(f"'{name}' is no name for a restore point: 1 to 63 letters, digits, '.', '_', '-'. Nothing was made.")
    become_postgres()
    point = json.loads(psql(MARK + SWITCH, name=name))
    deadline = time.monotonic() + ARCHIVED_WITHIN
    while not (done := psql(ARCHIVED, wal=point["wal"]) == "t") and time.monotonic() < deadline:
        time.sleep(0.2)
    print(json.dumps({**point, "archived": done}))


if __name__ == "__main__":
    main()
