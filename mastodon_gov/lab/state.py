"""What a lab keeps on disk: its record, its lock, and one directory per machine.

A lab made by `lab up` belongs to nobody and stays until `lab down`. An ephemeral lab belongs to the process
that holds its lock: when that process dies, the kernel frees the lock and `lab reap` may remove the lab.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mastodon_gov.errors import Refusal

DEFAULT_STATE_DIR = Path("/var/tmp/mfg-lab")  # noqa: S108 - many GB, and it has to outlive a reboot
NAME = re.compile(r"[a-z][a-z0-9-]{0,29}")
LOCK_SECONDS = 3.0
RESERVED = {"cache", "locks"}
# Fixed, so that inventories and documentation can name the demo's addresses.
KNOWN_INDEXES = {"social": 11, "world": 12, "outside": 13, "builder": 14}


@dataclass(frozen=True)
class MachineSpec:
    """What the caller wants: `layer_packages` are in the machine before its first boot.

    `dns` holds resolver addresses or names of machines of the same lab; empty means the host's resolvers.
    `volatile` machines never wait for the disk: faster, and wrong for tests of durability.
    `layer` is the name of a snapshot to start from.
    """

    name: str
    layer_packages: tuple[str, ...] = ()
    volatile: bool = True
    index: int | None = None
    dns: tuple[str, ...] = ()
    layer: str | None = None


@dataclass(frozen=True)
class LabRecord:
    """`number` is the N of 10.89.N.0/24. `ready` becomes true when the lab was complete for the first time."""

    number: int
    ephemeral: bool
    ready: bool


@dataclass(frozen=True)
class Places:
    """Where the files of one lab are."""

    state_dir: Path
    name: str

    @property
    def root(self) -> Path:
        return self.state_dir / self.name

    @property
    def record(self) -> Path:
        return self.root / "lab.json"

    @property
    def machines(self) -> Path:
        return self.root / "machines"

    def machine_record(self, name: str) -> Path:
        """Exists when the machine's files are complete."""
        return self.machines / name / "machine.json"

    @property
    def ssh_config(self) -> Path:
        return self.root / "ssh_config"

    @property
    def known_hosts(self) -> Path:
        return self.root / "known_hosts"

    @property
    def root_key(self) -> Path:
        return self.root / "root_key"

    @property
    def sockets(self) -> Path:
        return self.root / "cm"

    @property
    def lock(self) -> Path:
        return self.state_dir / "locks" / self.name


def check_name(name: str, what: str) -> str:
    """Return the name, or refuse it: it becomes a directory, a host name and part of an ssh_config."""
    if NAME.fullmatch(name) and name not in RESERVED:
        return name
    raise Refusal(
        f"{what} {name!r} is not usable: lower-case letters, digits and '-', first a letter, "
        f"at most 30 characters, not one of {', '.join(sorted(RESERVED))}. Choose another name."
    )


def write_json(path: Path, value: Any) -> None:
    """Write atomically: a reader sees the old file or the new one, also after a crash."""
    draft = path.with_name(path.name + ".new")
    draft.write_text(json.dumps(value, indent=1) + "\n")
    draft.rename(path)


def load_record(places: Places) -> LabRecord | None:
    """The lab's record, or None where no lab of this name exists."""
    try:
        return LabRecord(**json.loads(places.record.read_text()))
    except FileNotFoundError:
        return None


def save_record(places: Places, record: LabRecord) -> None:
    """Write the lab's record."""
    write_json(places.record, asdict(record))


def all_labs(state_dir: Path) -> list[Places]:
    """Every lab of this state directory, also half-made ones."""
    if not state_dir.is_dir():
        return []
    found = (d.name for d in state_dir.iterdir() if d.is_dir() and d.name not in RESERVED)
    return [Places(state_dir, name) for name in sorted(found)]


def try_lock(path: Path, *, wait: bool = False) -> int | None:
    """Take an exclusive lock; return the file descriptor, or None when another process holds it.

    Children do not inherit it (Python opens files close-on-exec), so machines never keep a lab locked.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever removed the lab removed the lock file too: then we hold a file nobody else can find.
            if path.exists() and os.fstat(fd).st_ino == path.stat().st_ino:
                os.ftruncate(fd, 0)
                os.write(fd, f"{os.getpid()}\n".encode())
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        os.close(fd)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock for a short piece of work; wait for it."""
    fd = try_lock(path, wait=True)
    assert fd is not None  # noqa: S101 - waiting never returns None
    try:
        yield
    finally:
        os.close(fd)


def lock_lab(places: Places) -> int:
    """Take the lab's lock or refuse with the holder's process number.

    Waits a little, because `reap` of another process holds each lock for a moment to look.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    while (fd := try_lock(places.lock)) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    if fd is None:
        holder = places.lock.read_text().strip() or "unknown"
        raise Refusal(
            f"lab {places.name!r} is in use by process {holder} ({places.lock}). "
            "Wait until it has finished, or use another lab with --lab NAME."
        )
    return fd
