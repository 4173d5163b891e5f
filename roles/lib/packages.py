"""Debian packages: one fact, one installation without recommended packages and without starting services."""

from __future__ import annotations

from collections.abc import Sequence

from pyinfra import host
from pyinfra.api import FactBase, QuoteString, StringCommand, operation

from roles.lib import Commands

# A service must not run with Debian's default settings, not even for a second (DESIGN §3.3): while packages are
# installed, Debian's policy hook refuses every start. The hook is removed however the command ends.
INSTALL = """\
hook=/usr/sbin/policy-rc.d
trap 'rm -f "$hook"' EXIT INT TERM HUP
printf '#!/bin/sh\\nexit 101\\n' > "$hook" && chmod 755 "$hook" || exit 1
export DEBIAN_FRONTEND=noninteractive
dpkg --configure -a --force-confdef --force-confold || exit 1
apt-get -qq -o DPkg::Lock::Timeout=600 update || exit 1
apt-get -qq -y -o DPkg::Lock::Timeout=600 -o Dpkg::Options::=--force-confold --no-install-recommends install "$@"
"""


class InstalledPackages(FactBase[set[str]]):
    """Names of the asked packages that are fully installed."""

    @staticmethod
    def default() -> set[str]:
        """None."""
        return set()

    def command(self, names: list[str]) -> StringCommand:
        """dpkg-query exits 1 for an unknown name; that is not a failure here."""
        query = "dpkg-query -W -f '${db:Status-Abbrev}|${Package}\\n'"
        return StringCommand(query, *(QuoteString(name) for name in names), "2>/dev/null; true")

    def process(self, output: list[str]) -> set[str]:
        """`ii |name`; anything else is half installed or removed."""
        return {line.split("|")[1] for line in output if line.startswith("ii ")}


@operation()
def packages(names: Sequence[str]) -> Commands:
    """Install what is missing, all in one run of apt; heals an interrupted dpkg first."""
    installed = host.get_fact(InstalledPackages, names=sorted(names))
    missing = sorted(set(names) - installed)
    if missing:
        yield StringCommand("sh -c", QuoteString(INSTALL), "sh", *(QuoteString(name) for name in missing))
