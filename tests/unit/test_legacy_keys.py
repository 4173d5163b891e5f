"""The way back to a release that looks for other servers' keys where a newer one took them away."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from roles.mastodon import database, keys, processes, role
from roles.mastodon.files import journal, legacy_keys
from tests.unit.locally import commands
from tests.unit.storage_sample import node

OLD, NEW, NEXT = "4.5.15-aaaaaaaa", "4.6.5-bbbbbbbb", "4.6.6-cccccccc"
SCHEMAS = {OLD: 'create_table "accounts"', NEW: 'create_table "keypairs", force: :cascade do |t|'}
SCHEMAS[NEXT] = SCHEMAS[NEW]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with three releases, whose database has the table."""
    for name, schema in SCHEMAS.items():
        (tmp_path / "releases" / name / "db").mkdir(parents=True)
        (tmp_path / "releases" / name / "db/schema.rb").write_text(schema)
    monkeypatch.setattr(journal, "ROOT", tmp_path)
    monkeypatch.setattr(journal.records, "__defaults__", (tmp_path / "journal",))
    monkeypatch.setattr(journal.append, "__defaults__", (tmp_path / "journal",))
    monkeypatch.setattr(legacy_keys, "psql", lambda _: "t")
    return tmp_path


def way(event: str, origin: str, to: str) -> dict[str, Any]:
    return {"event": event, "from": origin, "to": to, "attempt": f"{origin}{to}", "step": "x"}


@pytest.mark.parametrize(
    ("serving", "lines", "target", "needed"),
    [
        (NEW, [], OLD, True),
        (NEW, [way("closed", OLD, NEW)], OLD, True),  # about to leave
        (NEW, [way("held", OLD, NEW)], OLD, True),
        (OLD, [way("closed", OLD, NEW), way("end", NEW, OLD)], OLD, True),  # killed after the new one had gone
        (OLD, [way("end", OLD, NEW)], OLD, True),  # an upgrade given up before its swap: jobs of both may run
        (OLD, [way("closed", OLD, NEW), way("closed", NEW, OLD)], OLD, False),
        (OLD, [], NEW, False),
        (OLD, [], OLD, False),
        (NEXT, [], NEW, False),  # back, but it knows the table
    ],
)
def test_which_way_needs_it(host: Path, serving: str, lines: list[Any], target: str, needed: bool) -> None:
    (host / "current").symlink_to(f"releases/{serving}")
    for line in lines:
        journal.append(line)
    assert legacy_keys.needed(target) == needed


def test_a_database_that_never_had_the_table_needs_nothing(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (host / "current").symlink_to(f"releases/{NEW}")
    monkeypatch.setattr(legacy_keys, "psql", lambda _: "f")
    assert not legacy_keys.needed(OLD)


def test_all_batches_until_none_is_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    batches = {0: {"last": 1007, "accounts": 1000}, 1007: {"last": 2000, "accounts": 4}, 2000: {"last": None}}
    monkeypatch.setattr(legacy_keys, "psql", lambda _, last: json.dumps(batches.pop(last)))
    assert legacy_keys.main(["put"]) == 0
    assert batches == {}
    assert json.loads(capsys.readouterr().out) == {"accounts": 1004}


def steps(monkeypatch: pytest.MonkeyPatch, *, elsewhere: bool, settled: bool, lines: dict[str, Any]) -> list[str]:
    """What the role does to keys and processes, in its order."""
    for name in ("packages", "settle", "units", "server_settings", "sweep_now"):
        monkeypatch.setattr(role, name, lambda **_: None)
    lock = {"installed": True, "failed": [], "deployment": None}
    here = node()
    facts: dict[Any, Any] = {
        database.ApplicationState: database.Application(owner={"signed_in": True}, lock=lock, **lines),
        processes.InstalledReleases: [here.release.name],
        processes.SlotsSettled: settled,
        keys.KeysElsewhere: elsewhere,
    }
    done = [command.get_raw_value() for command in commands(lambda: role.mastodon(here), facts)]
    found = [re.search(r"keys (?:before|after)|settle \S+ (\w+)", command) for command in done]
    return [match[1] or match[0] for match in found if match]


def test_keys_are_put_back_before_the_older_release_starts_and_when_the_newer_has_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Streaming writes no keys. A run that died after its swap still owes the second half."""
    swap = ["start", "web", "sidekiq", "streaming"]
    back = steps(monkeypatch, elsewhere=True, settled=False, lines={})
    assert back == ["keys before", *swap[:3], "keys after", swap[3]]
    assert steps(monkeypatch, elsewhere=False, settled=False, lines={}) == swap
    died = steps(monkeypatch, elsewhere=True, settled=True, lines={"unfinished": True})
    assert died == ["keys before", "keys after"]
    assert steps(monkeypatch, elsewhere=True, settled=True, lines={}) == []
