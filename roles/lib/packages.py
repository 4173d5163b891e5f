"""Debian packages: one fact, one installation without recommended packages and without starting services."""

from __future__ import annotations

from collections.abc import Sequence

from pyinfra.api import FactBase, QuoteString, StringCommand, operation

from roles.lib import Commands
from roles.lib.live import Live
from roles.lib.seen import seen

# A service must not run with Debian's default settings, not even for a second (DESIGN §3.3): while packages are
# installed, Debian's policy hook refuses every start. The hook is removed however the command ends; of one that is
# killed it stays, and then no upgrade would restart anything: the role base looks for it.
HOOK = "/usr/sbin/policy-rc.d"
INSTALL = f"""\
trap 'rm -f {HOOK}' EXIT INT TERM HUP
printf '#!/bin/sh\\n# mastodon-gov installs packages\\nexit 101\\n' > {HOOK} && chmod 755 {HOOK} || exit 1
export DEBIAN_FRONTEND=noninteractive
dpkg --configure -a --force-confdef --force-confold || exit 1
apt-get -qq -o DPkg::Lock::Timeout=600 update || exit 1
apt-get -qq -y -o DPkg::Lock::Timeout=600 -o Dpkg::Options::=--force-confold --no-install-recommends install -- "$@"
"""


# Also one of `mastodon-gov maintain`, which writes the same two words into its own.
LEFT = Live(
    "the hook that keeps services from starting",
    f"grep -qsxE 'apt-get|dpkg' /proc/[0-9]*/comm || grep -l '^# mastodon-gov ' {HOOK}",
    "",
    f"rm -f {HOOK}",
)


class InstalledPackages(FactBase[set[str]]):
    """Names of all packages that are fully installed."""

    @staticmethod
    def default() -> set[str]:
        """None."""
        return set()

    def command(self) -> str:
        """Every package in one question: the roles ask it one after the other."""
        return "dpkg-query -W -f '${db:Status-Abbrev}|${Package}\\n'"

    def process(self, output: list[str]) -> set[str]:
        """`ii |name`; anything else is half installed or removed."""
        return {line.split("|")[1] for line in output if line.startswith("ii ")}


@operation()
def packages(names: Sequence[str]) -> Commands:
    """Install what is missing, all in one run of apt; heals an interrupted dpkg first."""
    installed: set[str] = seen(InstalledPackages)
    if missing := sorted(set(names) - installed):
        yield StringCommand("sh -c", QuoteString(INSTALL), "sh", *(QuoteString(name) for name in missing))
