"""Restore: what a person may ask for, which backup a target takes, what is lost, media of a time."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mastodon_gov.backups.manifest import as_it_lay
from mastodon_gov.errors import Refusal
from mastodon_gov.restore import moment, target
from mastodon_gov.status import drill_problems
from mastodon_gov.storage import versions
from mastodon_gov.storage.versions import lost
from roles.restore.files import catalogue, choice, held, recovery, switching, verify
from roles.restore.files.catalogue import Refused, Target
from roles.restore.files.recovery import Copy
from tests.unit import storage_sample

NOW = 1_795_284_000.0


def backup(label: str, stop: float, size: int = 1 << 20) -> dict[str, Any]:
    """As `pgbackrest info` shows one."""
    place = {"archive": {"stop": "000000010000000000000009"}, "lsn": {"stop": "0/9000100"}}
    told = {"label": label, "timestamp": {"start": stop - 5, "stop": stop}, "info": {"size": size}, "error": False}
    return told | place | {"type": "full"}


FOUND = {"backup": [backup("one", NOW - 7200), backup("two", NOW - 3600)], "archive": [], "db": [{"version": "17"}]}


def test_a_time_is_taken_with_its_zone_only() -> None:
    assert moment("2026-11-21T14:05:09+13:00", "--to") == "2026-11-21 01:05:09.000000+00"
    assert target("latest") == ["latest"]
    assert target("before-4.6.5") == ["name", "before-4.6.5"]
    for text in ("2026-11-21T14:05:09", "2026-13-01T00:00:00Z", "a b", ""):
        with pytest.raises(Refusal):
            target(text)


def test_the_newest_backup_that_ended_before_the_target_is_taken() -> None:
    def at(seconds: float) -> Target:
        return Target("time", catalogue.iso(NOW - seconds))

    assert choice.choose(at(3601), FOUND, NOW)["label"] == "one"
    assert choice.choose(at(3599), FOUND, NOW)["label"] == "two"
    assert choice.choose(Target("latest"), FOUND, NOW)["label"] == "two"
    with pytest.raises(Refused, match="before the end of the oldest"):
        choice.choose(at(7201), FOUND, NOW)
    with pytest.raises(Refused, match="after the newest change"):
        choice.choose(at(-1), FOUND, NOW)


def test_a_backup_of_a_branch_that_was_given_up_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A restore went back to 0/9000100 and the host was lost before the first backup of the new history."""
    history = "1\t0/8000000\tno recovery target specified\n\n2\t0/9000100\tbefore 2026-11-21 17:29:46+00\n"
    shown = {"repo-ls": '{"00000002.history":{},"00000003.history":{},"0000000300000000":{}}', "repo-get": history}
    monkeypatch.setattr(catalogue, "configured", lambda: ("gov", {}))
    monkeypatch.setattr(catalogue, "ask", lambda _, *words, user: next(shown[word] for word in words if word in shown))

    def at(label: str, segment: str, lsn: str, stop: float) -> dict[str, Any]:
        return backup(label, stop) | {"archive": {"stop": segment}, "lsn": {"stop": lsn}}

    old = at("first", "000000010000000000000007", "0/7000100", NOW - 400)
    base = at("base", "000000020000000000000009", "0/9000100", NOW - 300)
    lost = at("given up", "00000002000000000000000A", "0/A000100", NOW - 200)
    gone = at("given up before", "00000001000000000000000B", "0/B000100", NOW - 350)
    found = {"backup": [old, gone, base, lost], "archive": [{"id": "17-1"}]}
    past = choice.history(Target("latest"), found)
    assert [each["label"] for each in choice.reachable(found, past)] == ["first", "base"]
    assert choice.choose(Target("latest"), found, None)["label"] == "base"
    assert choice.choose(Target("time", catalogue.iso(NOW - 100)), found, NOW)["label"] == "base"
    new = at("new", "00000003000000000000000A", "0/A000200", NOW - 50)
    assert choice.choose(Target("latest"), {**found, "backup": [old, lost, new]}, None)["label"] == "new"
    with pytest.raises(Refused, match="No backup leads"):
        choice.choose(Target("latest"), {**found, "backup": [lost]}, None)


def test_what_is_newer_is_counted_from_the_moment_of_the_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not from now: a named point lies in the past too."""
    monkeypatch.setattr(catalogue, "point_of", lambda _: {"name": "risky", "time": "2026-11-21T17:29:46.426443Z"})
    assert catalogue.iso(catalogue.moment(Target("name", "risky"), None)) == "2026-11-21 17:29:46+00:00"
    assert catalogue.iso(catalogue.moment(Target("time", "2026-11-21 17:00:00+00"), None))[:19] == "2026-11-21 17:00:00"
    assert catalogue.moment(Target("latest"), "2026-11-21 18:04:01.918287+00") == 1795284241.918287


def test_another_postgresql_is_refused() -> None:
    with pytest.raises(Refused, match="of PostgreSQL 99"):
        catalogue.binaries({"db": [{"version": "99"}]})


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    copy = Copy(tmp_path / "data", tmp_path / "run", tmp_path / "log", "nobody", "none.service")
    with pytest.raises(Refused, match="Make room"):
        recovery.check_room(copy, backup("big", NOW, 1 << 60))
    recovery.check_room(copy, backup("small", NOW))
    assert list(tmp_path.iterdir()) == []


def test_a_swap_can_be_repeated_from_wherever_it_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before, between and after the two renames."""
    main, before = tmp_path / "main", tmp_path / "main.before"
    monkeypatch.setattr(switching, "MAIN", main)
    monkeypatch.setattr("shutil.chown", lambda *_: None)
    monkeypatch.setattr(switching, "to_be_archived", lambda _: None)
    copy = Copy(tmp_path / "beside", tmp_path / "run", tmp_path / "log", "postgres", "none.service")
    for killed in ("before", "between", "after"):
        for place, text in ((main, "old"), (copy.data, "archive_mode = 'off'\nrestore_command = 'x'\nother = 1")):
            place.mkdir(exist_ok=True)
            (place / "postgresql.auto.conf").write_text(text)
        if killed != "before":
            main.rename(before)
        if killed == "after":
            copy.data.rename(main)
            (main / "postgresql.auto.conf").write_text("other = 1\n")
        switching.swap(copy, before)
        switching.swap(copy, before)
        assert (main / "postgresql.auto.conf").read_text() == "other = 1\n"
        assert (before / "postgresql.auto.conf").read_text() == "old"
        assert not copy.data.exists()
        for place in (main, before):
            (place / "postgresql.auto.conf").unlink()
            place.rmdir()


def test_what_the_copy_wrote_is_archived_once_it_is_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The history of its timeline and its full segments; not the one that is written, nor those made for later."""
    status = tmp_path / "pg_wal/archive_status"
    status.mkdir(parents=True)
    old, full, done = "000000020000000000000027", "000000030000000000000027", "000000030000000000000026"
    now, later = "000000030000000000000028", "000000030000000000000029"
    for name in ("00000002.history", "00000003.history", old, done, full, now, later):
        (tmp_path / "pg_wal" / name).touch()
    (status / f"{done}.done").touch()
    told = f"x: 1\nLatest checkpoint's REDO WAL file:    {now}\n"
    monkeypatch.setattr(switching, "run", lambda *_: told)
    monkeypatch.setattr("shutil.chown", lambda *_: None)
    for _ in range(2):
        switching.to_be_archived(tmp_path)
    assert {path.name for path in status.iterdir()} == {"00000003.history.ready", f"{full}.ready", f"{done}.done"}


def test_rows_below_the_manifest_are_missing() -> None:
    told = {"label": "one", "observed": {"at": 1, "max_ids": {"users": 7, "statuses": 0}}}
    assert verify.count_problems({"max_ids": {"users": 7, "statuses": 0}}, told) == []
    assert "users ends at 6, expected 7" in verify.count_problems({"max_ids": {"users": 6}}, told)[0]
    assert verify.count_problems({"max_ids": {}}, None) == []


def test_a_held_instance_still_resolves_the_name_of_its_pictures() -> None:
    assert held.elements("names", {"10.0.0.53", "fd00::53", "10.0.0.1"}) == (
        "add element inet mfg_held names4 { 10.0.0.1, 10.0.0.53 }\nadd element inet mfg_held names6 { fd00::53 }\n"
    )
    assert held.elements("names", set()) == ""


def test_without_an_address_nothing_is_held_or_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise OSError("Temporary failure in name resolution")

    monkeypatch.setattr(held, "configured", lambda: ("gov", {"repo1-s3-endpoint": "s3.example"}))
    monkeypatch.setattr("socket.getaddrinfo", away)
    with pytest.raises(Refused, match="Nothing was stopped"):
        held.hold()
    loaded = []
    for name in ("HELD_RULES", "HELD_TEMPLATE", "HELD_PAGE", "RESOLVERS", "RESTORED"):
        (tmp_path / name).write_text("")
        monkeypatch.setattr(held, name, tmp_path / name)
    monkeypatch.setattr(held, "run", lambda *words: loaded.append(words))
    monkeypatch.setattr(held, "reload_proxy", lambda: None)
    held.hold(needed=False)  # the second repository was restored from, because the first is no more
    assert loaded == [("nft", "-f", str(tmp_path / "HELD_RULES"))]


@pytest.mark.parametrize(("heartbeat", "left", "missing"), [(101.0, 36, False), (99.0, 36, True), (101.0, 1, True)])
def test_the_newest_row_may_have_been_deleted(heartbeat: float, left: int, missing: bool) -> None:
    """Not where the copy ends before the manifest, and not where most rows have gone."""
    told = {"label": "one", "observed": {"heartbeat": 100, "max_ids": {"statuses": 7}, "counts": {"statuses": 40}}}
    seen = {"heartbeat": heartbeat, "max_ids": {"statuses": 6}, "counts": {"statuses": left}}
    assert bool(verify.count_problems(seen, told)) == missing


def version(key: str, at: int, tag: str = "", latest: bool = False) -> dict[str, Any]:
    """As the S3 service lists one; without a tag, a marker."""
    when = datetime.fromtimestamp(at, UTC)
    return {"Key": key, "VersionId": f"{key}{at}", "LastModified": when, "IsLatest": latest, "ETag": tag}


def test_media_of_a_time_are_what_their_versions_say() -> None:
    page = {
        "Versions": [
            version("same", 1, "a", latest=True),
            version("overwritten", 1, "a"),
            version("overwritten", 9, "b", latest=True),
            version("deleted", 1, "a"),
            version("gone-before", 1, "a"),
            version("newer", 9, "a", latest=True),
            version("cache/x", 1, "a"),
        ],
        "DeleteMarkers": [
            version("deleted", 9, latest=True),
            version("gone-before", 2, latest=True),
            version("cache/x", 9, latest=True),
        ],
    }
    found, there = lost([page], datetime.fromtimestamp(5, UTC))
    assert found == [("deleted", "deleted1"), ("overwritten", "overwritten1")]
    assert there == 3


@pytest.fixture
def media(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Versions in the media bucket of an instance that keeps them for a day."""
    rows: list[dict[str, Any]] = []
    paginator = SimpleNamespace(paginate=lambda **_: [{"Versions": rows}])
    client = SimpleNamespace(get_paginator=lambda _: paginator)
    monkeypatch.setattr(versions, "reached", lambda _: nullcontext(None))
    monkeypatch.setattr(versions, "connect", lambda *_: client)
    kept = storage_sample.storage(media_noncurrent_days=1)
    monkeypatch.setattr(versions, "load", lambda _: storage_sample.instance(object_storage=kept))
    monkeypatch.setattr("mastodon_gov.secrets.read", lambda *_: storage_sample.secrets())
    monkeypatch.setattr(versions, "identity_path", lambda _: None)
    return rows


def test_media_of_a_time_of_which_nothing_is_kept_are_refused(media: list[dict[str, Any]]) -> None:
    """And the time that is named instead is one that is taken."""
    with pytest.raises(Refusal, match=r"is gone\. `--media-to") as refusal:
        versions.put_back(Path(), datetime.now(UTC) - timedelta(days=1, minutes=1))
    named = str(refusal.value).split("`--media-to ")[1].split("`")[0]
    assert versions.put_back(Path(), datetime.fromisoformat(named)) == {"objects": 0, "put_back": 0}


def test_a_restore_says_which_pictures_its_moment_misses(media: list[dict[str, Any]]) -> None:
    now = int(datetime.now(UTC).timestamp())
    asked = datetime.fromtimestamp(now - 600, UTC)
    media += [version("there", now - 900, "a", latest=True), version("hidden", now - 900, "a")]
    media += [version("hidden", now - 60, "b", latest=True)]
    told = versions.advice(Path(), asked)
    assert told.startswith("pictures: 1 of 2 were deleted or overwritten since.")
    assert f"`mastodon-gov restore --media-to {asked:%Y-%m-%dT%H:%M:%SZ}`" in told
    media.pop()
    assert "the 2 of that moment that are kept are in their place; nothing needed" in versions.advice(Path(), asked)
    assert "is gone for good" in versions.advice(Path(), asked - timedelta(days=2))


def test_status_asks_for_a_drill() -> None:
    day = 86400
    assert drill_problems({"last": None, "without_s": 7 * day}, 7) == []
    assert "no drill has succeeded for 8 days" in drill_problems({"last": None, "without_s": 8 * day}, 7)[0]
    assert "the last drill failed: x" in drill_problems({"last": {"rc": 4, "problems": ["x"]}, "without_s": 1}, 7)[0]


def test_the_configuration_of_a_time_is_found_below_what_was_written_over_it() -> None:
    """Deleted (a marker, which is no version), overwritten, and newer than the time."""
    names = [("a", 1, "a1"), ("b", 2, "b2"), ("b", 9, "junk"), ("c", 9, "c9")]
    versions = [{"Key": k, "LastModified": datetime.fromtimestamp(at, UTC), "VersionId": v} for k, at, v in names]

    class Client:
        def get_paginator(self, _: str) -> Client:
            return self

        def paginate(self, **_: str) -> list[dict[str, Any]]:
            return [{"Versions": versions[::-1], "DeleteMarkers": []}, {}]

    assert as_it_lay(Client(), "bucket", "configuration/", datetime.fromtimestamp(5, UTC)) == {"a": "a1", "b": "b2"}
