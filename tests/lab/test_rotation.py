"""A secret is replaced while people use the instance."""

from __future__ import annotations

from tests.lab.deployed import Deployed
from tests.lab.load import posting
from tests.lab.people import Browser

RATE = 4  # posts a second
RESTARTS = 2 * 3  # seconds that Redis may be away; the swap of the slots in between takes longer


def test_a_new_redis_password_shuts_nobody_out(instance: Deployed, owner: Browser) -> None:
    """The old slot uses the old one until it is stopped; then nobody can any more."""
    token = owner.token(owner.application("read write"))
    instance.cli("secrets", "rotate", "redis.password")
    with posting(instance, token, rate=RATE) as posts:
        changes = instance.deploy()["changes"]
    assert [each.partition(" | ")[2] for each in changes if each.startswith("Redis")] == [
        *("Write files", "Write users", "Run units"),
        *("Forget old passwords", "Run units again"),
    ]
    assert len(posts.failed) <= RATE * RESTARTS, posts.failed
    assert posts.lost == []
    assert instance.root("grep '^user mastodon ' /etc/redis/users.acl | grep -o '#' | wc -l").strip() == "1"
    assert instance.deploy()["changes"] == []
