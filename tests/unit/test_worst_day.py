"""The worst day: secrets and release are compared with the manifests before anything is written anywhere."""

from __future__ import annotations

import io
import json
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mastodon_gov import worst_day
from mastodon_gov.backups import manifest
from mastodon_gov.errors import Refusal
from tests.unit.storage_sample import instance, secrets
from tests.unit.test_backup_set import written

BEFORE, THEFT = "2026-11-20 22:00:00.000000+00", datetime(2026, 11, 20, 23, tzinfo=UTC)


def made(stop: datetime, version: str, **other: object) -> tuple[str, datetime, bytes]:
    """A manifest as it lies in the bucket: key, when it came, what it says."""
    told = written(stop=stop.timestamp(), release={"version": version}, **other)
    return f"manifests/{stop:%Y%m%d}.json", stop, json.dumps(told).encode()


class Bucket:
    """Versions of objects; `emptied` when somebody deleted all of them at THEFT and put rubbish in one's place."""

    def __init__(self, versions: list[tuple[str, datetime, bytes]], emptied: bool) -> None:
        self.versions, self.emptied = versions, emptied

    def get_paginator(self, name: str) -> Any:
        return SimpleNamespace(paginate=lambda **_: [getattr(self, name)()])

    def list_object_versions(self) -> dict[str, Any]:
        junk = [(self.versions[-1][0], THEFT, b"pay")] if self.emptied else []
        rows = [*self.versions, *junk]
        return {"Versions": [{"Key": k, "LastModified": at, "VersionId": str(n)} for n, (k, at, _) in enumerate(rows)]}

    def list_objects_v2(self) -> dict[str, Any]:
        return {"Contents": [] if self.emptied else [{"Key": key} for key, _, _ in self.versions]}

    def get_object(self, Key: str, VersionId: str = "", **_: str) -> dict[str, Any]:
        body = next(
            body
            for n, (key, _, body) in enumerate(self.versions)
            if str(n) == VersionId or (key == Key and not VersionId)
        )
        return {"Body": io.BytesIO(body)}


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Ask for a restore of an instance with release 4.5.15 from a bucket with a manifest of each of two days."""

    def ask(*asked: str, emptied: bool = False, second: str = "4.5.15", **other: object) -> None:
        days = [datetime(2026, 11, 19, 2, 31, tzinfo=UTC), datetime(2026, 11, 20, 2, 31, tzinfo=UTC)]
        versions = [made(days[0], "4.5.15"), made(days[1], second, **other)]
        monkeypatch.setattr(manifest, "reached", lambda _: nullcontext(None))
        monkeypatch.setattr(manifest, "connect", lambda *_: Bucket(versions, emptied))
        monkeypatch.setattr(worst_day, "load", lambda _: instance(release="4.5.15"))
        monkeypatch.setattr("mastodon_gov.secrets.read", lambda *_: secrets())
        monkeypatch.setattr(worst_day, "identity_path", lambda _: None)
        monkeypatch.setattr(worst_day, "selected", lambda *_: SimpleNamespace(version="4.5.15"))
        worst_day._fits(Path(), list(asked))

    return ask


OTHER = {"fingerprints": {"mastodon.secret_key_base": "0" * 64}}


@pytest.mark.parametrize("emptied", [False, True])
def test_what_fits_is_let_through(fits: Any, emptied: bool, capsys: pytest.CaptureFixture[str]) -> None:
    fits("latest", *(["--as-of", BEFORE] if emptied else []), emptied=emptied)
    assert "cannot be compared" not in capsys.readouterr().err


@pytest.mark.parametrize("asked", [["latest"], ["latest", "--as-of", BEFORE], ["name", "safe", "--as-of", BEFORE]])
def test_other_secrets_and_a_newer_release_are_refused(fits: Any, asked: list[str]) -> None:
    """Also where everything that lay in the bucket was deleted since."""
    emptied = "--as-of" in asked
    with pytest.raises(Refusal, match=r"mastodon\.secret_key_base are not those of the backup"):
        fits(*asked, emptied=emptied, **OTHER)
    with pytest.raises(Refusal, match=r"was made by 4\.6\.5"):
        fits(*asked, emptied=emptied, second="4.6.5")


def test_the_manifest_is_that_of_the_time_asked_for(fits: Any) -> None:
    fits("time", "2026-11-19 12:00:00.000000+00", second="4.6.5", **OTHER)
    with pytest.raises(Refusal, match="are not those"):
        fits("time", "2026-11-20 12:00:00.000000+00", **OTHER)


def test_a_bucket_without_manifests_is_said(fits: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fits("latest", emptied=True, **OTHER)
    assert "cannot be compared" in capsys.readouterr().err
