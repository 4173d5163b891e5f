"""How far the WAL leads: the end of a copy, a branch that was given up, backups that are not fit."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from roles.restore.files import beside, catalogue, choice, recovery
from roles.restore.files.catalogue import Refused, Target

LATEST = Target("latest")
NOW = 1_795_284_000.0
FOUND: dict[str, Any] = {"archive": [{"id": "17-1", "max": "000000010000000000000009"}]}
OWN = "1\t0/8000000\tno recovery target specified\n"


def backup(label: str, stop: float, **other: Any) -> dict[str, Any]:
    """As `pgbackrest info` shows one on the first timeline."""
    times = {"timestamp": {"start": stop - 5, "stop": stop}, "type": "full", "error": False, "label": label}
    return times | {"archive": {"stop": "000000010000000000000002"}, "lsn": {"stop": "0/2000100"}} | other


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Files of a repository by place (what `repo-ls` lists) and by name (what `repo-get` prints)."""
    files: dict[str, Any] = {}
    monkeypatch.setattr(catalogue, "configured", lambda: ("gov", {}))
    monkeypatch.setattr(catalogue, "listing", lambda _, place, *__, user="": files.get(place, {}))
    monkeypatch.setattr(catalogue, "ask", lambda _, *words, user="": files[words[-1]])
    monkeypatch.setattr(catalogue, "point_of", lambda _: {"name": "risky", "time": "2026-11-21T17:00:00.5Z"})
    return files


def archived(files: dict[str, Any], *segments: str, histories: dict[str, Any] | None = None) -> None:
    """WAL in the repository, and histories with the time at which they came."""
    top = "archive/gov/17-1"
    files[top] = {name: {"time": at} for name, (at, _) in (histories or {}).items()}
    files |= {f"{top}/{name}": text for name, (_, text) in (histories or {}).items()}
    for name in segments:
        files[top][name[:16]] = {"type": "path"}
        files.setdefault(f"{top}/{name[:16]}", {})[f"{name}-0a1b.zst"] = {"type": "file", "time": NOW - 1900}


@pytest.mark.parametrize(
    ("own", "until", "whole"),
    [
        ("1\t0/8000000\tno recovery target specified\n", "000000010000000000000007", True),
        # The last record crosses into a segment that was never archived.
        ("1\t0/7FFFF80\tno recovery target specified\n", "000000010000000000000007", True),
        # A segment that arrived while the copy was made.
        ("1\t0/9000000\tno recovery target specified\n", "000000010000000000000007", True),
        ("1\t0/8000000\tx\n\n2\t1/0\tno recovery target specified\n", "0000000200000000000000FF", True),
        ("1\t0/7000000\tno recovery target specified\n", "000000010000000000000007", False),
        ("1\t0/8000000\tx\n\n2\t1/0\tno recovery target specified\n", "000000020000000100000000", False),
    ],
)
def test_a_copy_must_come_to_the_newest_wal(own: str, until: str, whole: bool) -> None:
    """PostgreSQL's own history of the copy tells where it ended, to the byte; a whole segment is what is compared."""
    if whole:
        choice.check_end(own, until, None)
        return
    with pytest.raises(Refused, match=rf"holds up to {until}.*2026-11-21 17:04:01.*--to TIME"):
        choice.check_end(own, until, "2026-11-21 17:04:01.9+00")


def test_the_newest_wal_is_that_of_the_newest_timeline(repository: dict[str, Any]) -> None:
    """Not of a branch that was given up, which may have gone further."""
    assert choice.newest_wal(LATEST, {"archive": []}) is None
    archived(repository, "0000000100000000000000FE", "000000010000000100000003")
    assert choice.newest_wal(LATEST, FOUND) == "000000010000000100000003"
    turn = {"00000002.history": (NOW, "1\t0/9000100\tbefore 2026-11-21 17:29:46+00\n")}
    archived(repository, "00000001000000000000000B", histories=turn)
    assert choice.newest_wal(LATEST, FOUND) == "000000010000000000000009"
    archived(repository, "00000001000000000000000B", "00000002000000000000000A", histories=turn)
    assert choice.newest_wal(LATEST, FOUND) == "00000002000000000000000A"


def test_a_backup_with_damaged_pages_is_not_taken(repository: dict[str, Any]) -> None:
    old, bad = backup("one", NOW - 7200), backup("two", NOW - 3600, error=True)
    assert choice.choose(LATEST, {"backup": [old, bad]}, NOW)["label"] == "one"
    assert choice.choose(LATEST, {"backup": [bad]}, NOW)["label"] == "two"


def test_the_full_backups_before_it_are_there_should_it_be_damaged(repository: dict[str, Any]) -> None:
    labels = ("20261119-0F", "20261120-0F", "20261120-0F_1I", "20261120-0F_2I")
    backups = [backup(each, NOW - 100 + n, type="full" if each[-1] == "F" else "incr") for n, each in enumerate(labels)]
    found = [each["label"] for each in choice.candidates(LATEST, {"backup": backups}, NOW)]
    assert found == ["20261120-0F_2I", "20261120-0F", "20261119-0F"]


@pytest.mark.parametrize(
    ("why", "last_good", "first_lost"),
    [
        ("before 2026-11-21 17:00:00.5+00", "17:00:00.499", "17:00:00.5"),
        ('at restore point "risky"', "17:00:00.5", "17:00:00.501"),
        ("no recovery target specified", "17:28:19", "17:28:20"),  # when the WAL it turned in was archived
    ],
)
def test_a_time_that_was_given_up_is_refused(
    repository: dict[str, Any], why: str, last_good: str, first_lost: str
) -> None:
    """A restore at 17:40:00 went back. Recovery follows its history, and would show what was then as what is asked."""
    at = catalogue.seconds("2026-11-21T17:40:00Z")
    archived(repository, "000000010000000000000009", histories={"00000002.history": (at, f"1\t0/9000100\t{why}\n")})
    found = {**FOUND, "backup": [backup("one", NOW - 36000)]}

    def ask(time: str) -> str:
        return str(choice.choose(Target("time", f"2026-11-21 {time}+00"), found, at + 600)["label"])

    for good in (last_good, "17:40:00", "17:45:00"):
        assert ask(good) == "one"
    for lost in (first_lost, "17:39:59"):
        with pytest.raises(Refused, match=r"lies on a branch that was given up.*or from 2026-11-21 17:40:00"):
            ask(lost)


@pytest.mark.parametrize(("code", "told"), [(0, 0), (1, 1), (29, 255), (42, 255)])
def test_wal_that_cannot_be_read_ends_the_copy(code: int, told: int, tmp_path: Path) -> None:
    """Missing (1) may be the end of all WAL. Above 125 PostgreSQL ends, instead of taking it for that."""
    program = tmp_path / "pgbackrest"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@"\nexit {code}\n')
    program.chmod(0o755)
    command = recovery.restore_command([str(program), "--repo-target-time=2026-11-20 22:00:00+00"])
    done = subprocess.run(
        ["sh", "-c", command.replace("%f", "0A").replace("%p", "a b")], capture_output=True, text=True, check=False
    )
    assert done.returncode == told
    given = ["--repo-target-time=2026-11-20 22:00:00+00", "--no-archive-async", "archive-get", "0A", "a b"]
    assert done.stdout.splitlines() == given


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        ("incorrect resource manager data checksum in record at 0/21000050", True),
        ("record with incorrect prev-link 58585858/58585858 at 0/21000050", True),
        # What stands behind the end of a segment that was not filled, or in one that is used again.
        ("invalid record length at 0/210000D8: expected at least 24, got 0", False),
        ("unexpected pageaddr 0/1F000000 in WAL segment 000000020000000000000022, LSN 0/22000000, offset 0", False),
    ],
)
def test_wal_that_is_other_than_it_was_is_no_end(
    line: str, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bit of a compressed file may come through decryption and decompression; PostgreSQL starts before it."""
    (tmp_path / "pg_wal").mkdir()
    (tmp_path / "pg_wal/00000003.history").write_text(
        "1\t0/1F000408\tx\n\n\n2\t0/21000050\tno recovery target specified\n"
    )
    log = f"03:59:59.725 UTC LOG:  {line}\n... last completed transaction was at log time 2026-12-01 03:43:06+00\n"
    (tmp_path / "log").write_text(log)
    copy = recovery.Copy(tmp_path, tmp_path, tmp_path / "log", "nobody", "none.service")
    monkeypatch.setattr(recovery, "runs", lambda _: True)
    monkeypatch.setattr(recovery, "sql", lambda *_: "f")
    monkeypatch.setattr(recovery, "archived_at", lambda _, segment, user: f" ({segment}, {user})")
    if not refused:
        assert recovery.recover(copy, LATEST) == "2026-12-01 03:43:06+00"
        return
    with pytest.raises(Refused, match=r"^WAL 000000020000000000000021 of the backup repository cannot be read: \w+"):
        recovery.recover(copy, LATEST)


@pytest.mark.parametrize(("bad", "taken"), [((), "d"), (("d",), "b"), (("d", "b"), "a")])
def test_a_damaged_backup_is_got_around(
    bad: tuple[str, ...], taken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the next older one that can be had; what was fetched of it does not stay."""
    tried: list[str] = []

    def fetch(copy: recovery.Copy, _: Target, label: str) -> None:
        assert not copy.data.exists()
        copy.data.mkdir()
        tried.append(label)
        if label in bad:
            raise recovery.Damaged(f"{label} is damaged.")

    copy = recovery.Copy(tmp_path / "data", tmp_path, tmp_path / "log", "nobody", "none.service")
    state: Any = SimpleNamespace(kept={"label": "d"}, target=LATEST, save=lambda: None)
    monkeypatch.setattr(beside, "COPY", copy)
    monkeypatch.setattr(recovery, "fetch", fetch)
    beside.fetched(state, ["d", "b", "a"])
    assert (state.kept["label"], tuple(state.kept.get("damaged", ())), tried[-1]) == (taken, bad, taken)


def test_where_all_are_damaged_the_sentence_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a store that is away is no damage: no other backup is tried."""
    state: Any = SimpleNamespace(kept={"label": "d"}, target=LATEST, save=lambda: None)
    copy = recovery.Copy(tmp_path / "data", tmp_path, tmp_path / "log", "nobody", "none.service")
    monkeypatch.setattr(beside, "COPY", copy)
    monkeypatch.setattr(catalogue, "configured", lambda: ("gov", {}))
    monkeypatch.setattr(recovery, "pgbackrest", lambda *_: ["pgbackrest"])
    monkeypatch.setattr("shutil.chown", lambda *_, **__: None)
    for code, left in ((49, "d"), (29, "a")):
        done = SimpleNamespace(returncode=code, stderr=f"ERROR: [{code:03}]")
        monkeypatch.setattr(recovery, "as_user", lambda *_, done=done, **__: done)
        with pytest.raises(Refused, match=f"The backup {left} cannot be restored"):
            beside.fetched(state, ["d", "b", "a"])
        assert state.kept["label"] == left
