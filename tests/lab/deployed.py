"""The demo instance, deployed into a lab of its own: what most lab tests ask questions of."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mastodon_gov.lab.demo import REPOSITORY, Demo
from mastodon_gov.lab.machine import Machine

T = TypeVar("T")
COMMITTED = ("instance.yaml", "organisations.yaml", "inventory.py")
WEB, MEDIA = "social.agency.test", "files.social.agency.test"
# Debian's wrapper /usr/bin/psql works only for who may read the cluster's files.
PSQL = "/usr/lib/postgresql/17/bin/psql"
LIB = "/usr/local/lib/mastodon-gov"


def copy_instance(directory: Path) -> Path:
    """A fresh copy of the demo's committed files."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in COMMITTED:
        shutil.copy(REPOSITORY / "inventories/demo" / name, directory)
    shutil.copytree(REPOSITORY / "inventories/demo/server", directory / "server", dirs_exist_ok=True)
    return directory


@dataclass(frozen=True)
class Deployed:
    """A deployed demo. Tests that change it put it back by `deploy` before they end."""

    demo: Demo

    @property
    def directory(self) -> Path:
        """The instance directory; its files may be edited by a test that restores them."""
        return self.demo.directory

    def machine(self, name: str = "social") -> Machine:
        """A machine of the lab."""
        return self.demo.lab.machine(name)

    def cli(self, *words: str, check: bool = True, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run `mastodon-gov` on this instance, without a terminal."""
        command = [sys.executable, "-m", "mastodon_gov.cli", "--instance", str(self.directory), *words]
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, (
            f"{words}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
        return done

    def deploy(self) -> dict[str, Any]:
        """Deploy; returns the JSON report."""
        report: dict[str, Any] = json.loads(self.cli("deploy", "--json").stdout)
        return report

    def root(self, script: str, *, stdin: str | None = None, check: bool = True) -> str:
        """Standard output of a shell script as root on `social`, past SSH and firewall."""
        done = self.machine().exec(["sh", "-c", script], stdin=stdin, check=check)
        return str(done.stdout)

    def sql(self, text: str, *, user: str = "postgres", role: str | None = None) -> str:
        """Run SQL over the socket as an operating-system user; returns unaligned rows."""
        who = f"-U {role}" if role else ""
        return self.root(
            f"runuser -u {user} -- {PSQL} -qtAX {who} -v ON_ERROR_STOP=1 -d mastodon_production -f - 2>&1", stdin=text
        )

    def curl(self, url: str, *options: str, machine: str = "outside", check: bool = False) -> str:
        """curl on a machine that trusts the lab's authority; by default the stranger's. Prints `body\\nSTATUS`."""
        self._trust(machine)
        words = [
            "curl",
            "-sS",
            "--max-time",
            "30",
            "--cacert",
            "/root/lab-ca.pem",
            "-w",
            "\\n%{http_code}",
            *options,
            url,
        ]
        done = self.machine(machine).exec(words, check=check)
        return str(done.stdout) + str(done.stderr)

    def status_of(self, url: str, *options: str, machine: str = "outside") -> int:
        """HTTP status of a request; 0 where no answer came."""
        return int(self.curl(url, "-o", "/dev/null", *options, machine=machine).split("\n")[1] or 0)

    def _trust(self, machine: str) -> None:
        text = (self.directory / "lab-ca.pem").read_text()
        self.machine(machine).exec(["sh", "-c", "cat > /root/lab-ca.pem"], stdin=text)


def wait_for(condition: Callable[[], T | None], seconds: float, what: str) -> T:
    """The first true value of a condition; fails after this many seconds."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.2)
    return found


def files_of(machine: Machine) -> dict[str, str]:
    """Every file of a machine that a write would touch: path with size, owner, mode, change time and, for small ones,
    digest. Logs, what systemd keeps of sessions and what our timers write change by themselves and are left out."""
    script = (
        "find / -xdev \\( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /var/log -o "
        "-path /var/lib/postgresql -o -path /var/lib/redis -o -path /var/spool/pgbackrest -o -path /var/cache/nginx "
        "-o -path /var/lib/chrony -o -path '/var/lib/mastodon-gov/sweep*' "
        "-o -path /var/lib/mastodon-gov/backup-status.json -o -path /var/lib/mastodon-gov/manifests \\) -prune "
        "-o -type f -printf '%p|%s %U %m %C@\\n'; "
        "ls -lA --time-style=full-iso /run/mastodon-gov 2>/dev/null; true"
    )
    lines = str(machine.exec(["sh", "-c", script]).stdout).splitlines()
    return {path: rest for path, _, rest in (line.partition("|") for line in lines)}


def written(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """Paths of what differs between two answers of files_of."""
    return {path for path in {*before, *after} if before.get(path) != after.get(path)}


def instance_name(purpose: str) -> str:
    """Name of a lab of this process."""
    return f"test-{purpose}-{os.getpid()}"
