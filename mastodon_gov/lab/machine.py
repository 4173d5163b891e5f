"""One machine of a lab: made, started, spoken to, stopped, killed."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mastodon_gov.errors import Refusal
from mastodon_gov.lab import cgroups, network
from mastodon_gov.lab.starter import starter
from mastodon_gov.lab.state import Places, locked

BOOT_SECONDS = 90.0
STOP_SECONDS = 60.0

Result = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Machine:
    """A machine that exists on disk; whether it runs is asked of the kernel each time, never remembered."""

    places: Places
    number: int
    name: str
    index: int
    volatile: bool
    lowers: tuple[Path, ...]

    @classmethod
    def from_record(cls, places: Places, number: int, record: dict[str, Any]) -> Machine:
        """From the content of machine.json."""
        spec = record["spec"]
        lowers = tuple(Path(p) for p in record["lowers"])
        return cls(places, number, spec["name"], spec["index"], spec["volatile"], lowers)

    @property
    def id(self) -> str:
        """Short, because the kernel allows 15 characters for `vb-<id>`."""
        return f"mfg{self.number}-{self.index}"

    @property
    def interface(self) -> str:
        """The machine's interface on the host's bridge."""
        return f"vb-{self.id}"

    @property
    def address4(self) -> str:
        """IPv4 address."""
        return network.address4(self.number, self.index)

    @property
    def address6(self) -> str:
        """IPv6 address."""
        return network.address6(self.number, self.index)

    @property
    def directory(self) -> Path:
        """Holds upper, work, root (the overlay's parts), console.log and the host key."""
        return self.places.machines / self.name

    @property
    def group(self) -> Path | None:
        """The machine's control group while it runs."""
        return next((g for g in starter().groups(self.id) if cgroups.populated(g)), None)

    @property
    def state(self) -> str:
        """`running`, `frozen` or `stopped`."""
        group = self.group
        if group is None:
            return "stopped"
        return "frozen" if cgroups.frozen(group) else "running"

    @property
    def leader(self) -> int | None:
        """Process number, on the host, of the machine's systemd."""
        for group in starter().groups(self.id):
            for scope in (*group.glob("payload/init.scope"), *group.glob("boot-*/payload/init.scope")):
                with suppress(OSError):  # the machine ends while we look
                    if numbers := (scope / "cgroup.procs").read_text().split():
                        return int(numbers[0])
        return None

    def start(self, *, wait: bool = True) -> None:
        """Start, and wait until SSH answers; a running machine stays as it is."""
        with locked(self.directory / "lock"):
            if self.group is not None:
                return
            self._sweep()
            form = starter()
            lowers = ":".join(str(p) for p in self.lowers)
            durability = "volatile" if self.volatile else "durable"
            arguments = [self.id, self.name, lowers, str(self.directory), durability, form.register]
            form.start(self.id, [*arguments, network.bridge(self.number)], self.directory / "console.log")
        if wait:
            self.wait_ssh()

    def wait_ssh(self) -> None:
        """Wait until root can sign in; refuse with the last console line when that does not come."""
        cgroups.wait_until(
            lambda: self.answers() or self.group is None,
            BOOT_SECONDS,
            f"machine {self.name} did not answer on {self.address4} port 22; see {self.directory}/console.log",
        )
        if self.group is None:
            last = (self.directory / "console.log").read_text(errors="replace").strip().splitlines()[-1:]
            raise Refusal(f"machine {self.name} ended while starting: {''.join(last)} ({self.directory}/console.log)")

    def answers(self) -> bool:
        """Whether an SSH server answers within seconds; says nothing about who may sign in."""
        try:
            with socket.create_connection((self.address4, 22), timeout=2) as connection:
                connection.settimeout(5)
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def stop(self) -> None:
        """Shut down in order, as by a power button; nothing to do when it is stopped."""
        group, leader = self.group, self.leader
        if group is not None and leader is not None:
            cgroups.freeze(group, False)
            os.kill(leader, signal.SIGRTMIN + 4)
            cgroups.wait_until(
                lambda: not cgroups.populated(group),
                STOP_SECONDS,
                f"machine {self.name} did not shut down; end it with kill",
            )
        self._sweep()

    def kill(self) -> None:
        """End every process of the machine at once, like a cable pulled (but the disk cache survives)."""
        self._sweep()

    def _sweep(self) -> None:
        """Remove whatever is left of earlier starts: processes, groups, SSH sockets, the interface."""
        for group in starter().groups(self.id):
            cgroups.kill(group)
        for control in self.places.sockets.glob(f"*@{self.name}"):
            close_socket(self.places, control)
        subprocess.run(["ip", "link", "del", self.interface], capture_output=True, check=False)

    def destroy(self) -> None:
        """Kill the machine and remove its files."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def freeze(self) -> None:
        """Stop the machine's processes where they are: it answers nothing, like a hung host."""
        cgroups.freeze(self._running(), True)

    def thaw(self) -> None:
        """Let a frozen machine go on."""
        cgroups.freeze(self._running(), False)

    def _running(self) -> Path:
        group = self.group
        if group is None:
            raise Refusal(f"machine {self.name} is stopped. Start it with `mastodon-gov lab up`.")
        return group

    def ssh(  # noqa: PLR0913 - each is an everyday choice of a test
        self,
        command: Sequence[str] | str,
        *,
        stdin: str | None = None,
        check: bool = True,
        user: str = "root",
        options: Sequence[str] = (),
        timeout: float | None = None,
    ) -> Result:
        """Run a command (list) or a shell script (string) over SSH; `timeout` in seconds.

        Connections are shared per user for a minute. To prove that signing in works (or no longer does),
        add `options=["-o", "ControlPath=none"]`. Secrets go to `stdin`, never into the command.
        """
        remote = command if isinstance(command, str) else shlex.join(command)
        argv = ["ssh", "-F", str(self.places.ssh_config), "-l", user, *options, self.name, "--", remote]
        return finish(argv, stdin, check, timeout)

    def exec(self, command: Sequence[str] | str, *, stdin: str | None = None, check: bool = True) -> Result:
        """Run a command or script as root from the host, also where SSH is closed or broken."""
        inside = ["bash", "-c", command] if isinstance(command, str) else list(command)
        return finish([*self.enter(), *inside], stdin, check, None)

    def enter(self) -> list[str]:
        """The command prefix that enters the machine from the host."""
        self._running()
        leader = self.leader
        if leader is None:
            raise Refusal(f"machine {self.name} is still starting. Try again in a moment.")
        clean = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "HOME=/root"]
        return ["nsenter", "--all", f"--target={leader}", "--", *clean]


def load_machine(places: Places, number: int, name: str) -> Machine:
    """One machine; refuse when the lab has none of this name."""
    path = places.machine_record(name)
    if not path.exists():
        known = ", ".join(sorted(p.parent.name for p in places.machines.glob("*/machine.json")))
        raise Refusal(f"lab {places.name!r} has no machine {name!r}; it has: {known or 'none'}.")
    return Machine.from_record(places, number, json.loads(path.read_text()))


def load_machines(places: Places, number: int) -> list[Machine]:
    """All machines of a lab, in the order of their addresses."""
    names = [p.parent.name for p in places.machines.glob("*/machine.json")]
    return sorted((load_machine(places, number, n) for n in names), key=lambda m: m.index)


def finish(argv: Sequence[str], stdin: str | None, check: bool, timeout: float | None) -> Result:
    """Run to the end; with `check`, a failure carries the program's error text as a note."""
    source = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    done: Result = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False, **source)
    if check and done.returncode:
        failure = subprocess.CalledProcessError(done.returncode, list(argv), done.stdout, done.stderr)
        failure.add_note(f"stdout: {done.stdout[-2000:]}\nstderr: {done.stderr[-2000:]}")
        raise failure
    return done


def close_socket(places: Places, control: Path) -> None:
    """End a shared SSH connection, whose machine is gone or about to go."""
    command = ["ssh", "-F", str(places.ssh_config), "-O", "exit", "-o", f"ControlPath={control}", "any"]
    subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    control.unlink(missing_ok=True)
