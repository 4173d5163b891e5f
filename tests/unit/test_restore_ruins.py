"""After a switch: the repository's index is put back only where it is known that somebody destroyed it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from roles.restore.files import ruins
from roles.restore.files.catalogue import Refused, Target

THEN = "2026-11-20 22:00:00+00"
LATEST, AS_OF = Target("latest"), Target("latest", as_of=THEN)
GOOD = (0, "ok")
WIPED = (1, "missing stanza path")
JUNK = (99, "[FormatError] key/value found outside of section at line 1: pay")
CIPHER = (99, "[CryptoError] unable to load info file '/pg/backup/gov/backup.info': cipher header invalid")
HALF = (3, "missing stanza data")
AWAY = (99, "[HostConnectError] unable to connect to 's3.example:443': [111] Connection refused")
DENIED = (99, "[ProtocolError] HTTP request failed with 403 (Forbidden):\n<Error><Code>AccessDenied</Code></Error>")
MIXED = (99, "[FileMissingError] unable to load info file 'backup.info':\nProtocolError: HTTP request failed with 503")
Status = tuple[int, str] | Refused
Ran = list[tuple[str, ...]]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Callable[[Status, Status], Ran]:
    """A repository in two states, as of now and as of THEN; returns the commands that are sent to it."""
    ran: Ran = []

    def tool(*words: str, given: bytes = b"", target: Any = None) -> CompletedProcess[bytes]:
        ran.append(words)
        return CompletedProcess(words, 0, b"the index" if "repo-get" in words else b"", b"")

    def make(now: Status, then: Status) -> Ran:
        def status(target: Target) -> tuple[int, str]:
            told = then if target.as_of else now
            if isinstance(told, Refused):
                raise told
            return told

        monkeypatch.setattr(ruins, "status", status)
        monkeypatch.setattr(ruins, "tool", tool)
        monkeypatch.setattr(ruins, "configured", lambda: ("gov", {}))
        monkeypatch.setattr(ruins, "history_arrived", lambda: True)
        return ran

    return make


def wrote(ran: Ran) -> list[str]:
    """What was written; nothing may ever be removed."""
    assert not [words for words in ran if {"repo-rm", "stanza-delete", "expire"} & {*words}]
    return [words[-1] for words in ran if "repo-put" in words]


@pytest.mark.parametrize("now", [GOOD, (2, "no valid backups")])
@pytest.mark.parametrize("target", [LATEST, AS_OF])
def test_a_good_repository_is_only_checked(store: Any, now: Status, target: Target) -> None:
    ran = store(now, GOOD)
    ruins.check_archive(target)
    assert ran == [("check",)]


@pytest.mark.parametrize("now", [WIPED, HALF, JUNK, CIPHER])
def test_after_a_ransom_the_index_is_put_back(store: Any, now: Status) -> None:
    """The restore itself was asked for as of a time, and at that time everything opens with our key and passphrase."""
    ran = store(now, GOOD)
    assert ruins.check_archive(AS_OF) == f"index as of {THEN}"
    both = ("archive/gov/archive.info", "backup/gov/backup.info")
    assert wrote(ran) == [name + end for name in both for end in ("", ".copy")]
    assert ran[-1] == ("check",)


@pytest.mark.parametrize("now", [WIPED, HALF, JUNK, CIPHER, AWAY, DENIED, Refused("pgbackrest gave no answer.")])
def test_without_a_time_nothing_is_written(store: Any, now: Status) -> None:
    """The store away, a wrong key, a wrong passphrase, or a ransom: from here they cannot be told apart."""
    ran = store(now, GOOD)
    with pytest.raises(Refused, match="Nothing in the repository was touched") as refusal:
        ruins.check_archive(LATEST)
    assert "`mastodon-gov restore --switch" in str(refusal.value)
    assert ran == []


@pytest.mark.parametrize("now", [AWAY, DENIED, MIXED, Refused("pgbackrest gave no answer.")])
def test_a_store_that_does_not_answer_is_no_ruin(store: Any, now: Status) -> None:
    ran = store(now, GOOD)
    with pytest.raises(Refused, match="Nothing in the repository was touched"):
        ruins.check_archive(AS_OF)
    assert ran == []


@pytest.mark.parametrize("then", [JUNK, CIPHER, AWAY, WIPED, Refused("pgbackrest gave no answer.")])
def test_a_passphrase_that_opens_nothing_is_no_ruin(store: Any, then: Status) -> None:
    """What cannot be read as of then either was not destroyed since then."""
    ran = store(CIPHER, then)
    with pytest.raises(Refused, match="Nothing in the repository was touched"):
        ruins.check_archive(AS_OF)
    assert ran == []


def test_wal_that_does_not_arrive_is_a_sentence(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store(GOOD, GOOD)
    failed = CompletedProcess((), 82, b"", b"ERROR: [082]: WAL segment was not archived before the 60000ms timeout")
    monkeypatch.setattr(ruins, "tool", lambda *_, **__: failed)
    with pytest.raises(Refused, match="WAL does not arrive"):
        ruins.check_archive(LATEST)


def test_a_history_that_does_not_arrive_is_a_sentence(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the next restore could not follow from an older backup, and nobody would know."""
    store(GOOD, GOOD)
    monkeypatch.setattr(ruins, "history_arrived", lambda: False)
    monkeypatch.setattr(ruins, "WITHIN", 0)
    with pytest.raises(Refused, match="history of the new timeline"):
        ruins.check_archive(LATEST)


@pytest.mark.parametrize(("there", "arrived"), [("00000003.history", True), ("00000002.history", False)])
def test_the_newest_history_must_be_in_the_repository(
    there: str, arrived: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("00000002.history", "00000003.history"):
        (tmp_path / name).touch()
    monkeypatch.setattr(ruins, "WAL", tmp_path)
    monkeypatch.setattr(ruins, "repository", lambda _: {"name": "gov", "archive": [{"id": "17-1"}]})
    monkeypatch.setattr(ruins, "listing", lambda *_: {there: {}})
    assert ruins.history_arrived() == arrived
