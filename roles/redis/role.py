"""Redis: queues, cache and feeds. Loopback only; losing it loses no post."""

from __future__ import annotations

from functools import partial
from hashlib import sha256

from mastodon_gov.instance import Node
from roles.lib import deploy
from roles.lib.files import Directory, Entry, managed_files
from roles.lib.packages import packages
from roles.lib.render import managed
from roles.lib.units import Unit, units

PACKAGES = ["redis-server", "redis-tools"]
UNITS = [Unit("redis-server.service", reads=("/etc/redis/redis.conf", "/etc/redis/users.acl"))]


def files(node: Node) -> list[Entry]:
    """Configuration, users (the password only as a digest) and the sandbox."""
    digest = sha256(node.secrets.redis.password.get_secret_value().encode()).hexdigest()
    owned = partial(managed, user="redis", group="redis", mode=0o640)
    dropin = "/etc/systemd/system/redis-server.service.d"
    return [
        owned("redis/etc/redis/redis.conf", "/etc/redis/redis.conf", node),
        owned("redis/etc/redis/users.acl", "/etc/redis/users.acl", node, password_sha256=digest),
        Directory(dropin),
        managed("redis/etc/systemd/system/redis-server.service.d/60-mfg.conf", f"{dropin}/60-mfg.conf", node),
    ]


@deploy("Redis")
def redis(node: Node) -> None:
    """The package makes the account that owns the files."""
    packages(name="Install packages", names=PACKAGES)
    managed_files(name="Write files", entries=files(node))
    units(name="Run units", wanted=UNITS)
