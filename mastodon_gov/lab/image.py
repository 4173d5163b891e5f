"""The Debian 13 base that all machines share, and layers: packages or snapshots laid over it.

Both are lower directories of overlays and never change once they are in place: they are made beside their
final name and renamed. They are made anew every ISO week, for Debian's security updates.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from mastodon_gov.errors import Refusal
from mastodon_gov.lab.state import Places, locked, write_json

SUITE = "trixie"
# What a small Debian server has before we come. Not systemd-resolved: it takes over /etc/resolv.conf.
PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "openssh-server",
    "python3",
    "sudo",
    "iproute2",
    "nftables",
    "ca-certificates",
    "procps",
    "kmod",
    "udev",
)
# Keys and the machine id are removed, else all machines would be the same one.
HOOKS = (
    'rm -f "$1"/etc/ssh/ssh_host_*',
    'chroot "$1" systemctl enable systemd-networkd.service',
)


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def base_key(today: datetime.date | None = None) -> str:
    """The name of this week's base: packages, hooks, suite and ISO week decide it."""
    year, week, _ = (today or datetime.datetime.now(datetime.UTC).date()).isocalendar()
    return f"{year}w{week:02}-{_digest(SUITE, PACKAGES, HOOKS)}"


def layer_key(base: str, packages: Sequence[str]) -> str:
    """The name of the layer with these packages over this base; their order does not matter."""
    return f"{base.partition('-')[0]}-{_digest(base, sorted(set(packages)))}"


class Cache:
    """Bases and layers under one directory, shared by all labs of the same state directory."""

    def __init__(self, state_dir: Path) -> None:
        """`state_dir` is the directory that holds the labs."""
        self.root = state_dir / "cache"
        self.locks = state_dir / "locks"

    def base(self) -> Path:
        """This week's base directory; made when it is not there (25 to 50 s)."""
        directory = self.root / "bases" / base_key()
        with locked(self.locks / f".base-{directory.name}"):
            if not directory.is_dir():
                tarball = directory.with_name(directory.name + ".tar.zst")
                if not tarball.exists():
                    _build(tarball)
                _unpack(tarball, directory)
        return directory

    def layer_lock(self, name: str) -> AbstractContextManager[None]:
        """Hold this while a layer is made or replaced."""
        return locked(self.locks / f".layer-{name}")

    def has_layer(self, name: str) -> bool:
        """Whether the layer is complete."""
        return (self.layer(name) / "layer.json").exists()

    def layer(self, name: str) -> Path:
        """Where the layer of this name is (or will be)."""
        return self.root / "layers" / name

    def lowers(self, name: str) -> list[Path]:
        """The directories a machine made from this layer stands on, topmost first."""
        record = self.layer(name) / "layer.json"
        if not self.has_layer(name):
            known = sorted(p.parent.name for p in self.root.glob("layers/*/layer.json"))
            raise Refusal(
                f"there is no layer {name!r}; known layers: {', '.join(known) or 'none'}. "
                "Make it with `mastodon-gov lab snapshot MACHINE LAYER`."
            )
        return [self.layer(name) / "upper", *map(Path, json.loads(record.read_text())["lowers"])]

    def keep(self, upper: Path, name: str, lowers: Sequence[Path]) -> None:
        """Copy a stopped machine's upper directory into the cache, without what makes it that machine.

        And without when its timers ran: for a new machine they would be overdue, and all of them would run at once.
        """
        final = self.layer(name)
        draft = final.with_name(f".{name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        # cp, because shutil does not know the overlay's white-outs and trusted attributes
        subprocess.run(["cp", "-a", "--reflink=auto", str(upper), str(draft / "upper")], check=True)
        for pattern in ("etc/ssh/ssh_host_*", "var/lib/systemd/timers/stamp-*"):
            for path in (draft / "upper").glob(pattern):
                path.unlink()
        write_json(draft / "layer.json", {"lowers": [str(p) for p in lowers]})
        shutil.rmtree(final, ignore_errors=True)
        draft.rename(final)

    def prune(self, labs: Sequence[Places]) -> list[str]:
        """Remove bases and layers of earlier weeks on which nothing stands; return what was removed."""
        records = [r for lab in labs for r in lab.machines.glob("*/machine.json")]
        records += self.root.glob("layers/*/layer.json")
        used = {Path(p) for r in records for p in json.loads(r.read_text())["lowers"]}
        week = base_key().partition("-")[0]
        removed = []
        for path in (*self.root.glob("bases/*"), *self.root.glob("layers/*")):
            made = re.search(r"\d{4}w\d\d(?=-)", path.name)
            if made and made[0] != week and not used & {path, path / "upper"}:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                removed.append(f"image {path.name}")
        return removed


def _build(tarball: Path) -> None:
    """Run mmdebstrap with its own default sources, which include Debian's updates and security archives."""
    tarball.parent.mkdir(parents=True, exist_ok=True)
    draft = tarball.with_name("new-" + tarball.name)
    hooks = [f"--customize-hook={hook}" for hook in HOOKS]
    command = ["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(PACKAGES)}", *hooks]
    done = subprocess.run(
        [*command, SUITE, str(draft)], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        draft.unlink(missing_ok=True)
        tail = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise Refusal(f"mmdebstrap could not build the Debian base (is the archive reachable?):\n{tail}")
    draft.rename(tarball)


def _unpack(tarball: Path, directory: Path) -> None:
    draft = directory.with_name(f".{directory.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    extract = ["tar", "--zstd", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", str(tarball)]
    subprocess.run([*extract, "-C", str(draft)], check=True)
    # Empty means "not set, and not the first boot": systemd then makes an id and leaves the units as they are.
    (draft / "etc/machine-id").write_text("")
    (draft / "var/lib/dbus/machine-id").unlink(missing_ok=True)
    draft.rename(directory)
