"""A command on a host of the instance, as root, over the same SSH account that deploys."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mastodon_gov.errors import Refusal, Unreachable
from mastodon_gov.instance import Instance
from mastodon_gov.instance.load import load
from mastodon_gov.inventory import members

LIB = "/usr/local/lib/mastodon-gov"  # our programs on the host
UNREACHABLE = 255  # ssh's own exit code: the command never ran
PROGRESS = re.compile(r"\.\.\. | *[0-9]+\.[0-9] s  ")


@dataclass(frozen=True)
class Host:
    """How to reach one host. `instance.addresses` knows it by name, or DNS does."""

    name: str
    directory: Path
    instance: Instance

    @property
    def address(self) -> str:
        """Where SSH connects to."""
        return self.instance.reached_at(self.name)[0]

    def ssh(self, words: list[str]) -> list[str]:
        """The whole command line that runs these words on the host with sudo."""
        key = self.directory / "deploy_key"
        options = [
            "-o",
            "BatchMode=yes",
            "-o",
            "ConnectTimeout=15",
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "LogLevel=ERROR",
        ]
        options += ["-o", f"UserKnownHostsFile={self.directory / 'known_hosts'}"]
        options += ["-i", str(key), "-o", "IdentitiesOnly=yes"] if key.exists() else []
        return ["ssh", *options, f"deploy@{self.address}", shlex.join(["sudo", "-n", *words])]

    def run(self, words: list[str], stdin: str = "", timeout: float = 120) -> str:
        """Standard output of a command; `timeout` in s. Raises Unreachable when the host is away, Refusal when the
        command fails."""
        try:
            done = subprocess.run(
                self.ssh(words), input=stdin, capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            raise Refusal(f"{self.name}: {words[0]} gave no answer within {timeout:.0f} s. Look at the host.") from None
        if done.returncode == UNREACHABLE:
            raise Unreachable(
                f"{self.name}: no SSH connection to deploy@{self.address}: {done.stderr.strip()}. A new host needs "
                f"`mastodon-gov bootstrap {self.name}` first."
            )
        if done.returncode:
            told = done.stderr.strip() or done.stdout.strip() or "it said nothing"
            raise Refusal(f"{self.name}: {words[0]} ended with {done.returncode}: {told}")
        return done.stdout

    def follow(self, words: list[str]) -> str:
        """As `run`, without a limit of time; what the command says of its progress is shown as it comes."""
        process = subprocess.Popen(
            self.ssh(words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout  # noqa: S101  # both are pipes
        assert process.stderr  # noqa: S101
        told = []
        for line in process.stderr:
            if PROGRESS.match(line):
                print(line, end="", file=sys.stderr, flush=True)
            else:
                told.append(line)
        out = process.stdout.read()
        if process.wait():
            raise Refusal(f"{self.name}: {''.join(told).strip() or f'{words[0]} ended with {process.returncode}'}")
        return out


def application_host(directory: Path) -> Host:
    """The first host of the group `mastodon`."""
    return _first(directory, "mastodon")


def database_host(directory: Path) -> Host:
    """The first host of the group `database`."""
    return _first(directory, "database")


def _first(directory: Path, group: str) -> Host:
    instance, names = load(directory), members(directory).get(group)
    if not names:
        raise Unreachable(f"inventory.py names no host in the group {group}. Give it one.")
    return Host(names[0], directory, instance)
