"""System accounts and groups: one fact for all, no password ever."""

from __future__ import annotations

from dataclasses import dataclass

from pyinfra import host
from pyinfra.api import FactBase, QuoteString, StringCommand, operation

from roles.lib import Commands

# Root owns what may sign in: an account cannot add a key for itself (sshd's AuthorizedKeysFile points here).
KEYS = "/etc/ssh/keys"

# Nobody signs in again meanwhile. The kernel keeps who signed in with every process begun since (loginuid), so that a
# root shell opened with sudo goes too. userdel refuses an account that has processes. Whoever gets the number next must
# not get the home directory, nor anything in it.
REMOVE = f"""\
rm -f {KEYS}/"$1" && usermod --expiredate 1 "$1" || exit 1
uid=$(id -u "$1") home=$(getent passwd "$1" | cut -d: -f6) n=0
left() {{
  grep -lx "$uid" /proc/[0-9]*/loginuid 2>/dev/null | cut -d/ -f3
  find /proc -maxdepth 1 -name '[0-9]*' -user "$uid" -printf '%f\\n' 2>/dev/null
}}
while pids=$(left) && [ -n "$pids" ] && [ $n -lt 50 ]; do
  kill -KILL $pids 2>/dev/null; n=$((n+1)); sleep 0.1
done
[ ! -d "$home" ] || {{ chown -hR root:root "$home" && chmod 700 "$home"; }} || exit 1
userdel "$1"
"""


@dataclass(frozen=True)
class Account:
    """An account without password. `system` accounts get a low number and no login shell of their own."""

    name: str
    home: str
    groups: tuple[str, ...] = ()
    shell: str = "/usr/sbin/nologin"
    system: bool = True


@dataclass(frozen=True)
class Known:
    """The host's accounts (home, shell) and the members of its groups."""

    users: dict[str, tuple[str, str]]
    groups: dict[str, frozenset[str]]


class Accounts(FactBase[Known]):
    """All accounts and groups, without the cost of one process for each (and without password hashes)."""

    @staticmethod
    def default() -> Known:
        """Nothing known."""
        return Known({}, {})

    def command(self) -> str:
        """Both tables in one command."""
        return "getent passwd; echo =groups; getent group"

    def process(self, output: list[str]) -> Known:
        """passwd lines, then group lines."""
        split = output.index("=groups")
        users = {row[0]: (row[5], row[6]) for row in (line.split(":") for line in output[:split])}
        groups = {row[0]: frozenset(row[3].split(",")) for row in (x.split(":") for x in output[split + 1 :])}
        return Known(users, groups)


@operation()
def accounts(wanted: list[Account], groups: list[str], only: tuple[str, ...] = ()) -> Commands:
    """Make groups and accounts. Members of the groups in `only` who are not wanted lose account and sessions;
    their home directory stays, because it may be evidence."""
    known = host.get_fact(Accounts)
    for group in groups:
        if group not in known.groups:
            yield StringCommand("groupadd --system", QuoteString(group))
    for account in wanted:
        yield from _settle(account, known)
    declared = {account.name for account in wanted}
    for group in only:
        for name in sorted(known.groups.get(group, frozenset()) - declared - {""}):
            yield StringCommand("sh -c", QuoteString(REMOVE), "sh", QuoteString(name))


def _settle(account: Account, known: Known) -> Commands:
    name, options = (
        QuoteString(account.name),
        ["--home-dir", QuoteString(account.home), "--shell", account.shell],
    )
    have = {group for group, members in known.groups.items() if account.name in members}
    if account.name not in known.users:
        kind = "--system --user-group" if account.system else "--create-home --user-group"
        extra = ["-G", ",".join(account.groups)] if account.groups else []
        # A person who comes back gets what was kept.
        again = [] if account.system else ["&& chown -R", QuoteString(f"{account.name}:"), QuoteString(account.home)]
        yield StringCommand("useradd", kind, *options, *extra, name, *again)
        return
    if known.users[account.name] != (account.home, account.shell):
        yield StringCommand("usermod --home", QuoteString(account.home), "--shell", account.shell, name)
    if not set(account.groups) <= have:
        yield StringCommand("usermod -aG", ",".join(account.groups), name)
