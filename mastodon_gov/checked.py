"""What the services were last asked with and passed: a deploy that changes none of it need not ask them again."""

from __future__ import annotations

import contextlib
from hashlib import sha256
from pathlib import Path

from mastodon_gov.instance import Instance

# Beside the files it speaks of. Hidden, so that no backup keeps it; whoever deploys from elsewhere asks once more.
MARK = ".checked"
# What `check` tries besides the hosts themselves. The names of the instance are not among it: those that must not
# change are refused by the database's role, with the reason.
ASKED = {"domain": {"media"}, "owner": {"address"}} | dict.fromkeys(
    ("network", "certificates", "object_storage", "mail", "addresses", "trusted_ca"), True
)
FILES = ("secrets.age", "inventory.py")


def is_checked(instance: Instance, directory: Path) -> bool:
    """Whether these settings, keys and hosts have passed the whole check before."""
    with contextlib.suppress(OSError):
        return (directory / MARK).read_bytes() == _digest(instance, directory)
    return False


def keep_checked(instance: Instance, directory: Path) -> None:
    """They have passed. Where nothing can be written, the next deploy asks once more."""
    with contextlib.suppress(OSError):
        (directory / MARK).write_bytes(_digest(instance, directory))


def _digest(instance: Instance, directory: Path) -> bytes:
    """Changes with anything that is asked; says nothing of the secrets, which it knows only encrypted."""
    asked = instance.model_dump_json(include=ASKED).encode()
    parts = [asked, *((directory / name).read_bytes() for name in FILES)]
    return sha256(b"\0".join(parts)).hexdigest().encode()
