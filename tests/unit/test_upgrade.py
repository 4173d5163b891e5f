"""What an upgrade decides before it touches anything, and what its journal says afterwards."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mastodon_gov.errors import Refusal
from mastodon_gov.instance.release_line import with_release, write_release
from mastodon_gov.migrations import Migrations, created, read_installed, read_paths, refusal, tables
from mastodon_gov.rollback import restore_point, target_of
from mastodon_gov.upgrade_plan import (
    Need,
    Plan,
    choose,
    estimate,
    held_problems,
    measured,
    path_refusal,
    pending,
    problems,
)
from mastodon_gov.upgrade_probe import PLACES
from roles.mastodon import database
from roles.mastodon.files import journal, migrate
from tests.unit.locally import shell

OLD, NEW, NEXT = "4.5.15-aaaaaaaa", "4.6.5-bbbbbbbb", "4.7.0-cccccccc"
INSTALLED = {
    OLD: Migrations(frozenset({"20250101", "20250103"}), frozenset({"20250102"})),
    NEW: Migrations(frozenset({"20250101", "20250103", "20260101"}), frozenset({"20250102", "20260102"})),
}
DONE = {"20250101", "20250102", "20250103"}


@pytest.mark.parametrize(
    ("name", "versions", "said"),
    [
        (OLD, DONE, None),
        (NEW, DONE, None),
        (OLD, DONE | {"20260101"}, None),
        (OLD, DONE | {"20260101", "20260102"}, "20260102"),
        (OLD, DONE | {"20991231"}, "does not know"),
        (NEW, DONE | {"20260101", "20260102"}, None),
        (OLD, DONE | {"20240101"}, None),  # one that upstream has removed since is no newer one
    ],
)
def test_a_release_runs_on_what_it_survives(name: str, versions: set[str], said: str | None) -> None:
    found = refusal(name, INSTALLED[name], versions, INSTALLED)
    assert (found is None) == (said is None)
    assert said is None or said in str(found)


def test_a_fix_that_came_to_both_lines_late_is_not_taken_for_an_old_one() -> None:
    """The older line got a migration with a higher number than the newer line's last one."""
    installed = {
        OLD: Migrations(frozenset({"20250101", "20270101"})),
        NEW: Migrations(frozenset({"20250101", "20260101"})),
    }
    after = {**installed, NEW: Migrations(frozenset({"20250101"}), frozenset({"20260101"}))}
    assert refusal(OLD, installed[OLD], {"20250101", "20260101"}, installed) is None
    assert "point of no return" in str(refusal(OLD, installed[OLD], {"20250101", "20260101"}, after))


def test_two_minor_versions_back_are_refused() -> None:
    installed = {**INSTALLED, NEXT: Migrations(INSTALLED[NEW].before | {"20270101"}, INSTALLED[NEW].after)}
    assert "more than one minor version" in str(refusal(OLD, INSTALLED[OLD], DONE | {"20270101"}, installed))


def test_migrations_are_read_from_paths() -> None:
    lines = [f"{NEW}/db/migrate/20260101", f"{NEW}/db/post_migrate/20260102_x.rb", "mine/db/migrate/20990101_x.rb"]
    assert read_installed(lines) == {NEW: Migrations(frozenset({"20260101"}), frozenset({"20260102"}))}
    assert read_paths(["db/schema.rb", "db/migrate/README"]) == Migrations()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("change_table :accounts, bulk: true do |t|", {"accounts"}),
        ("safety_assured { add_column :users, :x, :integer }", {"users"}),
        ('add_index "statuses", [:id], algorithm: :concurrently', {"statuses"}),
        ('execute "UPDATE user_roles SET permissions = 1"', {"user_roles"}),
        ("DELETE FROM public.settings WHERE var = 'x'", {"settings"}),
        ("add_reference(:lists, :account)", {"lists"}),
        ("class User < ApplicationRecord; end", {"users"}),
        ("class Status < ActiveRecord::Base\n", {"statuses"}),
        ('self.table_name = "custom_filters"', {"custom_filters"}),
        ("CREATE UNIQUE INDEX CONCURRENTLY i ON tags (lower(name))", {"tags"}),
        ("create_table :keypairs do |t|", {"keypairs"}),
    ],
)
def test_a_migration_names_its_tables(text: str, named: set[str]) -> None:
    assert named <= tables(text)


def test_pending_migrations_come_in_two_halves_with_their_tables() -> None:
    texts = {
        "db/migrate/20260101_add_x.rb": "add_column :accounts, :x, :integer\ncreate_table :keypairs",
        "db/post_migrate/20260102_drop_y.rb": "remove_index :statuses, :y",
    }
    before, after = pending(texts, INSTALLED[NEW], DONE, {"accounts": 7, "statuses": 9})
    assert [(m.number, m.name, m.tables, m.makes) for m in before] == [
        ("20260101", "add_x", {"accounts": 7}, ("keypairs",))
    ]
    assert [(m.name, m.tables) for m in after] == [("drop_y", {"statuses": 9})]
    assert created(texts["db/migrate/20260101_add_x.rb"]) == {"keypairs"}
    assert Plan(OLD, NEW, before, after).no_return == "20260102_drop_y"
    assert Plan(OLD, NEW, before).no_return is None


KNOWN = ["4.5.14", "4.5.15", "4.6.5", "4.7.1", "5.0.0"]


@pytest.mark.parametrize(
    ("origin", "target", "said"),
    [
        ("4.5.14", "4.5.15", None),
        ("4.5.14", "4.6.5", None),
        ("4.5.15", "4.5.15", None),
        ("4.5.14", "4.7.1", "upgrade to 4.6.5 first"),
        ("4.6.5", "4.5.15", "rollback"),
        ("4.6.5", "5.0.0", "upgrade to 4.7.1 first"),
        ("4.7.1", "5.0.0", None),
    ],
)
def test_every_minor_version_is_visited(origin: str, target: str, said: str | None) -> None:
    found = path_refusal(origin, target, KNOWN)
    assert (found is None) == (said is None)
    if said:
        assert said in str(found)
        assert "4.5.14, 4.5.15, 4.6.5" in str(found)


def test_without_a_version_the_file_decides_then_the_newest_bundle() -> None:
    assert choose(OLD, "4.6.5", KNOWN, ["4.5.15"]) == "4.6.5"
    assert choose(OLD, "4.5.15", KNOWN, ["4.5.15", "4.6.5", "4.7.1"]) == "4.6.5"
    assert choose(OLD, "4.5.15", KNOWN, ["4.5.15"]) == "4.5.15"


def seen(**changes: Any) -> dict[str, Any]:
    fit: dict[str, Any] = {
        "deploying": "",
        "database": {"server": 170004, "tables": {"accounts": {"rows": 7, "mib": 300}}},
        "memory": {"available": 2000, "application": 1100},
        "disks": {place: {"free": 3000, "device": 1} for place in PLACES},
    }
    fit = copy.deepcopy(fit)
    for path, value in changes.items():
        inner = fit
        *way, last = path.split("__")
        for key in way:
            inner = inner[key]
        inner[last] = value
    return fit


def against(told: dict[str, Any], **how: Any) -> list[str]:
    before, after = pending(
        {"db/migrate/20260101_x.rb": "add_column :accounts, :x"}, INSTALLED[NEW], DONE, {"accounts": 7}
    )
    return problems(told, Need(700, 200), [*before, *after], **({"installed": False, "swap": True} | how))


def test_a_fit_host_has_nothing_against_it() -> None:
    assert against(seen()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"deploying": "anna@ministry"}, "anna@ministry"),
        ({"database__server": 130011}, "PostgreSQL is 13"),
        ({"memory__available": 1000}, "1000 MiB are available"),
        # 700 unpacked, three times 200 on the way, twice the table, and the reserve.
        ({"disks": {place: {"free": 2411, "device": 1} for place in PLACES}}, "2412 MiB"),
        ({"disks__/opt/mastodon": {"free": 1000, "device": 2}}, "free at /opt/mastodon"),
    ],
)
def test_what_stands_against_an_upgrade(changes: dict[str, Any], said: str) -> None:
    found = against(seen(**changes))
    assert len(found) == 1
    assert said in found[0]


def test_a_host_that_has_only_to_finish_needs_neither_memory_nor_room_for_the_release() -> None:
    disks = {place: {"free": 1200, "device": 1} for place in PLACES}
    told = seen(memory__available=10, disks=disks)
    assert against(told, installed=True, swap=False) == []


def test_a_release_that_is_held_is_finished_before_the_next() -> None:
    assert "upgrade 4.6.5` first" in held_problems(NEW, NEXT)[0]
    assert held_problems(NEW, NEW) == held_problems("", NEXT) == []


FILE = "# ours\nformat: 1\nrelease: 4.5.15   # since May\n\nowner: {release: no}\n"


def test_only_the_version_changes_in_the_file(tmp_path: Path) -> None:
    assert with_release(FILE, "4.6.5") == FILE.replace("4.5.15", "4.6.5")
    assert with_release('release: "4.5.15"\n', "4.6.5") == "release: 4.6.5\n"
    with pytest.raises(Refusal, match="no key `release`"):
        with_release("format: 1\n", "4.6.5")
    path = tmp_path / "instance.yaml"
    path.write_text(FILE)
    path.chmod(0o640)
    assert write_release(tmp_path, "4.6.5") == FILE
    assert path.read_text() == FILE.replace("4.5.15", "4.6.5")
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["instance.yaml"]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host's journal and its releases, below a directory of the test."""
    for name in (OLD, NEW):
        (tmp_path / "releases" / name).mkdir(parents=True)
    (tmp_path / "current").symlink_to(f"releases/{OLD}")
    monkeypatch.setattr(journal, "ROOT", tmp_path)
    monkeypatch.setattr(journal.append, "__defaults__", (tmp_path / "journal",))
    monkeypatch.setattr(journal.records, "__defaults__", (tmp_path / "journal",))
    return tmp_path


def switch(host: Path, name: str) -> None:
    (host / "current").unlink()
    (host / "current").symlink_to(f"releases/{name}")


def test_the_journal_follows_a_way_over_a_kill_to_its_end(host: Path) -> None:
    assert journal.step(NEW, "anna", "install", ["true"]) == 0
    assert journal.step(NEW, "anna", "restore point before", ["echo", '{"name": "p", "time": "t"}']) == 0
    journal.append({"event": "start", "step": "web", "who": "anna"} | (journal.attempt(NEW) or {}))
    switch(host, NEW)
    half = journal.summary(journal.records())
    assert half is not None
    assert (half["state"], half["step"]) == ("interrupted", "web")
    assert journal.step(NEW, "bert", "web", ["sh", "-c", "echo 'NOTE: killed'; exit 3"]) == 3
    assert (journal.summary(journal.records()) or {})["state"] == "failed"
    journal.close(NEW, "bert", "closed")
    done = journal.summary(journal.records())
    assert done is not None
    assert (done["from"], done["to"], done["state"], done["who"]) == (OLD, NEW, "done", "bert")
    assert done["steps"]["restore point before"]["told"] == {"name": "p", "time": "t"}
    assert done["steps"]["web"]["notes"] == ["killed"]
    assert len({line["attempt"] for line in journal.records()}) == 1
    journal.step(NEW, "anna", "web", ["true"])  # a change of settings is no upgrade
    assert journal.records()[-1]["event"] == "closed"


def test_a_line_cut_off_by_a_power_failure_spoils_nothing(host: Path) -> None:
    journal.step(NEW, "anna", "install", ["true"])
    with (host / "journal").open("a") as file:
        file.write('{"at": "2026')
    journal.step(NEW, "anna", "web", ["true"])
    assert [line["step"] for line in journal.records()] == ["install", "install", "web", "web"]
    assert all(line.startswith("{") for line in (host / "journal").read_text().splitlines())


def way(event: str, origin: str, to: str, **more: Any) -> dict[str, Any]:
    return {"event": event, "from": origin, "to": to, "attempt": f"{origin}{to}", "step": "x", **more}


@pytest.mark.parametrize(
    ("event", "held", "unfinished"),
    [("closed", "", False), ("held", NEW, False), ("held", "", True), ("end", "", True), ("start", NEW, True)],
)
def test_a_way_ends_when_it_is_closed_or_held_on_purpose(
    host: Path, monkeypatch: pytest.MonkeyPatch, event: str, held: str, unfinished: bool
) -> None:
    """A release without post-deployment migrations runs no step after `--hold`; its way is closed all the same."""
    mark = host / "held"
    mark.write_text(held) if held else None
    journal.append(way(event, OLD, NEW))
    monkeypatch.setattr(database, "JOURNAL", host / "journal")
    monkeypatch.setattr(database, "HELD", mark)
    answer = shell(database.ApplicationState().command("owner", "{}")).stdout.splitlines()
    assert database.ApplicationState().process(answer).unfinished == unfinished


@pytest.mark.parametrize(
    ("serving", "previous", "lines", "target"),
    [
        (NEW, OLD, [way("closed", OLD, NEW)], OLD),
        (NEW, OLD, [], OLD),
        (OLD, None, [way("end", OLD, NEW)], OLD),  # interrupted before the swap
        (NEW, OLD, [way("held", OLD, NEW)], OLD),
        (OLD, NEW, [way("closed", OLD, NEW), way("closed", NEW, OLD)], None),
        (NEW, OLD, [way("closed", OLD, NEW), way("end", NEW, OLD)], OLD),  # a rollback that failed before its swap
        (OLD, NEW, [way("closed", OLD, NEW), way("start", NEW, OLD)], OLD),  # one that was killed after it
        (OLD, None, [], None),
    ],
)
def test_where_a_rollback_leads(serving: str, previous: str | None, lines: list[Any], target: str | None) -> None:
    told = {"serving": serving, "previous": previous, "journal": lines}
    if target:
        assert target_of(told) == target
        return
    with pytest.raises(Refusal, match="no older release"):
        target_of(told)


def test_a_restore_loses_least_at_the_first_mark_before_the_point_of_no_return() -> None:
    def mark(step: str, name: str) -> dict[str, Any]:
        return way("end", OLD, NEW) | {"step": step, "told": {"name": name, "time": name}}

    lines = [
        mark("restore point before", "before-4.6.5-1"),
        mark("restore point after", "before-post-4.6.5-2"),
        mark("restore point after", "before-post-4.6.5-3"),
    ]
    assert (restore_point(lines, OLD) or {})["name"] == "before-post-4.6.5-2"
    assert (restore_point(lines[:1], OLD) or {})["name"] == "before-4.6.5-1"
    assert restore_point(lines, NEW) is None
    again = mark("restore point after", "before-post-4.6.5-9") | {"attempt": "a later way"}
    assert (restore_point([*lines, again], OLD) or {})["name"] == "before-post-4.6.5-9"


def test_migrations_are_measured_on_the_copy_of_the_last_drill_that_could() -> None:
    first, last = {"release": NEW, "seconds": 40.0}, {"release": NEW, "seconds": 50.0}
    assert measured([first, last, {"release": NEXT, "seconds": 1.0}], NEW) == 50.0
    assert measured([first, last | {"failed": "no Redis"}], NEW) is None
    assert measured([], NEW) is None


def test_the_last_whole_upgrade_says_how_long_one_takes() -> None:
    lines = [way("end", OLD, NEW, seconds=20), way("end", OLD, NEW, seconds=30.5), way("closed", OLD, NEW)]
    back = [way("end", NEW, OLD, seconds=7), way("closed", NEW, OLD)]
    assert estimate([*lines, *back]) == 50.5
    assert estimate([*lines[:2], *back]) is None
    assert json.loads(json.dumps(lines)) == lines


RUNNING = "Cannot run migrations because another migration process is currently running."


def test_migrations_wait_for_a_run_that_was_killed_but_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rails' own words when its advisory lock is held; PostgreSQL's when it ended one of two that waited for each
    other; a real error ends at once."""
    said = ["PG::TRDeadlockDetected: ERROR:  deadlock detected", RUNNING]
    tries: list[tuple[str, str]] = []

    def one(*asked: str) -> subprocess.CompletedProcess[str]:
        tries.append((asked[0], asked[1]))
        return subprocess.CompletedProcess([], int(bool(said)), "", said.pop() if said else "")

    left = [True, True]
    monkeypatch.setattr(migrate, "at_work", lambda: bool(left) and left.pop())
    monkeypatch.setattr(migrate, "migrate", one)
    monkeypatch.setattr("time.sleep", lambda _: None)
    assert (migrate.main([NEW, "before"]), left, tries) == (0, [], [(NEW, "before")] * 3)
    said.append("PG::DuplicateColumn: ERROR: it already exists")
    assert (migrate.main([NEW, "before"]), len(tries)) == (1, 4)
