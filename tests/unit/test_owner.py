"""The owner's account: what is asked of tootctl and of the database, and where the password stays."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from roles.mastodon.files import owner_account

RELEASE = "/opt/mastodon/current"


def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str, database: int = 0) -> tuple[int, list[list[str]]]:
    """The exit code, and every command; the database answers with this code."""
    asked: list[list[str]] = []

    def answer(words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(words)
        code = database if "psql" in " ".join(words) else 0
        return subprocess.CompletedProcess(words, code, "OK\nNew password: 0123abcd\n", "a sentence of the database")

    monkeypatch.setattr(owner_account, "PLACE", str(tmp_path / "first"))
    monkeypatch.setattr(subprocess, "run", answer)
    return owner_account.main([what, RELEASE, "boss", "boss@agency.test"]), asked


@pytest.mark.parametrize("what", ["create", "reset", "restore"])
def test_no_role_is_asked_for_by_a_name_that_its_holder_can_change(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str
) -> None:
    code, asked = run(monkeypatch, tmp_path, what)
    assert code == 0
    assert [words for words in asked if "--role" in words] == []
    assert "EMAIL_DOMAIN_LISTS_APPLY_AFTER_CONFIRMATION=false" in asked[0]  # a block of our mail domain stops nothing
    assert [words[-1] for words in asked if "psql" in " ".join(words)] == ["username=boss"]
    assert (tmp_path / "first").read_text() == "0123abcd\n"
    assert (tmp_path / "first").stat().st_mode & 0o777 == 0o600


def test_without_the_role_there_is_no_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, tmp_path, "restore", database=3)[0] == 1
    assert "a sentence of the database" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
