"""Secrets: right alphabets, readable by the named people alone, and a value is never in a sentence, repr or log."""

from __future__ import annotations

import base64
import logging
import re
import stat
import traceback
from collections.abc import Callable
from pathlib import Path

import pyrage
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from mastodon_gov import secrets
from mastodon_gov.errors import Refusal
from mastodon_gov.secrets.age import encrypt, put_private
from mastodon_gov.secrets.store import to_text

SEEDED = "Seeded4711Secret"
GIVEN = {name: f"given{number}" for number, name in enumerate(secrets.GIVEN)}
ENCRYPTION = [
    f"mastodon.active_record_encryption_{name}" for name in ("primary_key", "deterministic_key", "key_derivation_salt")
]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with complete secrets for one identity, `identity.txt`."""
    public = secrets.new_identity(tmp_path / "identity.txt")
    (tmp_path / "recipients.txt").write_text(f"# Jane\n{public}\n")
    secrets.create(tmp_path, GIVEN)
    return tmp_path


def read(directory: Path) -> object:
    """Read with the identity beside the secrets."""
    return secrets.read(directory, directory / "identity.txt")


def put(directory: Path, text: str) -> None:
    """Encrypt a text as it is."""
    put_private(directory / "secrets.age", encrypt(directory, text))


def decoded(text: str) -> bytes:
    """URL-safe base64 without padding."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_made_values_have_the_alphabets_mastodon_needs() -> None:
    made = secrets.generate()
    assert re.fullmatch(r"[0-9a-f]{128}", made["mastodon.secret_key_base"])
    for name in ENCRYPTION:
        assert re.fullmatch(r"[A-Za-z0-9]{32}", made[name])
    assert len({made[name] for name in ENCRYPTION}) == 3
    assert len(decoded(made["backups.cipher_pass"])) >= 48
    assert len(decoded(made["redis.password"])) >= 32
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", value) for value in made.values())


def test_no_value_is_made_twice() -> None:
    first, second = secrets.generate(), secrets.generate()
    assert {name for name in first if first[name] == second[name]} == set(secrets.GIVEN)


def test_the_vapid_pair_belongs_together() -> None:
    made = secrets.generate()
    private, public = (decoded(made[f"mastodon.vapid_{part}_key"]) for part in ("private", "public"))
    assert (len(private), len(public), public[0]) == (32, 65, 4)
    key = ec.derive_private_key(int.from_bytes(private, "big"), ec.SECP256R1())
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public)
    point.verify(key.sign(b"message", ec.ECDSA(SHA256())), b"message", ec.ECDSA(SHA256()))


def test_written_secrets_are_read_and_belong_to_their_owner_alone(directory: Path) -> None:
    found = secrets.read(directory, directory / "identity.txt")
    assert found.object_storage.media.access_key.get_secret_value() == GIVEN["object_storage.media.access_key"]
    for name in ("secrets.age", "identity.txt"):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600
    assert found.redis.password.get_secret_value() not in (directory / "secrets.age").read_text()
    assert sorted(path.name for path in directory.iterdir()) == ["identity.txt", "recipients.txt", "secrets.age"]


def test_everybody_named_can_read_and_nobody_else(directory: Path) -> None:
    second, third = directory / "second.txt", directory / "third.txt"
    public = secrets.new_identity(second)
    secrets.new_identity(third)
    with (directory / "recipients.txt").open("a") as stream:
        stream.write(f"# John\n{public}\n")
    values = secrets.read_values(directory, directory / "identity.txt")
    secrets.write(directory, values)
    assert secrets.read_values(directory, second) == values
    with pytest.raises(Refusal, match=r"cannot be decrypted with .*third.txt.*names Jane, John"):
        secrets.read(directory, third)


def test_new_secrets_never_replace_old_ones(directory: Path) -> None:
    before = (directory / "secrets.age").read_bytes()
    with pytest.raises(Refusal, match="exists"):
        secrets.create(directory)
    with pytest.raises(Refusal, match="never replaced"):
        secrets.new_identity(directory / "identity.txt")
    assert (directory / "secrets.age").read_bytes() == before


def test_a_write_that_fails_leaves_the_old_file(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (directory / "secrets.age").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        secrets.write(directory, secrets.generate())
    assert (directory / "secrets.age").read_bytes() == before
    assert sorted(path.name for path in directory.iterdir()) == ["identity.txt", "recipients.txt", "secrets.age"]


def test_a_wider_identity_is_refused(directory: Path) -> None:
    (directory / "identity.txt").chmod(0o640)
    with pytest.raises(Refusal, match=r"mode 0640.*chmod 600"):
        read(directory)


@pytest.mark.parametrize("content", ["", "AGE-SECRET-KEY-1NOTREALLY\n", "age1notasecret\n"])
def test_a_file_that_is_no_identity_is_refused(directory: Path, content: str) -> None:
    (directory / "identity.txt").write_text(content)
    with pytest.raises(Refusal, match="is not an age identity") as refusal:
        read(directory)
    assert "NOTREALLY" not in str(refusal.value)


def test_missing_files_are_named(directory: Path) -> None:
    with pytest.raises(Refusal, match=r"nowhere.txt cannot be read.*MASTODON_GOV_IDENTITY"):
        secrets.read(directory, directory / "nowhere.txt")
    (directory / "secrets.age").unlink()
    with pytest.raises(Refusal, match=r"secrets.age does not exist.*init"):
        read(directory)


def test_a_damaged_file_is_refused(directory: Path) -> None:
    path = directory / "secrets.age"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(Refusal, match="cannot be decrypted"):
        read(directory)


def test_what_others_give_is_asked_for_by_name(tmp_path: Path) -> None:
    public = secrets.new_identity(tmp_path / "identity.txt")
    (tmp_path / "recipients.txt").write_text(f"# Jane\n{public}\n")
    secrets.create(tmp_path)
    with pytest.raises(Refusal) as refusal:
        read(tmp_path)
    lines = str(refusal.value).splitlines()
    assert len(lines) == len(secrets.GIVEN) == 8
    for name, line in zip(sorted(secrets.GIVEN), sorted(lines), strict=True):
        assert f", {name}:" in line
        assert f"mastodon-gov secrets set {name}" in line


@pytest.mark.parametrize("bad", list(" \t\n#'\"`$\\é\x7f"))
def test_no_value_can_break_a_reader_of_environment_files(directory: Path, bad: str) -> None:
    secrets.write(directory, secrets.generate() | GIVEN | {"mail.password": f"{SEEDED}{bad}x"})
    with pytest.raises(Refusal, match=r"mail\.password") as refusal:
        read(directory)
    assert SEEDED not in str(refusal.value)


@pytest.mark.parametrize(
    ("recipients", "says"),
    [
        ("", "found nobody"),
        ("age1qqqq\n", "cannot read"),
        ("{public}\n", "without a name"),
        ("# a\n{public}\n# b\n{public}\n", "second time"),
        ("# a\nAGE-SECRET-KEY-1" + SEEDED.upper() + "\n", "found a secret key"),
    ],
)
def test_wrong_recipients_are_named(directory: Path, recipients: str, says: str) -> None:
    public = str(pyrage.x25519.Identity.generate().to_public())
    before = (directory / "secrets.age").read_bytes()
    (directory / "recipients.txt").write_text(recipients.format(public=public))
    with pytest.raises(Refusal, match=says) as refusal:
        secrets.write(directory, secrets.generate())
    assert SEEDED.upper() not in str(refusal.value)
    assert (directory / "secrets.age").read_bytes() == before


def replaced(name: str, value: str) -> Callable[[str], str]:
    """Change one value in the text of the secrets."""
    return lambda _: to_text(secrets.generate() | GIVEN | {name: value})


LEAKS: dict[str, Callable[[str], str]] = {
    "short": replaced("redis.password", SEEDED),
    "wrong alphabet": replaced("mastodon.secret_key_base", SEEDED),
    "white space": replaced("mail.password", f"{SEEDED} {SEEDED}"),
    "another pair": replaced("mastodon.vapid_public_key", f"B{SEEDED}".ljust(87, "A")),
    "half a sign-in": lambda _: to_text(secrets.generate() | GIVEN | {"mail.login": "", "mail.password": SEEDED}),
    "twice the same": lambda _: to_text(
        secrets.generate() | GIVEN | {f"object_storage.{user}.secret_key": SEEDED for user in ("owner", "media")}
    ),
    "a reference": lambda text: text.replace("redis:", f"extra: *{SEEDED}\nredis:"),
    "an anchor": lambda text: text.replace("redis:", f"extra: &{SEEDED} 1\nredis:"),
    "a tag": lambda text: text.replace("redis:", f"extra: !{SEEDED} 1\nredis:"),
    "a tag handle": lambda text: text.replace("redis:", f"extra: !{SEEDED}!x 1\nredis:"),
    "an unknown key": lambda text: text.replace("redis:", f"{SEEDED}: 1\nredis:"),
    "an unknown inner key": lambda text: text.replace("  password:", f"  {SEEDED}: 1\n  password:", 1),
    "a key twice": lambda text: text.replace("redis:", f"{SEEDED}: 1\n{SEEDED}: 2\nredis:"),
    "no colon": lambda text: text.replace("redis:", f"{SEEDED}\nredis:"),
    "an open quote": lambda text: text.replace("redis:", f'extra: "{SEEDED}\nredis:'),
    "an escape": lambda text: text.replace("redis:", f'extra: "\\{SEEDED}"\nredis:'),
    "a list": lambda text: text.replace("redis:", f"redis: [{SEEDED}]\nother:"),
    "a control character": lambda text: text + f"\x07{SEEDED}",
    "another form": lambda text: text.replace("format: 1", f"format: {SEEDED}"),
    "only text": lambda _: SEEDED,
    "two documents": lambda text: f"{text}---\n{SEEDED}: 1\n",
}


@pytest.mark.parametrize("broken", LEAKS.values(), ids=LEAKS.keys())
def test_a_seeded_secret_is_in_no_error(
    directory: Path, broken: Callable[[str], str], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    put(directory, broken(to_text(secrets.generate() | GIVEN)))
    with pytest.raises(Refusal) as refusal:
        read(directory)
    said = "".join(traceback.format_exception(refusal.value))
    error: BaseException | None = refusal.value
    while error is not None:
        said += f"{error!s}{error!r}{error.args!r}"
        error = error.__cause__ or error.__context__
    captured = capsys.readouterr()
    assert SEEDED not in said + caplog.text + captured.out + captured.err
    assert "secrets.age" in str(refusal.value)


def test_a_seeded_secret_is_in_no_text_of_the_secrets(directory: Path) -> None:
    secrets.write(directory, secrets.generate() | GIVEN | {"mail.password": SEEDED})
    found = secrets.read(directory, directory / "identity.txt")
    assert found.mail.password.get_secret_value() == SEEDED
    texts = [f"{found!s}{found!r}{found.mail!r}{found.mail.password}", found.model_dump_json(), str(found.model_dump())]
    assert SEEDED not in "".join(texts)


def test_digits_stay_digits(directory: Path) -> None:
    """A password of digits keeps its zeros, also where a person writes it without quotes."""
    text = to_text(secrets.generate() | GIVEN | {"mail.password": "MARK"})
    put(directory, text.replace("MARK", "0123"))
    assert secrets.read(directory, directory / "identity.txt").mail.password.get_secret_value() == "0123"
