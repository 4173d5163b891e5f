"""How long the migrations of a release that waits on this host take: they are run on the drill's copy.

`upgrade --plan` reads it from the drill's evidence. No part of what a drill proves.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from roles.restore.files.catalogue import first_line
    from roles.restore.files.recovery import Copy, sql
    from roles.restore.files.verify import CURRENT, DATABASE, asking
else:  # on the host the programs lie side by side
    from catalogue import first_line
    from recovery import Copy, sql
    from verify import CURRENT, DATABASE, asking


def newer_release(seen: set[str]) -> Path | None:
    """The newest release on this host that has migrations which the copy has not, and does not run yet."""
    if not CURRENT.exists():
        return None

    def number(release: Path) -> tuple[int, ...]:
        return tuple(int(part) for part in release.name.partition("-")[0].split("."))

    now = CURRENT.resolve()
    later = [each for each in now.parent.glob("[0-9]*-*") if number(each) > number(now)]
    newest = max(later, key=number, default=None)
    wanted = {path.name.split("_")[0] for path in newest.glob("db/*migrate/[0-9]*")} if newest else set()
    return newest if wanted - seen else None


def rehearsed(copy: Copy) -> dict[str, Any] | None:
    """Run the migrations of a release that waits on this host on the copy: its name and seconds, or what it said; None
    where none waits. Like everything that asks a copy it has no network, so one that needs Redis cannot be measured."""
    release = newer_release(set(sql(copy, "select version from schema_migrations", DATABASE).split()))
    if release is None:
        return None
    words, began = [*asking(copy, release), "rails", "db:migrate"], time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    told: dict[str, Any] = {"release": release.name, "seconds": round(time.monotonic() - began, 1)}
    return told if done.returncode == 0 else told | {"failed": first_line(done.stderr or done.stdout)[:300]}
