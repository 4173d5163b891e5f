"""How full the bucket of the backups is, and will be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mastodon_gov.backups.bucket import Held, expected, held, size_problems
from tests.unit.storage_sample import instance, storage

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
MIB, GIB = 1 << 20, 1 << 30


class Client:
    """A bucket's versions, in pages of two."""

    def __init__(self, *versions: tuple[str, int, float]) -> None:
        """Key, bytes, age in days."""
        self.versions = [
            {"Key": key, "Size": size, "LastModified": NOW - timedelta(days=age)} for key, size, age in versions
        ]

    def get_paginator(self, name: str) -> Client:
        assert name == "list_object_versions"
        return self

    def paginate(self, **_: str) -> list[dict[str, Any]]:
        pages = [{"Versions": self.versions[at : at + 2]} for at in range(0, len(self.versions), 2)]
        return [*pages, {"DeleteMarkers": []}]


def test_every_version_counts_and_a_day_is_the_mean_of_the_last_week() -> None:
    client = Client(
        ("pg/backup/social/20261109-023000F/bundle/1", 9000, 22),
        ("pg/backup/social/20261110-023000F/bundle/1", 900, 21),
        ("pg/backup/social/20261201-023000F/bundle/1", 1000, 0.4),
        ("pg/backup/social/20261201-023000F/backup.manifest", 50, 0.4),
        ("pg/backup/social/20261201-023000F_20261201-083000I/bundle/1", 70, 0.1),
        ("pg/archive/social/17-1/0000000100000000/000000010000000000000009-aa.zst", 630, 6),
        ("pg/archive/social/17-1/0000000100000000/000000010000000000000001-aa.zst", 4000, 20),
        ("manifests/20261201-023000F.json", 5, 0.4),
    )
    assert held(client, "backups", NOW) == Held(bytes=15655, full=1050, daily=100)


def test_the_first_hours_are_not_taken_for_a_rate() -> None:
    assert held(Client(("pg/archive/social/17-1/a", 48, 0.1)), "b", NOW) == Held(bytes=48, full=0, daily=48)
    assert held(Client(), "b", NOW) == Held()


def test_what_is_hidden_is_paid_for_until_its_lock_is_over() -> None:
    now = Held(full=1000, daily=10)
    nightly = instance(backups={"keep_full": 14}, object_storage=storage(backup_lock_days=14))
    assert expected(nightly, now) == 1000 * 29 + 10 * 29
    weekly = instance(backups={"keep_full": 4, "full_on": "sun"}, object_storage=storage(backup_lock_days=14))
    assert expected(weekly, now) == 1000 * 7 + 10 * 43


@pytest.mark.parametrize(
    ("limit", "bytes_", "later", "word"),
    [
        (10, 8 * GIB, 0, None),
        (10, 8 * GIB + MIB, 0, "holds 8.0 of 10 GiB"),
        (10, 2 * GIB, 10 * GIB, None),
        (10, 2 * GIB, 11 * GIB, "will hold about 11.0 (a full backup is 0.4, a day adds 0.1; now 2.0) of 10 GiB"),
        (10, 9 * GIB, 11 * GIB, "holds 9.0 of 10 GiB"),
        (None, None, None, None),
    ],
)
def test_a_bucket_that_is_full_or_will_be(limit: int | None, bytes_: Any, later: Any, word: str | None) -> None:
    seen = {"bucket": "backups", "bytes": bytes_, "expected": later, "full": 400 * MIB, "daily": 100 * MIB}
    found = size_problems(seen, limit)
    assert len(found) == (word is not None)
    assert (word or "") in "".join(found)
