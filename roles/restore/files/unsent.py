"""Before a restore: what the database of this host has written and not sent to the repository yet is sent.

For restore.py. A database that does not run any more archives nothing; its full segments are pushed in its place.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from roles.restore.files import catalogue, choice, switching
    from roles.restore.files.catalogue import Target
    from roles.restore.files.state import say
else:  # on the host the programs lie side by side
    import catalogue
    import choice
    import switching
    from catalogue import Target
    from state import say

WITHIN = 300  # seconds for one file


def send(target: Target, found: dict[str, Any], alive: bool) -> int:
    """Send all that can be sent; returns how many full segments are still on this host alone, and says so."""
    if alive and switching.archive_all():
        return 0
    if not alive:
        push(target)
    left = missing(target, found)
    if left:
        say(
            f"{len(left)} WAL segments of this host, {left[0]} to {left[-1]}, are not in the backup repository: "
            "the copy will end before them. They stay in pg_wal of the old database until `restore --sign-off`."
        )
    return len(left)


def ready() -> list[str]:
    """What PostgreSQL has put by to be archived: segments, histories, labels of backups; oldest first."""
    return sorted(path.stem for path in (switching.MAIN / "pg_wal/archive_status").glob("*.ready"))


def push(target: Target) -> None:
    """As PostgreSQL would, to the repository that is restored from; what it has already is no error."""
    with catalogue.alone(target.repository) as conf:
        tool = ["pgbackrest", f"--stanza={catalogue.configured()[0]}", conf, "--no-archive-async"]
        quiet = ["--log-level-console=off", "--log-level-stderr=error"]
        for name in ready():
            place = str(switching.MAIN / "pg_wal" / name)
            done = catalogue.as_user("postgres", *tool, *quiet, "archive-push", place, timeout=WITHIN)
            if done.returncode:
                say(f"{name}: {catalogue.first_line(done.stderr)}.")


def missing(target: Target, found: dict[str, Any]) -> list[str]:
    """Full segments that wait here and are not in the repository: a second one that is away keeps them waiting too."""
    waiting = [name for name in ready() if re.fullmatch("[0-9A-F]{24}", name)]
    place = choice.place(found)
    there = {
        name[:24]
        for directory in {name[:16] for name in waiting}
        for name in catalogue.listing(target, f"{place}/{directory}")
    }
    return [name for name in waiting if name not in there]
