"""What a host has written and not sent: pushed before a restore, or counted; only the first repository is asked."""

from __future__ import annotations

from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from mastodon_gov.remote import PROGRESS
from roles.restore.files import catalogue, ruins, switching, unsent
from roles.restore.files.catalogue import Target

LATEST = Target("latest")
FOUND: dict[str, Any] = {"archive": [{"id": "17-1"}]}
WAITING = ["00000002.history", "00000002000000000000000B", "00000002000000000000000C"]
FIRST = "repo1-path=/pg\nrepo1-cipher-pass=secret\n"
CONF = f"[global]\n{FIRST}repo2-type=posix\nrepo2-path=/srv\n\n[gov]\npg1-path=/x\n"


@pytest.fixture
def known() -> list[str]:
    """Configurations that pgBackRest was given."""
    return []


@pytest.fixture
def pushed(known: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A host with WAL that waits; names that are pushed appear here, and then lie in the repository."""
    names: list[str] = []
    status = tmp_path / "main/pg_wal/archive_status"
    status.mkdir(parents=True)
    for name in WAITING:
        (status / f"{name}.ready").touch()
    (status / "00000002000000000000000A.done").touch()
    (tmp_path / "pgbackrest.conf").write_text(CONF)

    def as_user(_: str, *words: str, **__: Any) -> CompletedProcess[str]:
        conf = next(word for word in words if word.startswith("--config=")).removeprefix("--config=")
        known.append(Path(conf).read_text())
        assert Path(conf).stat().st_mode & 0o777 == 0o640
        names.append(Path(words[-1]).name)
        return CompletedProcess(words, 0, "", "")

    def listing(_: Target, place: str) -> dict[str, Any]:
        assert place == "archive/gov/17-1/0000000200000000"
        return {f"{name}-0a1b.zst": {} for name in names}

    monkeypatch.setattr(switching, "MAIN", tmp_path / "main")
    monkeypatch.setattr(catalogue, "CONF", str(tmp_path / "pgbackrest.conf"))
    monkeypatch.setattr(catalogue, "RUN", str(tmp_path))
    monkeypatch.setattr(catalogue, "as_user", as_user)
    monkeypatch.setattr(catalogue, "listing", listing)
    monkeypatch.setattr("shutil.chown", lambda *_, **__: None)
    return names


@pytest.mark.parametrize(("number", "hidden"), [(1, "repo2-type=posix\nrepo2-path=/srv\n"), (2, FIRST)])
def test_what_a_dead_database_has_put_by_is_pushed(
    pushed: list[str], known: list[str], tmp_path: Path, number: int, hidden: str
) -> None:
    """To the repository that is restored from: the other may be away."""
    assert unsent.send(Target("latest", repository=number), FOUND, alive=False) == 0
    assert pushed == WAITING
    assert set(known) == {CONF.replace(hidden, "")}
    assert not list(tmp_path.glob("mfg-pgbackrest-*"))


def test_where_the_second_repository_is_restored_from_it_is_pushed_to_that_one(
    pushed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one may be away; each question to it would take minutes, and end the restore."""
    known: set[str] = set()

    def as_user(_: str, *words: str, **__: Any) -> CompletedProcess[str]:
        conf = next(word for word in words if word.startswith("--config=")).removeprefix("--config=")
        known.update(line[:5] for line in Path(conf).read_text().splitlines() if line.startswith("repo"))
        pushed.append(Path(words[-1]).name)
        return CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(catalogue, "as_user", as_user)
    assert unsent.send(Target("latest", repository=2), FOUND, alive=False) == 0
    assert (known, pushed) == ({"repo2"}, WAITING)


@pytest.mark.parametrize("alive", [True, False])
def test_what_cannot_be_sent_is_counted(
    pushed: list[str], alive: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The store takes nothing."""
    monkeypatch.setattr(switching, "archive_all", lambda: False)
    monkeypatch.setattr(catalogue, "as_user", lambda *words, **_: CompletedProcess(words, 49, "", "ERROR: [049]: away"))
    assert unsent.send(LATEST, FOUND, alive) == 2
    said = capsys.readouterr().err
    assert f"2 WAL segments of this host, {WAITING[1]} to {WAITING[2]}, are not in" in said
    assert all(PROGRESS.match(line) for line in said.splitlines()), "else the control node keeps it back"


def test_a_second_repository_that_is_away_does_not_count(pushed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL keeps them waiting for it, and the first repository has them."""
    monkeypatch.setattr(switching, "archive_all", lambda: False)
    pushed += WAITING
    assert unsent.send(LATEST, FOUND, alive=True) == 0


def test_the_archive_is_checked_without_the_second_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pushed: list[str]
) -> None:
    """`pgbackrest check` takes no --repo, and fails where any repository is away."""
    ran: list[str] = []

    def run(words: list[str], **_: Any) -> CompletedProcess[bytes]:
        conf = next(word for word in words if word.startswith("--config=")).removeprefix("--config=")
        ran.append(Path(conf).read_text())
        return CompletedProcess(words, 0, b"", b"")

    monkeypatch.setattr("subprocess.run", run)
    ruins.tool("check")
    assert ("repo1-path" in ran[0], "repo2" in ran[0]) == (True, False)
