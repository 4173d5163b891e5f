"""What the host must offer before a lab can start; each gap is a sentence, and nothing has been changed yet."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from mastodon_gov.errors import Refusal
from mastodon_gov.lab import cgroups

# Debian package, and a program of it that we start (the keyring has none).
PACKAGES = {
    "systemd-container": "systemd-nspawn",
    "mmdebstrap": "mmdebstrap",
    "nftables": "nft",
    "iproute2": "ip",
    "zstd": "zstd",
    "openssh-client": "ssh",
    "debian-archive-keyring": "/usr/share/keyrings/debian-archive-keyring.gpg",
}
INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
INOTIFY_INSTANCES = 1024
BYTES_PER_MACHINE = 3 * 1000**3


def missing_packages() -> list[str]:
    """The Debian packages a lab needs and this host lacks, found by what they install."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"  # a plain user's PATH may lack nft
    return [
        package
        for package, proof in PACKAGES.items()
        if not (Path(proof).exists() if proof.startswith("/") else shutil.which(proof, path=path))
    ]


def check_host() -> None:
    """Refuse when this user or this host cannot start machines."""
    if os.geteuid() != 0:
        raise Refusal(
            "the lab needs root, because it mounts file systems and makes network interfaces; this is user id "
            f"{os.geteuid()}. Run it with sudo, or run only the tests that need no machines (`make unit`)."
        )
    if missing := missing_packages():
        names = " ".join(missing)
        raise Refusal(f"the lab needs Debian packages that are missing here: {names}. Run: apt-get install {names}")
    _check_kernel()


def _check_kernel() -> None:
    if "overlay" not in Path("/proc/filesystems").read_text().split():
        raise Refusal(
            "this kernel has no overlayfs (not in /proc/filesystems), which every lab machine needs. "
            "Load it with `modprobe overlay`, or use another host."
        )
    if not (cgroups.root() / "cgroup.procs").exists():
        raise Refusal(
            f"cgroup v2 is not mounted in {cgroups.root()}, and without it machines cannot be ended safely. "
            "Boot the host with systemd.unified_cgroup_hierarchy=1, or use another host."
        )


def raise_inotify_limit() -> str | None:
    """Let root have enough inotify instances; say what was changed, if anything.

    A machine needs about ten, Linux allows a user 128, and all machines count as one user. When they run out,
    machines end while they start, or come up with failed units.
    """
    before = INOTIFY.read_text().strip()
    if int(before) >= INOTIFY_INSTANCES:
        return None
    INOTIFY.write_text(str(INOTIFY_INSTANCES))
    return f"raised fs.inotify.max_user_instances from {before} to {INOTIFY_INSTANCES} until the host restarts"


def check_disk(state_dir: Path, new_machines: int) -> None:
    """Refuse when the place for machines cannot hold them."""
    state_dir.mkdir(parents=True, exist_ok=True)
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", str(state_dir)], capture_output=True, text=True, check=True
    ).stdout.strip()
    if kind == "overlayfs":
        raise Refusal(
            f"{state_dir} is itself on an overlay file system, which cannot hold overlays. "
            "Give another place with --state-dir (in a container: a volume)."
        )
    free = shutil.disk_usage(state_dir).free
    if free < new_machines * BYTES_PER_MACHINE:
        raise Refusal(
            f"{state_dir} has {free / 1000**3:.1f} GB free; {new_machines} new machines need "
            f"{new_machines * BYTES_PER_MACHINE / 1000**3:.0f} GB (3 GB each). Free some, or give another place "
            "with --state-dir."
        )
