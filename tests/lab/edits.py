"""Changing an instance's files for the length of a test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.deployed import Deployed


@contextmanager
def edited(instance: Deployed, old: str, new: str, *, file: str = "instance.yaml") -> Iterator[None]:
    """Replace a piece of a file of the instance directory, and put the file back. Deploying is the caller's part."""
    path = instance.directory / file
    before = path.read_text()
    assert before.count(old) == 1, f"{file} holds {old!r} {before.count(old)} times"
    path.write_text(before.replace(old, new))
    try:
        yield
    finally:
        path.write_text(before)


def keypair(directory: Path, name: str) -> tuple[Path, str]:
    """A new SSH key: its private file and its public line."""
    key = directory / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(key)], check=True)
    return key, key.with_suffix(".pub").read_text().strip()


def sign_in(instance: Deployed, key: Path, user: str, *words: str) -> list[str]:
    """Command line of a new SSH connection, never a shared one."""
    known = f"UserKnownHostsFile={instance.directory / 'known_hosts'}"
    options = ["BatchMode=yes", "ConnectTimeout=3", "IdentitiesOnly=yes", "ControlPath=none", "LogLevel=ERROR", known]
    flags = [word for option in options for word in ("-o", option)]
    return ["ssh", *flags, "-i", str(key), f"{user}@{instance.machine().address4}", *words]


def may_sign_in(instance: Deployed, key: Path, user: str) -> bool:
    """Whether a new connection opens and a command runs."""
    return subprocess.run(sign_in(instance, key, user, "true"), capture_output=True, check=False).returncode == 0
