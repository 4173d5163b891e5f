"""What a deploy knows of the database: a live one is never taken for a new one, whatever keeps it from answering."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from pyinfra.api import OperationError

from roles.mastodon import database
from roles.mastodon.database import Application, ApplicationState, observe, prepare_database, unknown
from tests.unit.locally import commands, shell
from tests.unit.storage_sample import instance, node_of, secrets

TOLD = {"people": True, "versions": ["20260101000000"], "status_host": None, "owner": {"signed_in": True}}
UNLOCKED = {"installed": False}
LIVE = [{"made": True}, TOLD, {}, {"installed": True}]
AWAY = 'psql: error: connection to server on socket "/var/run/postgresql/.s.PGSQL.5432" failed'


def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documents: list[object], said: str) -> Application:
    """What the deploy takes from a psql that prints these documents over several lines, and this on standard error."""
    (tmp_path / "documents").write_text("\n".join(json.dumps(each, indent=1) for each in documents))
    program = tmp_path / "runuser"
    program.write_text(f"#!/bin/sh\necho '{said}' >&2\ncat {tmp_path}/documents\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    fact = ApplicationState()
    done = shell(fact.command(owner="owner", wanted="{}"))
    assert done.returncode == 0, "a fact that fails would fail the host"
    return fact.process(done.stdout.splitlines())


@contextmanager
def seen_as(remembered: Application, asked: Application, *, executing: bool) -> Iterator[None]:
    """A run that remembers one answer and gets the other when it asks."""
    changes: dict[str, Any] = {
        "seen": lambda *_, **__: remembered,
        "host": SimpleNamespace(get_fact=lambda *_, **__: asked),
        "run": SimpleNamespace(is_executing=executing),
    }
    with patch.multiple(database, **changes):
        yield


def test_a_live_database_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever psql warns of beside its answer."""
    state = told(tmp_path, monkeypatch, LIVE, "WARNING:  database has a collation version mismatch")
    assert (state.answered, state.failed, state.people) == (True, "", True)
    assert state.versions == {"20260101000000"}
    assert state.lock == {"installed": True}


@pytest.mark.parametrize("documents", [LIVE[:1], LIVE[:3]])
def test_half_an_answer_is_refused_at_once(
    documents: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is written, with what PostgreSQL said."""
    state = told(tmp_path, monkeypatch, documents, "ERROR:  could not read block 7")
    for may_be_away in (True, False):
        assert "could not read block 7" in str(unknown(state, may_be_away=may_be_away))


def test_no_answer_is_refused_once_there_must_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new host has no PostgreSQL when a deploy begins, and a stopped one is started by it."""
    state = told(tmp_path, monkeypatch, [], AWAY)
    assert unknown(state, may_be_away=True) is None
    assert ".s.PGSQL.5432" in str(unknown(state, may_be_away=False))


def test_a_server_without_our_database_is_a_new_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so itself."""
    state = told(tmp_path, monkeypatch, [{"made": False}], "")
    assert (unknown(state, may_be_away=False), state.lock) == (None, UNLOCKED)


@pytest.mark.parametrize(
    ("state", "made"),
    [
        (Application(answered=True), 1),  # empty
        (Application(answered=True, versions=frozenset({"20260101000000"})), 1),  # killed before the lock was in
        (Application(answered=True, people=True), 0),  # the lock was lost
        (Application(answered=True, lock={"installed": True}), 0),
    ],
    ids=["empty", "killed", "lost", "locked"],
)
def test_tables_are_made_until_somebody_lives_there(state: Application, made: int) -> None:
    """Every migration at once, without a restore point, is for a database that nobody has used."""
    node = node_of(instance(), secrets())
    assert len(commands(lambda: prepare_database(name="x", node=node), {ApplicationState: state})) == made


@pytest.mark.parametrize(
    ("early", "executing", "refuses"), [(True, True, False), (False, False, False), (False, True, True)]
)
def test_a_plan_and_the_beginning_may_find_nobody_to_ask(early: bool, executing: bool, refuses: bool) -> None:
    """After the role PostgreSQL has run, an answer must come."""
    away = Application(failed=AWAY)
    with seen_as(away, away, executing=executing):
        if refuses:
            with pytest.raises(OperationError, match="nothing is done to it"):
                observe(node_of(instance(), secrets()), early=early)
        else:
            assert observe(node_of(instance(), secrets()), early=early) == away


def test_an_answer_that_was_missing_is_asked_for_again() -> None:
    """A server that was starting when the deploy began has changed nothing, so the answer would be remembered."""
    there = Application(answered=True, people=True)
    with seen_as(Application(failed=AWAY), there, executing=True):
        assert observe(node_of(instance(), secrets())) == there
