"""What may follow what: the verbs of the host's program on a state that an earlier one left."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from roles.restore.files import beside, held, recovery, restore, state, switching
from roles.restore.files.catalogue import Refused, Target
from roles.restore.files.recovery import Copy
from roles.restore.files.state import State

SWITCHED = ("verify", "hold", "stop-application", "stop-database", "swap", "start-database")
Left = Callable[..., State]


@pytest.fixture
def told() -> list[str]:
    """What would have been done to the host, in order."""
    return []


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]) -> Left:
    """A state with these steps done; nothing of the host is touched."""
    monkeypatch.setattr(state, "STATE", tmp_path / "restore.json")
    monkeypatch.setattr(beside, "COPY", Copy(tmp_path / "b", tmp_path / "r", tmp_path / "l", "p", "u"))
    monkeypatch.setattr(switching, "CURRENT", tmp_path / "release")
    monkeypatch.setattr(switching, "MAIN", tmp_path / "main")
    for name in ("main", "main.before", "release"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(recovery, "stop", lambda _: told.append("copy stopped"))
    monkeypatch.setattr(held, "let_through", lambda: told.append("let through"))
    monkeypatch.setattr(switching, "start_application", lambda: told.append("application started"))

    def make(*done: str, **more: Any) -> State:
        kept = {"target": {"kind": "latest", "value": "", "as_of": ""}, "label": "one", **more}
        state.STATE.write_text(json.dumps(kept | {"done": {name: {"seconds": 0, "result": None} for name in done}}))
        return State()

    return make


def test_a_copy_that_is_dropped_leaves_nothing_held(left: Left, told: list[str]) -> None:
    """The hold was on, and the stop failed: what it had stopped starts again, and visitors, mail and federation get
    through. Also where the hold was killed before it was written down."""
    for done in (("verify", "hold"), ("verify",)):
        told.clear()
        beside.drop(left(*done, before="/main.before"))
        assert told == ["copy stopped", "let through", "application started"]
        assert not state.STATE.exists()


def test_a_copy_that_was_only_looked_at_is_dropped_without_a_restart(left: Left, told: list[str]) -> None:
    beside.drop(left("verify"))
    assert told == ["copy stopped"]


@pytest.mark.parametrize(
    ("newer", "refusal"),
    [({"statuses": 0}, None), ({"statuses": 2}, "instance has written since"), (None, "does not answer")],
)
def test_an_old_copy_of_the_newest_moment_is_not_handed_out_as_the_newest(
    newer: dict[str, int] | None, refusal: str | None, left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written since would be lost unseen. To an earlier moment the same copy is right; its losses are new."""
    monkeypatch.setattr(switching, "newer_rows", lambda _: newer)
    finished = left("recover", "verify")
    finished.kept["done"]["recover"]["result"] = "2026-12-01 06:56:10.453752+00"
    finished.kept["done"]["verify"]["result"] = {"moment": "2026-12-01 06:56:10+00:00", "lost": {"statuses": 9}}
    if refusal:
        with pytest.raises(Refused, match=rf"it ends at 2026-12-01 06:56:10\+00:00, and the .*{refusal}.*--drop"):
            beside.counted_anew(finished, newer is not None)
    else:
        beside.counted_anew(finished, True)
    finished.kept["target"] = {"kind": "time", "value": "2026-12-01 06:56:10+00"}
    beside.counted_anew(finished, newer is not None)
    assert State().kept["done"]["verify"]["result"]["lost"] == (newer or {})


def test_once_the_application_was_stopped_the_copy_is_not_dropped(left: Left, told: list[str]) -> None:
    begun = left("verify", "hold", "stop-application", before="/main.before")
    with pytest.raises(Refused, match="The switch has begun"):
        beside.drop(begun)
    assert (told, state.STATE.exists()) == ([], True)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, told: list[str]) -> None:
    """The steps only say what they would do, and with which two directories; as many posts are newer as a moment has
    seconds since 1970."""
    monkeypatch.setattr(beside, "running", lambda: True)
    monkeypatch.setattr(switching, "newer_rows", lambda when: {"statuses": int(when)})

    def named(copy: Copy, aside: Path, target: Target, empty: bool, back: bool) -> Iterator[tuple[str, Any]]:
        for name, work in real(copy, aside, target, empty, back):
            told.append(f"{name}: {copy.data.name} for {aside.name[:13]}")
            yield name, lambda: None
            assert callable(work)

    real = switching.steps
    monkeypatch.setattr(switching, "steps", named)


@pytest.mark.usefixtures("steps")
def test_the_way_back_is_the_switch_the_other_way_round(left: Left, told: list[str], tmp_path: Path) -> None:
    """Each step is done again, also those that the switch had done; killed on the way, either verb goes on."""
    (tmp_path / "main.before").rename(before := tmp_path / "main.before-20261121T172946Z")
    told_of = restore.back(left(*SWITCHED, "check", "open", before=str(before)), "")
    assert told_of["lost"] == {"statuses": 1795282186}
    assert told[:5] == [
        f"hold: {before.name} for main.given-up",
        f"stop-application: {before.name} for main.given-up",
        f"stop-database: {before.name} for main.given-up",
        f"branch: {before.name} for main.given-up",
        f"swap: {before.name} for main.given-up",
    ]
    assert [each.partition(":")[0] for each in told[5:]] == [
        *("start-database", "check", "migrate", "lock", "redis", "application", "feeds", "backup")
    ]
    given_up = State().kept["back"]
    for verb in (restore.back, restore.switch):
        verb(State(), "")
    assert (State().kept["back"], "open" in State().kept["done"]) == (given_up, False)


@pytest.mark.usefixtures("steps")
def test_a_switch_has_no_step_of_the_way_back(left: Left, told: list[str]) -> None:
    checked = {"verify": {"seconds": 0, "result": {"problems": []}}}
    begun = left("verify")
    begun.kept["done"] = checked
    restore.switch(begun, "")
    assert not [each for each in told if each.startswith("branch")]
    assert told[0] == "hold: b for main.before-2"


def test_nothing_else_begins_on_the_way_back(left: Left) -> None:
    under_way = left("hold", before="/main.before", back="/main.given-up")
    with pytest.raises(Refused, match="The switch has begun"):
        beside.drop(under_way)
    with pytest.raises(Refused, match="restore --back"):
        beside.restored(under_way, under_way.target)
    with pytest.raises(Refused, match="is not finished"):
        restore.sign_off(under_way)


@pytest.mark.usefixtures("steps")
@pytest.mark.parametrize(
    ("done", "missing", "says"),
    [
        (("verify", "hold"), "", "Nothing was switched"),
        ((), "", "Nothing was switched"),
        ((*SWITCHED, "check", switching.EMPTY), "", "was empty before"),
        (SWITCHED, "release", "was empty before"),
        (SWITCHED, "main.before", "is not there any more"),
    ],
)
def test_where_nothing_leads_back_is_a_sentence(
    done: tuple[str, ...], missing: str, says: str, left: Left, tmp_path: Path
) -> None:
    """And nothing was begun."""
    (tmp_path / missing).rmdir() if missing else None
    found = left(*done, before=str(tmp_path / "main.before"))
    with pytest.raises(Refused, match=says):
        restore.back(found, "")
    assert "back" not in State().kept


def test_signed_off_the_one_that_was_put_aside_is_removed(left: Left, tmp_path: Path) -> None:
    """After the way back that is the restored one."""
    (tmp_path / "main.given-up").mkdir()
    restore.sign_off(left("open", before=str(tmp_path / "main.before"), back=str(tmp_path / "main.given-up")))
    assert sorted(path.name for path in tmp_path.glob("main*")) == ["main", "main.before"]
    restore.sign_off(left("open", before=str(tmp_path / "main.before")))
    assert [path.name for path in tmp_path.glob("main*")] == ["main"]
    assert not state.STATE.exists()


def test_after_the_second_repository_the_first_must_be_good(
    left: Left, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was known of the second one, at a time, is no word on the first; the pictures may be away with it."""
    seen: list[object] = []
    monkeypatch.setattr(switching, "hold", lambda **given: seen.append(given))
    monkeypatch.setattr(switching, "check_archive", seen.append)
    for name in ("stop_application", "stop_database", "branch", "swap", "start_database", "migrate", "check_lock"):
        monkeypatch.setattr(switching, name, lambda *_: None)
    for name in ("empty_redis", "feeds", "full_backup"):
        monkeypatch.setattr(switching, name, lambda: None)
    then = "2026-11-20 22:00:00+00"
    begun = left(before=str(tmp_path / "main.before"), back=str(tmp_path / "main.given-up"))
    begun.kept["target"] |= {"repository": 2, "as_of": then}
    restore.go_on(begun, "")
    assert seen == [{"needed": False}, Target("latest", as_of="")]
    begun.kept["done"] = {}
    restore.go_on(begun, then)
    assert seen[2:] == [{"needed": False}, Target("latest", as_of=then)]


def test_a_host_that_was_empty_is_signed_off_while_it_is_held(left: Left, told: list[str], tmp_path: Path) -> None:
    """Nothing but another restore mends a wrong moment there, and the wrong data need not federate first."""
    before = str(tmp_path / "main.before")
    with pytest.raises(Refused, match="is not finished"):
        restore.sign_off(left(*SWITCHED, "check", switching.EMPTY, before=before))
    with pytest.raises(Refused, match="is not finished"):
        restore.sign_off(left(*SWITCHED, "check", "backup", before=before))
    restore.sign_off(left(*SWITCHED, "check", switching.EMPTY, "backup", before=before))
    assert (told, state.STATE.exists()) == ([], False)
    restore.open_(State())
    assert told == ["let through"]


def test_it_is_not_opened_in_the_middle_of_a_switch(left: Left, told: list[str]) -> None:
    with pytest.raises(Refused, match="is not finished"):
        restore.open_(left(*SWITCHED, before="/main.before"))
    restore.open_(left(*SWITCHED, "backup", before="/main.before"))
    assert told == ["let through"]


def test_the_old_database_goes_on_in_a_timeline_of_its_own(
    left: Left, told: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number is none that the given-up one took; every history is sent, or the repository would have a gap."""
    for name in ("main", "main.before"):
        (tmp_path / name / "pg_wal/archive_status").mkdir(parents=True)
    (tmp_path / "main/pg_wal/00000002.history").write_text("given up")
    wal, lines = tmp_path / "main.before/pg_wal", tmp_path / "main.before/postgresql.auto.conf"
    lines.write_text("archive_mode = 'off'\nother = 1\n")

    def promoted(*_: object, **__: object) -> None:
        assert (tmp_path / "main.before/recovery.signal").exists()
        assert (wal / "00000002.history").read_text() == "given up"
        assert lines.read_text() == "other = 1\nrestore_command = 'false'\nrecovery_target_timeline = 'current'\n"
        (wal / "00000003.history").touch()

    monkeypatch.setattr("shutil.chown", lambda *_: None)
    monkeypatch.setattr(switching, "start", promoted)
    monkeypatch.setattr(switching, "recover", lambda *_: told.append("recovered"))
    monkeypatch.setattr(switching, "stop", lambda _: told.append("stopped"))
    switching.branch(Copy(tmp_path / "main.before", tmp_path / "r", tmp_path / "l", "p", "u"))
    assert told == ["stopped", "recovered", "stopped"]
    marks = {path.name for path in (wal / "archive_status").iterdir()}
    assert marks == {"00000002.history.ready", "00000003.history.ready"}
