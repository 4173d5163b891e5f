"""age, through pyrage: who may read, with which identity, and files that only their owner can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pyrage

from mastodon_gov.errors import Refusal, WrongUsage

RECIPIENTS = "recipients.txt"


def encrypt(directory: Path, text: str) -> bytes:
    """The text, readable by everybody in recipients.txt, as lines of ASCII."""
    keys = [pyrage.x25519.Recipient.from_str(key) for _, key in recipients(directory)]
    encrypted: bytes = pyrage.encrypt(text.encode(), keys, armored=True)
    return encrypted


def decrypt(directory: Path, path: Path, identity: Path) -> str:
    """The text of an encrypted file. Raises WrongUsage where the identity does not fit or the file is damaged."""
    keys = identities(identity)
    try:
        text: str = pyrage.decrypt(path.read_bytes(), keys).decode()
    except (pyrage.DecryptError, UnicodeDecodeError) as error:
        who = ", ".join(name for name, _ in recipients(directory))
        raise WrongUsage(
            f"{path} cannot be decrypted with {identity} ({error}). {RECIPIENTS} names {who}. Use the identity of one "
            "of them (MASTODON_GOV_IDENTITY), or ask one of them to add you: `mastodon-gov secrets recipients --help`."
        ) from None
    return text


def recipients(directory: Path) -> list[tuple[str, str]]:
    """Names and public keys of recipients.txt: a line `# name`, then a line `age1…`."""
    path = directory / RECIPIENTS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise WrongUsage(
            f"{path} cannot be read ({error.strerror}). Write a line `# name` and a line `age1…` for each person."
        ) from None
    found: list[tuple[str, str]] = []
    faults, name = [], ""
    for number, line in enumerate(map(str.strip, lines), 1):
        if line.startswith("#"):
            name = line.lstrip("# ")
        elif line:
            faults += _recipient_faults(f"{RECIPIENTS}, line {number}", line, name, found)
            found.append((name, line))
            name = ""
    if not found:
        faults.append(f"{RECIPIENTS}: found nobody. Write a line `# name` and a line `age1…` for each person.")
    if faults:
        raise WrongUsage("\n".join(faults))
    return found


def _recipient_faults(where: str, key: str, name: str, before: list[tuple[str, str]]) -> list[str]:
    faults = []
    if key.upper().startswith("AGE-SECRET-KEY"):
        todo = "Remove it from this file and make a new one: it must count as known."
        return [f"{where}: found a secret key. Allowed: public keys (age1…). {todo}"]
    try:
        pyrage.x25519.Recipient.from_str(key)
    except pyrage.RecipientError:
        faults.append(
            f"{where}: found a key that age cannot read. Allowed: age1… as age-keygen prints it. Copy it again."
        )
    if not name:
        faults.append(
            f"{where}: found a key without a name. Allowed: a line `# name` above each key. Add whose key it is."
        )
    if key in {other for _, other in before}:
        faults.append(f"{where}: found a key a second time. Allowed: each key once. Remove one of the two.")
    return faults


def identities(path: Path) -> list[pyrage.x25519.Identity]:
    try:
        mode, text = path.stat().st_mode, path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise WrongUsage(
            f"The age identity {path} cannot be read. Put it there, name another file in MASTODON_GOV_IDENTITY, or ask "
            f"a person of {RECIPIENTS}."
        ) from None
    if stat.S_IMODE(mode) & 0o077:
        raise WrongUsage(
            f"{path} has mode {stat.S_IMODE(mode):04o}; an identity must be readable by its owner alone. "
            f"Run: chmod 600 {path}"
        )
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    try:
        found = [pyrage.x25519.Identity.from_str(line) for line in lines]
    except pyrage.IdentityError:
        found = []
    if not found:
        raise WrongUsage(f"{path} is not an age identity. Allowed: lines AGE-SECRET-KEY-1…, as age-keygen writes them.")
    return found


def new_identity(path: Path) -> str:
    """Make an age identity, 0600, and return its public key. Raises Refusal if the file exists."""
    if path.exists():
        raise Refusal(f"{path} exists. It opens secrets, so it is never replaced; move it away first.")
    identity = pyrage.x25519.Identity.generate()
    public = str(identity.to_public())
    put_private(path, f"# public key: {public}\n{identity}\n".encode())
    return public


def put_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, beside the old one, then rename it into place."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
