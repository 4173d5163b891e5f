"""What most roles are: packages, then files, then units."""

from __future__ import annotations

from collections.abc import Sequence

from roles.lib.files import Entry, managed_files
from roles.lib.packages import packages
from roles.lib.units import Unit, units


def settle(packages_: Sequence[str] = (), files: Sequence[Entry] = (), units_: Sequence[Unit] = ()) -> None:
    """Install, configure, activate: a service never runs half configured, and what goes ends before its files do."""
    if gone := [unit for unit in units_ if unit.gone]:
        units(name="Stop what is not wanted any more", wanted=gone)
    if packages_:
        packages(name="Install packages", names=list(packages_))
    if files:
        managed_files(name="Write files", entries=list(files))
    if kept := [unit for unit in units_ if not unit.gone]:
        units(name="Run units", wanted=kept)
