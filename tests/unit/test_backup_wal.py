"""What the monitor believes of the repository: the WAL of one branch, the bucket's lock, the drills' evidence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from roles.backups.files import backup_bucket, backup_repository, backup_status, backup_verify
from roles.backups.files.backup_repository import archived, branches, leads, on

# As PostgreSQL writes it: timeline 1 was left in segment 5, timeline 2 at the end of segment 6.
HISTORY = "1\t0/5000028\tno recovery target specified\n\n2\t0/7000000\tbefore 2026-11-21 11:00:00+00\n"


def segment(timeline: int, place: int) -> str:
    """Name of a WAL file."""
    return f"{timeline:08X}00000000{place:08X}"


def test_what_a_restore_gave_up_is_not_of_the_branch() -> None:
    path = branches(HISTORY, 3)
    assert [(t, p) for t in (1, 2, 3, 4) for p in range(3, 10) if on(path, segment(t, p))] == [
        *((1, place) for place in (3, 4)),
        *((2, place) for place in (5, 6)),
        *((3, place) for place in (7, 8, 9)),
    ]
    assert on(branches("", 1), segment(1, 90))


@pytest.mark.parametrize(
    ("timeline", "stop", "good"), [(1, "0/5000028", True), (1, "0/5000100", False), (2, "0/6", True), (4, "0/6", False)]
)
def test_only_a_backup_of_the_branch_leads_to_it(timeline: int, stop: str, good: bool) -> None:
    backup = {"archive": {"stop": segment(timeline, 5)}, "lsn": {"stop": stop}}
    assert leads(branches(HISTORY, 3), backup) is good


STORED = {
    "archive/social": ["archive.info", "16-1", "17-2"],
    "archive/social/16-1": ["0000000200000000"],
    "archive/social/16-1/0000000200000000": [segment(2, place) + "-old.zst" for place in range(90)],
    "archive/social/17-2": ["0000000100000000", "0000000200000000", "00000002.history"],
    # Given up from segment 5 on; segment 6 of the new timeline never came.
    "archive/social/17-2/0000000100000000": [segment(1, place) + "-aa.zst" for place in range(2, 9)],
    "archive/social/17-2/0000000200000000": [segment(2, place) + "-bb.zst" for place in (5, 7)],
}
BACKUPS: list[dict[str, Any]] = [
    {
        "label": label,
        "database": {"id": 2, "repo-key": 1},
        "archive": {"start": segment(timeline, place), "stop": segment(timeline, place)},
        "lsn": {"stop": f"0/{place}000100"},
    }
    for label, timeline, place in (("A", 1, 3), ("B", 1, 6), ("C", 2, 8))
]


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A repository after a restore to an earlier time, as pgBackRest shows it; its configuration."""

    def answer(_: object, *words: str, **__: object) -> tuple[int, str, str]:
        if "repo-get" in words:
            known = words[-1] == "archive/social/17-2/00000002.history"
            return (0, HISTORY.partition("\n")[0], "") if known else (55, "", "ERROR: [055]: unable to open")
        return 0, json.dumps({name: {"type": "file"} for name in STORED[words[-1]]}), ""

    monkeypatch.setattr(backup_repository, "pgbackrest", answer)
    return {"stanza": "social"}


def test_wal_that_was_given_up_does_not_hide_a_hole(stored: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files lie in the same places. Backup B is of that branch, so a restore begins from A."""
    where = backup_repository.place(stored, BACKUPS[0])
    path = backup_repository.branch(stored, where, 2)
    assert archived(stored, where, segment(1, 3), path) == {2, 3, 4, 5, 7}
    monkeypatch.setattr(backup_status, "psql", lambda _, reach: json.dumps({"reach": reach}))
    told = backup_status.wal(stored, BACKUPS[:2], segment(2, 8), [segment(2, 8), segment(1, 6)])
    assert told == {"base": "A", "holes": 1, "heartbeat": {"reach": "0/6000000"}}
    assert backup_status.wal(stored, BACKUPS[1:2], segment(2, 8), [])["base"] is None
    assert "the history of timeline 5 cannot be read" in backup_status.wal(stored, BACKUPS, segment(5, 8), [])["error"]


def test_the_nightly_verification_counts_one_branch(stored: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_verify, "info", lambda _: {"backups": BACKUPS})
    assert backup_verify.history(stored) == 1
    monkeypatch.setattr(backup_verify, "info", lambda _: {"backups": BACKUPS[:1]})
    assert backup_verify.history(stored) == 0


LOCKED = (
    "<ObjectLockConfiguration><Rule><DefaultRetention><Mode>COMPLIANCE</Mode><{0}>{1}</{0}></DefaultRetention></Rule>"
)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (LOCKED.format("Days", 14), {"mode": "COMPLIANCE", "days": 14}),
        (LOCKED.format("Years", 2), {"mode": "COMPLIANCE", "days": 730}),
        ("<ObjectLockConfiguration/>", {"mode": "", "days": 0}),
        (backup_bucket.Refused("404 ObjectLockConfigurationNotFoundError"), {"mode": "", "days": 0}),
        (backup_bucket.Refused("403 AccessDenied"), {"error": "403 AccessDenied"}),
    ],
)
def test_the_lock_is_the_bucket_s_own_word(answer: Any, expected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def request(*_: object, asked: dict[str, str]) -> bytes:
        assert asked == {"object-lock": ""}
        if isinstance(answer, Exception):
            raise answer
        return str(answer).encode()

    monkeypatch.setattr(backup_bucket, "request", request)
    assert backup_bucket.lock({}) == expected


def test_the_last_good_drill_counts_although_a_later_one_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_status, "STATE", tmp_path)
    assert backup_status.drill(100) == {"rc": None, "age": None}
    (tmp_path / "drills").mkdir()
    for name, rc, at in (("1", 0, 10), ("2", 0, 40), ("3", 5, 70)):
        (tmp_path / f"drills/{name}.json").write_text(json.dumps({"rc": rc, "at": at}))
    assert backup_status.drill(100) == {"rc": 5, "age": 60}
