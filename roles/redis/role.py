"""Redis: queues, cache and feeds. Loopback only; losing it loses no post."""

from __future__ import annotations

import hmac
from functools import partial
from hashlib import sha256

from mastodon_gov.instance import Node
from roles.lib import deploy
from roles.lib.files import Directory, Entry, ManagedFile, managed_files
from roles.lib.live import Live, live
from roles.lib.packages import packages
from roles.lib.render import facts_program, managed
from roles.lib.units import Unit, units

PACKAGES = ["redis-server", "redis-tools"]
UNITS = [Unit("redis-server.service", reads=("/etc/redis/redis.conf", "/etc/redis/users.acl"))]


# The audit asks the running server as a user of its own, which sees settings and users and no data.
AUDIT = "/etc/mastodon-gov/redis-audit"
RUNNING = {"bind": "127.0.0.1 -::1", "protected-mode": "yes", "maxmemory-policy": "noeviction", "appendonly": "yes"}


def audit_password(node: Node) -> str:
    """Made from the application's, so that it is no further secret to keep; nobody comes back from it to that one."""
    return hmac.new(node.secrets.redis.password.get_secret_value().encode(), b"audit", sha256).hexdigest()


def files(node: Node) -> list[Entry]:
    """Configuration, users (the password only as a digest) and the sandbox."""
    digest = sha256(node.secrets.redis.password.get_secret_value().encode()).hexdigest()
    owned = partial(managed, user="redis", group="redis", mode=0o640)
    dropin = "/etc/systemd/system/redis-server.service.d"
    audit = sha256(audit_password(node).encode()).hexdigest()
    return [
        Directory("/etc/mastodon-gov"),
        ManagedFile(AUDIT, audit_password(node), mode=0o600),
        facts_program("redis"),
        owned("redis/etc/redis/redis.conf", "/etc/redis/redis.conf", node),
        owned("redis/etc/redis/users.acl", "/etc/redis/users.acl", node, password_sha256=digest, audit_sha256=audit),
        Directory(dropin),
        managed("redis/etc/systemd/system/redis-server.service.d/60-mfg.conf", f"{dropin}/60-mfg.conf", node),
    ]


def mended() -> list[Live]:
    """What was changed in the running server; our files hold the right values, so that a restart brings them back."""
    ask = f"REDISCLI_AUTH=$(cat {AUDIT}) redis-cli --user audit --no-auth-warning"
    restart = "systemctl restart redis-server.service"
    default = Live("the default user", f"{ask} ACL LIST | grep -o '^user default [a-z]*'", "user default off", restart)
    return [default, *(Live(k, f"{ask} CONFIG GET {k} | tail -n 1", value, restart) for k, value in RUNNING.items())]


@deploy("Redis")
def redis(node: Node) -> None:
    """The package makes the account that owns the files."""
    packages(name="Install packages", names=PACKAGES)
    managed_files(name="Write files", entries=files(node))
    units(name="Run units", wanted=UNITS)
    live(name="Mend what others have changed", wanted=mended())
