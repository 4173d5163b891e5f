"""The backups of the deployed demo: what the host says of them, and the bucket with each key."""

from __future__ import annotations

import json
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import md5
from typing import Any

from mastodon_gov import secrets
from mastodon_gov.instance import Instance, Secrets
from mastodon_gov.instance.load import load
from mastodon_gov.inventory import identity_path
from mastodon_gov.storage.client import connect, reached
from tests.lab.deployed import LIB, Deployed, wait_for

BUCKET = "social-backups"
PGBACKREST = "cd / && runuser -u postgres -- pgbackrest --stanza=social --repo=1"


def known(at: Deployed) -> tuple[Instance, Secrets]:
    """The instance and its secrets."""
    return load(at.directory), secrets.read(at.directory, identity_path(at.directory))


@contextmanager
def bucket(at: Deployed, key: str = "backups") -> Iterator[Any]:
    """A client with one of the keys."""
    instance, values = known(at)
    with reached(instance) as bundle:
        yield connect(instance, getattr(values.object_storage, key), bundle)


def put(client: Any, key: str, body: bytes) -> None:
    """Write an object; a bucket with object lock demands its checksum."""
    checksum = b64encode(md5(body, usedforsecurity=False).digest()).decode()
    client.put_object(Bucket=BUCKET, Key=key, Body=body, ContentMD5=checksum)


def flipped(body: bytes) -> bytes:
    """The same, but for one bit in the middle."""
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]


def largest(client: Any, label: str) -> str:
    """Key of a backup's largest object, which is not its manifest."""
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix=f"pg/backup/social/{label}/")["Contents"]
    key: str = max((each for each in listed if "manifest" not in each["Key"]), key=lambda each: each["Size"])["Key"]
    return key


def status(at: Deployed) -> dict[str, Any]:
    """What the host says of its backups."""
    said: dict[str, Any] = json.loads(at.root(f"{LIB}/backup-status"))
    return said


def said(at: Deployed, words: str) -> bool:
    """Whether one of the problems has these words."""
    return any(words in sentence for sentence in status(at)["problems"])


def backup(at: Deployed, kind: str = "-incr") -> None:
    """A backup, as the timer makes it."""
    at.root(f"systemctl start mfg-backup{kind}.service")


def settled(at: Deployed, seconds: float = 400) -> None:
    """Wait until nothing is wrong with the backups any more."""
    wait_for(lambda: not status(at)["problems"], seconds, "backups in order")


def set_secret(at: Deployed, name: str, value: str) -> None:
    """As an operator does, on standard input."""
    words = [sys.executable, "-m", "mastodon_gov.cli", "--instance", str(at.directory), "secrets", "set", name]
    subprocess.run(words, input=value, text=True, check=True, capture_output=True)


@contextmanager
def unreachable(at: Deployed) -> Iterator[None]:
    """The store swallows what the host sends: no refusal, no answer."""
    addresses = known(at)[0].addresses["s3.world.test"]
    drops = [
        f"add rule inet hole o ip{'6' if each.version == 6 else ''} daddr {each} meta l4proto tcp drop"
        for each in addresses
    ]
    chain = "add chain inet hole o { type filter hook output priority -10; }"
    rules = "\n".join(["add table inet hole", chain, *drops, ""])
    at.root("nft -f -", stdin=rules)
    try:
        yield
    finally:
        at.root("nft delete table inet hole")
