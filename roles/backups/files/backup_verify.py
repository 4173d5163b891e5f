#!/usr/bin/python3 -B
"""Read every backup and all WAL of the first repository once, and keep the verdict for backup-status.

pgBackRest's `verify` exits 0 on damage and on an empty repository, so its text is read; and it does not see a hole in
the WAL, so the segments are counted. Exit code 1 with sentences when something is wrong.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from roles.backups.files.backup_host import STATE, Unanswered, pgbackrest, put, settings
    from roles.backups.files.backup_repository import archived, holes, info, position, verified
else:  # on the host the programs lie side by side
    from backup_host import STATE, Unanswered, pgbackrest, put, settings
    from backup_repository import archived, holes, info, position, verified

WITHIN = 6 * 3600


def verify(conf: dict[str, str]) -> str:
    """What is wrong with the repository; "" is nothing."""
    try:
        code, out, err = pgbackrest(conf, "--repo=1", "--output=text", "--verbose", "verify", timeout=WITHIN)
    except Unanswered as error:
        return str(error)
    good, why = verified(out)
    return "" if good and code == 0 else why or err.strip()[:500] or f"exit code {code}"


def history(conf: dict[str, str]) -> int:
    """WAL segments missing between the oldest and the newest backup: moments nobody can restore."""
    backups = info(conf)["backups"]
    if len(backups) < 2:
        return 0
    first, last = (backups[place]["archive"]["start"] for place in (0, -1))
    found = {place for place in archived(conf, first) if place <= position(last)} | {position(last)}
    return len(holes(found, position(first), set())[0])


def main() -> None:
    """The verdict on standard error where it is bad."""
    conf, began = settings(), time.monotonic()
    wrong = verify(conf)
    missing = None if wrong else history(conf)
    seconds = round(time.monotonic() - began, 1)
    put(STATE / "backup-verify.json", {"at": int(time.time()), "wrong": wrong, "holes": missing, "seconds": seconds})
    if wrong:
        sys.exit(f"The backups do not verify: {wrong}. See docs/operator/backups.md.")


if __name__ == "__main__":
    main()
