#!/usr/bin/python3 -B
"""restore-point NAME: mark this moment in the WAL so that a restore can stop exactly here, and send the WAL off.

Prints JSON: name, time (UTC), lsn, wal, `archived`: whether the WAL that holds the mark has left this host, and
`listed`: whether the bucket knows it, so that `mastodon-gov restore --list` shows it.
Exit code 1 with a sentence when no mark was made. A mark that is not archived yet is a mark: it is sent later.
"""

from __future__ import annotations

import json
import re
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from roles.backups.files.backup_bucket import Refused, request
    from roles.backups.files.backup_host import Unanswered, psql, settings
else:  # on the host the programs lie side by side
    from backup_bucket import Refused, request
    from backup_host import Unanswered, psql, settings

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
ARCHIVED_WITHIN = 60
MARK = """
select json_build_object('name', :'name', 'time', to_char(clock_timestamp() at time zone 'UTC',
  'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), 'lsn', lsn, 'wal', pg_walfile_name(lsn)) from pg_create_restore_point(:'name') lsn;
"""
# The switch must come after the mark, or the mark waits in an open file.
SWITCH = "select from pg_switch_wal();"
ARCHIVED = "select coalesce(last_archived_wal >= :'wal', false) from pg_stat_archiver;"


def listed(point: dict[str, str]) -> bool:
    """Put name and time beside the backups: nothing else knows them on the day this host is gone."""
    key = f"restore-points/{re.sub('[^0-9]', '', point['time'])[:14]}-{point['name']}.json"
    try:
        request(settings(), "PUT", key, json.dumps(point).encode())
    except Refused:
        return False
    return True


def main() -> None:
    """Mark, switch, wait until it is archived."""
    name = sys.argv[1] if len(sys.argv) == 2 else ""
    if not re.fullmatch(NAME, name):
        sys.exit(f"'{name}' is no name for a restore point: 1 to 63 letters, digits, '.', '_', '-'. Nothing was made.")
    try:
        point = json.loads(psql(MARK + SWITCH, name=name))
    except Unanswered as error:
        sys.exit(f"No restore point was made: PostgreSQL answered: {error}")
    deadline = time.monotonic() + ARCHIVED_WITHIN
    while not (done := psql(ARCHIVED, wal=point["wal"]) == "t") and time.monotonic() < deadline:
        time.sleep(0.2)
    print(json.dumps({**point, "archived": done, "listed": listed(point)}))


if __name__ == "__main__":
    main()
