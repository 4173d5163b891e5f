"""The two ways to start a machine: under a systemd host as a unit, elsewhere in a control group we make."""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path
from typing import Protocol

from mastodon_gov.lab import cgroups

HERE = Path(__file__).parent
BOOT = str(HERE / "boot.sh")


class Starter(Protocol):
    """One form of starting machines; killing and freezing work on the groups, whatever the form."""

    register: str

    def start(self, machine_id: str, boot_arguments: list[str], log: Path) -> None:
        """Start the machine and return at once."""

    def groups(self, pattern: str) -> list[Path]:
        """The control groups of the machines whose id matches the glob pattern."""


class CgroupStarter:
    """For hosts whose PID 1 is not systemd (a container, a build machine)."""

    register = "no"

    def start(self, machine_id: str, boot_arguments: list[str], log: Path) -> None:
        """Start the keeper in a fresh group: a group that was once killed must not be used again."""
        group = cgroups.root() / "mfg-lab" / f"{machine_id}@{secrets.token_hex(4)}"
        # Made here, not by the keeper: if the lab is removed now, a keeper on its way finds no group and gives up.
        (group / "keeper").mkdir(parents=True)
        command = [str(HERE / "keep.sh"), str(group), BOOT, *boot_arguments]
        with log.open("ab") as out:
            keeper = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd="/",
                start_new_session=True,
            )
        cgroups.wait_until(
            lambda: cgroups.populated(group) or keeper.poll() is not None, 10, f"{group} stayed empty; see {log}"
        )

    def groups(self, pattern: str) -> list[Path]:
        """A machine has one group; more only for a moment, when an old one is being removed."""
        return sorted((cgroups.root() / "mfg-lab").glob(f"{pattern}@*"))


class SystemdStarter:
    """For hosts with systemd as PID 1; tests/lab/test_lab_systemd.py runs it inside a lab machine."""

    register = "yes"

    def start(self, machine_id: str, boot_arguments: list[str], log: Path) -> None:
        """A transient unit, with the settings of systemd's own systemd-nspawn@.service."""
        properties = [
            "Delegate=yes",
            "KillMode=mixed",
            "Type=notify",
            "RestartForceExitStatus=133",
            "SuccessExitStatus=133",
            f"StandardOutput=append:{log}",
            f"StandardError=append:{log}",
        ]
        flags = [f"--property={p}" for p in properties]
        isolated = ["unshare", "-m", "--propagation", "private", BOOT, *boot_arguments]
        subprocess.run(["systemd-run", "--quiet", "--collect", f"--unit={machine_id}", *flags, *isolated], check=True)

    def groups(self, pattern: str) -> list[Path]:
        """systemd gives each unit its own group."""
        return sorted((cgroups.root() / "system.slice").glob(f"{pattern}.service"))


def starter() -> Starter:
    """The form that fits this host."""
    return SystemdStarter() if Path("/run/systemd/system").is_dir() else CgroupStarter()
