"""Redis: queues, cache and feeds. Loopback only; losing it loses no post."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256

from pyinfra import host
from pyinfra.api import FactBase, operation

from mastodon_gov.instance import Node
from roles.lib import Commands, deploy
from roles.lib.files import Directory, Entry, ManagedFile, file_states, managed_files
from roles.lib.live import Live, live
from roles.lib.packages import packages
from roles.lib.render import facts_program, managed
from roles.lib.units import Unit, units

PACKAGES = ["redis-server", "redis-tools"]
USERS = "/etc/redis/users.acl"
UNITS = [Unit("redis-server.service", reads=("/etc/redis/redis.conf", USERS))]


# The audit asks the running server as a user of its own, which sees settings and users and no data.
AUDIT = "/etc/mastodon-gov/redis-audit"
RUNNING = {"bind": "127.0.0.1 -::1", "protected-mode": "yes", "maxmemory-policy": "noeviction", "appendonly": "yes"}


def audit_password(node: Node) -> str:
    """Made from the application's, so that it is no further secret to keep; nobody comes back from it to that one."""
    return hmac.new(node.secrets.redis.password.get_secret_value().encode(), b"audit", sha256).hexdigest()


class Digests(FactBase[list[str]]):
    """Digests of the passwords that Mastodon may use, as the file of users has them."""

    default = list

    def command(self) -> str:
        """No password is told by its digest."""
        return f"grep '^user mastodon ' {USERS} 2>/dev/null | grep -oE '[0-9a-f]{{64}}'; true"

    def process(self, output: list[str]) -> list[str]:
        """One a line."""
        return output


def users(node: Node, beside: Iterable[str] = ()) -> ManagedFile:
    """Who may do what, with today's password and those `beside` it; only as digests."""
    password = node.secrets.redis.password.get_secret_value()
    today = sha256(password.encode()).hexdigest()
    digests = [today, *sorted({*beside} - {today})]
    audit = sha256(audit_password(node).encode()).hexdigest()
    template = "redis/etc/redis/users.acl"
    return managed(template, USERS, node, user="redis", group="redis", mode=0o640, digests=digests, audit_sha256=audit)


def files(node: Node) -> list[Entry]:
    """Configuration, users and the sandbox."""
    dropin = "/etc/systemd/system/redis-server.service.d"
    return [
        Directory("/etc/mastodon-gov"),
        ManagedFile(AUDIT, audit_password(node), mode=0o600),
        facts_program("redis"),
        managed("redis/etc/redis/redis.conf", "/etc/redis/redis.conf", node, user="redis", group="redis", mode=0o640),
        users(node),
        Directory(dropin),
        managed("redis/etc/systemd/system/redis-server.service.d/60-mfg.conf", f"{dropin}/60-mfg.conf", node),
    ]


def mended() -> list[Live]:
    """What was changed in the running server; our files hold the right values, so that a restart brings them back."""
    ask = f"REDISCLI_AUTH=$(cat {AUDIT}) redis-cli --user audit --no-auth-warning"
    restart = "systemctl restart redis-server.service"
    default = Live("the default user", f"{ask} ACL LIST | grep -o '^user default [a-z]*'", "user default off", restart)
    return [default, *(Live(k, f"{ask} CONFIG GET {k} | tail -n 1", value, restart) for k, value in RUNNING.items())]


@operation()
def users_beside(node: Node) -> Commands:
    """Today's password beside those in force: Mastodon's processes have the old one until their slots are swapped."""
    current = file_states([USERS]).get(USERS)
    if current == users(node).state:
        return
    in_force: list[str] = host.get_fact(Digests)
    wanted = users(node, in_force)
    if current != wanted.state:
        yield wanted.make()


@deploy("Redis")
def redis(node: Node) -> None:
    """The package makes the account that owns the files."""
    packages(name="Install packages", names=PACKAGES)
    managed_files(name="Write files", entries=[entry for entry in files(node) if entry.path != USERS])
    users_beside(name="Write users", node=node)
    units(name="Run units", wanted=UNITS)
    live(name="Mend what others have changed", wanted=mended())


@deploy("Redis, old passwords")
def redis_passwords(node: Node) -> None:
    """After Mastodon, whose processes all have today's password then."""
    managed_files(name="Forget old passwords", entries=[users(node)])
    units(name="Run units again", wanted=UNITS)
