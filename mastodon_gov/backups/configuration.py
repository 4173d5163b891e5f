"""The second part of the backup set: the instance directory, encrypted to its recipients, in the locked bucket."""

from __future__ import annotations

import hmac
import io
import tarfile
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import md5, sha256
from pathlib import Path

import pyrage

from mastodon_gov.backups.manifest import names
from mastodon_gov.errors import Refusal
from mastodon_gov.instance import Instance, Secrets
from mastodon_gov.secrets.age import recipients
from mastodon_gov.storage.client import connect, reached, sentences

PREFIX, SUFFIX = "configuration/", ".tar.age"
LARGEST = 1 << 20
IDENTITY = b"AGE-SECRET-KEY-"
# What verbs write beside the configuration; it is kept elsewhere.
RESULTS = {"audit", "evidence", "export", "reports", "drills"}


def files(directory: Path) -> Iterator[tuple[str, bytes]]:
    """What is kept: name and content of every file that is not hidden, not large, and opens nothing itself."""
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        parts = path.relative_to(directory).parts
        hidden = any(part.startswith((".", "__pycache__")) for part in parts) or parts[0] in RESULTS
        if hidden or not path.is_file() or path.stat().st_size > LARGEST:
            continue
        content = path.read_bytes()
        if IDENTITY not in content:
            yield name, content


def digest(directory: Path, cipher_pass: str) -> str:
    """Sixteen hex digits that change with any name or content, and say nothing to who lacks the cipher pass."""
    mac = hmac.new(cipher_pass.encode(), b"configuration", sha256)
    for name, content in files(directory):
        mac.update(f"\0{len(name)} {name} {len(content)}\0".encode() + content)
    return mac.hexdigest()[:16]


def packed(directory: Path) -> bytes:
    """The tar, readable by everybody in recipients.txt."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files(directory):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o600
            tar.addfile(entry, io.BytesIO(content))
    keys = [pyrage.x25519.Recipient.from_str(key) for _, key in recipients(directory)]
    encrypted: bytes = pyrage.encrypt(buffer.getvalue(), keys)
    return encrypted


def unpacked(encrypted: bytes, identities: list[pyrage.x25519.Identity]) -> dict[str, bytes]:
    """Files of an encrypted configuration by name. Raises Refusal where no identity fits."""
    try:
        text = pyrage.decrypt(encrypted, identities)
    except pyrage.DecryptError as error:
        raise Refusal(
            f"The configuration in the backup bucket cannot be decrypted with this age identity ({error}). "
            "Use the identity of somebody who was in recipients.txt when it was made."
        ) from None
    found = {}
    with tarfile.open(fileobj=io.BytesIO(text)) as tar:
        for entry in tar:
            if entry.isfile() and (stream := tar.extractfile(entry)):
                found[entry.name] = stream.read()
    return found


def newest(instance: Instance, secrets: Secrets) -> str | None:
    """Key of the newest configuration in the bucket, or None. Raises Refusal: the service."""
    bucket = instance.object_storage.backup_bucket
    with reached(instance) as bundle, sentences(instance, "backups", bucket):
        found = names(connect(instance, secrets.object_storage.backups, bundle), bucket, PREFIX)
    return found[-1] if found else None


def is_kept(instance: Instance, secrets: Secrets, directory: Path) -> bool:
    """Whether the newest configuration in the bucket is this directory's."""
    known = newest(instance, secrets) or ""
    return known.endswith(f"-{digest(directory, secrets.backups.cipher_pass.get_secret_value())}{SUFFIX}")


def keep(instance: Instance, secrets: Secrets, directory: Path) -> str:
    """Upload this directory's configuration and return its key. Raises Refusal: the service."""
    bucket, body = instance.object_storage.backup_bucket, packed(directory)
    known = digest(directory, secrets.backups.cipher_pass.get_secret_value())
    key = f"{PREFIX}{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{known}{SUFFIX}"
    # A bucket with object lock demands a checksum.
    checksum = b64encode(md5(body, usedforsecurity=False).digest()).decode()
    with reached(instance) as bundle, sentences(instance, "backups", bucket):
        client = connect(instance, secrets.object_storage.backups, bundle)
        client.put_object(Bucket=bucket, Key=key, Body=body, ContentMD5=checksum)
    return key
