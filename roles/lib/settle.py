"""What most roles are: packages, then files, then units."""

from __future__ import annotations

from collections.abc import Sequence

from roles.lib.files import Entry, managed_files
from roles.lib.packages import packages
from roles.lib.units import Unit, units


def settle(packages_: Sequence[str] = (), files: Sequence[Entry] = (), units_: Sequence[Unit] = ()) -> None:
    """Install, configure, activate: a service never runs half configured."""
    if packages_:
        packages(name="Install packages", names=list(packages_))
    if files:
        managed_files(name="Write files", entries=list(files))
    if units_:
        units(name="Run units", wanted=list(units_))
