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
    from roles.backups.files.backup_host import STATE, Unanswered, pgbackrest, put, read, settings
    from roles.backups.files.backup_repository import archived, branch, holes, info, leads, place, position, verified
else:  # on the host the programs lie side by side
    from backup_host import STATE, Unanswered, pgbackrest, put, read, settings
    from backup_repository import archived, branch, holes, info, leads, place, position, verified

WITHIN, KEPT = 6 * 3600, "backup-verify.json"


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
    where, last = place(conf, backups[-1]), backups[-1]["archive"]["start"]
    path = branch(conf, where, int(last[:8], 16))
    first = next(
        each["archive"]["start"]
        for each in backups
        if each["database"] == backups[-1]["database"] and leads(path, each)
    )
    found = {each for each in archived(conf, where, first, path) if each <= position(last)} | {position(last)}
    return len(holes(found, position(first), set())[0])


def main() -> None:
    """The verdict on standard error where it is bad. A hole cannot be mended, so it is mailed once: when it is new."""
    conf, began = settings(), time.monotonic()
    missing, known = None, (read(KEPT) or {}).get("holes") or 0
    wrong = verify(conf)
    try:
        missing = None if wrong else history(conf)
    except Unanswered as error:
        wrong = str(error)
    seconds = round(time.monotonic() - began, 1)
    put(STATE / KEPT, {"at": int(time.time()), "wrong": wrong, "holes": missing, "seconds": seconds})
    if wrong:
        sys.exit(f"The backups do not verify: {wrong}. See docs/operator/backups.md.")
    if (missing or 0) > known:
        sys.exit(
            f"{missing} WAL files are missing between the oldest and the newest backup. See docs/operator/backups.md."
        )


if __name__ == "__main__":
    main()
