"""The verbs of `mastodon-gov secrets`: what they change, what they refuse, and that values stay in memory."""

from __future__ import annotations

import shlex
import stat
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mastodon_gov import secrets as store
from mastodon_gov.errors import Refusal
from mastodon_gov.secrets.cli import secrets
from mastodon_gov.secrets.values import KINDS, Values

GIVEN = {name: f"given{number}" for number, name in enumerate(store.GIVEN)}
KEPT = [name for name, kind in KINDS.items() if kind.keep]
SEEDED = "Seeded4711Secret"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An instance directory with secrets, some of them still to be given."""
    public = store.new_identity(tmp_path / "identity.txt")
    (tmp_path / "recipients.txt").write_text(f"# Jane\n{public}\n")
    store.create(tmp_path, {name: value for name, value in GIVEN.items() if not name.startswith("mail.")})
    return tmp_path


@pytest.fixture(autouse=True)
def identity_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tester's own identity is not used."""
    monkeypatch.delenv("MASTODON_GOV_IDENTITY", raising=False)


def values(directory: Path) -> Values:
    """What secrets.age holds now."""
    return store.read_values(directory, directory / "identity.txt")


def run(directory: Path, *words: str, stdin: str = "") -> Result:
    """Run a verb; a refusal is in `exception`."""
    return CliRunner().invoke(secrets, list(words), obj=directory, input=stdin)


def editor(directory: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> Path:
    """Make a Python program the editor; `path` is the file. Returns a file for what it notes."""
    notes, script = directory / "notes", directory / "editor.py"
    script.write_text(
        f"import os, sys\nfrom pathlib import Path\npath = Path(sys.argv[1])\nnotes = Path({str(notes)!r})\n{program}"
    )
    monkeypatch.setenv("VISUAL", shlex.join([sys.executable, str(script)]))
    return notes


def test_set_takes_the_value_from_standard_input(directory: Path) -> None:
    result = run(directory, "set", "mail.password", stdin=f"{SEEDED}\n")
    assert result.exit_code == 0
    assert values(directory)["mail.password"] == SEEDED
    assert SEEDED not in result.output


@pytest.mark.parametrize("value", ["two words", "a#b", "", "short"])
def test_set_refuses_what_cannot_be_used(directory: Path, value: str) -> None:
    before = (directory / "secrets.age").read_bytes()
    result = run(directory, "set", "redis.password", stdin=value)
    assert isinstance(result.exception, Refusal)
    assert "redis.password" in str(result.exception)
    assert (directory / "secrets.age").read_bytes() == before


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("verb", ["set", "rotate"])
def test_what_data_is_encrypted_with_is_kept(directory: Path, verb: str, name: str) -> None:
    before = (directory / "secrets.age").read_bytes()
    result = run(directory, verb, name, stdin="A" * 64)
    assert isinstance(result.exception, Refusal)
    assert "can never be replaced" in str(result.exception)
    assert (directory / "secrets.age").read_bytes() == before


def test_the_keys_of_data_are_among_the_kept() -> None:
    assert len([name for name in KEPT if "encryption" in name]) == 3
    assert "backups.cipher_pass" in KEPT


@pytest.mark.parametrize("name", ["redis.password", "mastodon.secret_key_base"])
def test_rotate_replaces_one_value_and_says_what_follows(directory: Path, name: str) -> None:
    before = values(directory)
    result = run(directory, "rotate", name)
    after = values(directory)
    assert {other for other in before if before[other] != after[other]} == {name}
    assert "deploy" in result.output
    assert after[name] not in result.output


def test_rotate_of_a_given_secret_takes_the_new_one(directory: Path) -> None:
    run(directory, "rotate", "object_storage.media.secret_key", stdin=SEEDED)
    assert values(directory)["object_storage.media.secret_key"] == SEEDED


def test_show_is_for_terminals(directory: Path) -> None:
    result = run(directory, "show")
    assert isinstance(result.exception, Refusal)
    assert "--force" in str(result.exception)
    assert result.output == ""
    password = values(directory)["redis.password"]
    assert run(directory, "show", "redis.password", "--force").output == f"{password}\n"
    assert password in run(directory, "show", "--force").output


def test_an_unknown_key_is_wrong_usage(directory: Path) -> None:
    result = run(directory, "set", "mail.passwort", stdin="x")
    assert result.exit_code == 2
    assert "mail.password" in result.output


def test_edit_works_in_memory_and_leaves_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "notes.write_text(f'{path} {path.stat().st_mode:o} {path.parent.stat().st_mode:o}')\n"
        f"path.write_text(path.read_text().replace('  password: TO-BE-GIVEN', '  password: {SEEDED}'))\n"
    )
    notes = editor(directory, monkeypatch, program)
    result = run(directory, "edit")
    path, mode, folder_mode = notes.read_text().split()
    assert result.exit_code == 0, result.exception
    assert (stat.S_IMODE(int(mode, 8)), stat.S_IMODE(int(folder_mode, 8))) == (0o600, 0o700)
    assert path.startswith("/dev/shm/")
    assert not Path(path).parent.exists()
    assert values(directory)["mail.password"] == SEEDED
    assert "mail.password" in result.output
    assert SEEDED not in result.output


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("path.write_text(path.read_text().replace('password: TO', 'password: a b TO'))", "white space"),
        ("path.write_text(path.read_text().replace('  cipher_pass: ', '  cipher_pass: A'))", "can never be replaced"),
        ("path.write_text(path.read_text().replace('redis:', 'radis:'))", "unknown name"),
        ("path.write_text('')", "format"),
        (f"path.write_text(path.read_text().replace('redis:', '{SEEDED}: *{SEEDED}'))", "line"),
        ("sys.exit(3)", "ended with 3"),
    ],
)
def test_edit_refuses_and_changes_nothing(
    directory: Path, monkeypatch: pytest.MonkeyPatch, program: str, says: str
) -> None:
    before = (directory / "secrets.age").read_bytes()
    notes = editor(directory, monkeypatch, f"notes.write_text(str(path))\n{program}\n")
    result = run(directory, "edit")
    assert isinstance(result.exception, Refusal)
    assert says in result.output + str(result.exception)
    assert SEEDED not in result.output + str(result.exception)
    assert (directory / "secrets.age").read_bytes() == before
    assert not Path(notes.read_text()).parent.exists()


def test_edit_without_a_change_does_not_write(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (directory / "secrets.age").read_bytes()
    editor(directory, monkeypatch, "")
    assert "Nothing changed" in run(directory, "edit").output
    assert (directory / "secrets.age").read_bytes() == before


def test_recipients_are_added_and_removed(directory: Path) -> None:
    second = directory / "second.txt"
    public = store.new_identity(second)
    mine = (directory / "recipients.txt").read_text()
    (directory / "recipients.txt").write_text(f"{mine}# John\n{public}\n")
    assert run(directory, "recipients").output.split()[::2] == ["Jane:", "John:"]
    with pytest.raises(Refusal):
        store.read_values(directory, second)
    run(directory, "recipients", "--encrypt")
    assert store.read_values(directory, second) == values(directory)
    (directory / "recipients.txt").write_text(mine)
    run(directory, "recipients", "--encrypt")
    with pytest.raises(Refusal):
        store.read_values(directory, second)


def test_nobody_locks_himself_out(directory: Path) -> None:
    public = store.new_identity(directory / "second.txt")
    (directory / "recipients.txt").write_text(f"# John\n{public}\n")
    result = run(directory, "recipients", "--encrypt")
    assert "lock you out" in str(result.exception)
    assert values(directory)
