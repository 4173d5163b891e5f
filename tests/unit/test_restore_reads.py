"""What a restore reads of the bucket: each manifest and each restore point is a question of its own, so only a few."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from roles.restore.files import catalogue, verify
from roles.restore.files.catalogue import Refused, Target

NIGHT, DAY = 1_796_092_200, 86400  # 2026-12-01 02:30 UTC
LATEST = Target("latest")
Bucket = dict[str, dict[str, Any]]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Callable[[Bucket], list[str]]:
    """Put a bucket there; the list returned names what was read of it."""
    monkeypatch.setattr(catalogue, "configured", lambda: ("gov", {"repo1-cipher-pass": "x"}))
    monkeypatch.setattr(verify, "configured", catalogue.configured)

    def put(bucket: Bucket) -> list[str]:
        asked: list[str] = []

        def answer(_: Target, *words: str, **__: str) -> str:
            if "repo-ls" in words:
                names = (key.partition("/") for key in bucket)
                return json.dumps({name: {"type": "file"} for place, _, name in names if place == words[-1]})
            asked.append(words[-1])
            return json.dumps(bucket[words[-1]])

        monkeypatch.setattr(catalogue, "ask", answer)
        monkeypatch.setattr(verify, "ask", answer)
        return asked

    return put


def manifest(label: str, at: int) -> dict[str, Any]:
    """With its right seal."""
    bare = {"label": label, "observed": {"at": at}}
    return {**bare, "seal": verify.seal(bare)}


def year() -> Bucket:
    """A full backup each night, and a small one six hours later."""
    found = {}
    for day in range(365):
        night = NIGHT - DAY * day
        full = f"{catalogue.iso(night)[:19].translate(str.maketrans(' ', '-', '-:'))}F"
        for label, at in ((full, night), (f"{full}_{full[:9]}083000I", night + 21600)):
            found[f"manifests/{label}.json"] = manifest(label, at + 60)
    return found


def test_of_a_year_of_manifests_the_newest_is_read(read: Callable[[Bucket], list[str]]) -> None:
    asked = read(year())
    newest = verify.manifest_before(LATEST, NIGHT + DAY)
    assert newest
    assert asked == ["manifests/20261201-023000F_20261201-083000I.json"]
    assert newest["label"] == "20261201-023000F_20261201-083000I"


def test_a_manifest_of_long_ago_is_found_without_reading_the_newer_ones(read: Callable[[Bucket], list[str]]) -> None:
    asked = read(year())
    told = verify.manifest_before(LATEST, NIGHT - 100 * DAY + 61)
    assert told
    assert told["observed"]["at"] == NIGHT - 100 * DAY + 60
    assert len(asked) <= 4  # a day of slack for the time zone of the labels
    assert verify.manifest_before(LATEST, NIGHT - 400 * DAY) is None


def test_a_manifest_that_nobody_sealed_or_another_s_is_passed_over(read: Callable[[Bucket], list[str]]) -> None:
    old, new = manifest("20261130-023000F", NIGHT - DAY), manifest("20261201-023000F", NIGHT)
    read(
        {
            "manifests/20261130-023000F.json": old,
            "manifests/20261201-023000F.json": new,
            "manifests/20261201-063000F.json": {**manifest("20261201-063000F", NIGHT + 1), "release": "another"},
            "manifests/20261201-103000F.json": old,
        }
    )
    assert verify.manifest_before(LATEST, NIGHT + DAY) == new


POINTS = {
    f"restore-points/{key}.json": {"name": key[15:], "time": "t", "lsn": "0/1", "wal": "w", "of": key[:8]}
    for key in ("20260101000000-upgrade", "20261130000000-upgrade", "20261201020000-before-4.6.5")
}


def test_points_that_cannot_be_reached_are_not_read(read: Callable[[Bucket], list[str]]) -> None:
    asked = read({**POINTS, "restore-points/20261201030000-rubbish.json": {}})
    assert [point["name"] for point in catalogue.points(LATEST, NIGHT - 7 * DAY)] == ["upgrade", "before-4.6.5"]
    assert "restore-points/20260101000000-upgrade.json" not in asked


def test_a_point_is_found_by_its_key(read: Callable[[Bucket], list[str]]) -> None:
    asked = read(POINTS)
    assert catalogue.point_of(Target("name", "upgrade"))["of"] == "20261130"
    assert asked == ["restore-points/20261130000000-upgrade.json"]
    with pytest.raises(Refused, match=r"no restore point '4\.6\.5'\. Known: upgrade, upgrade, before-4\.6\.5\."):
        catalogue.point_of(Target("name", "4.6.5"))
