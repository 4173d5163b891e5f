"""The release on the host, and its processes in their slots."""

from __future__ import annotations

import getpass
import json
import socket
from io import BytesIO
from pathlib import Path
from typing import Any

from pyinfra import host
from pyinfra.api import FactBase, FileUploadCommand, QuoteString, StringCommand, operation

from mastodon_gov.instance.node import ReleaseBundle
from roles.lib import Commands
from roles.lib.seen import seen

LIB = "/usr/local/lib/mastodon-gov"
HOME = "/opt/mastodon"
INCOMING = "/var/lib/mastodon-gov/incoming"
# Where the deploy account may write: not /tmp, which is memory, and a bundle is 200 MB.
ARRIVES = "/home/deploy/.mfg-bundle"
# People who use the instance come first: beside its services, and with a small share of a busy processor.
BESIDE = "systemd-run -q --scope --slice=system.slice -p CPUWeight=20 -p IOWeight=20 --nice=10"


class InstalledReleases(FactBase[list[str]]):
    """Releases that were verified and installed to their end: the last step of an installation is the rename."""

    default = list

    def command(self) -> str:
        """Names only."""
        return f"ls {HOME}/releases 2>/dev/null; true"

    def process(self, output: list[str]) -> list[str]:
        """One name a line."""
        return output


class SlotsSettled(FactBase[bool]):
    """Whether exactly one slot of each kind runs this release with today's settings."""

    default = bool

    def command(self, release: str) -> StringCommand:
        """Nothing runs where the program is not there yet."""
        return StringCommand(f"{LIB}/slots.py status", QuoteString(release), "2>/dev/null; true")

    def process(self, output: list[str]) -> bool:
        """The program's own verdict."""
        told: dict[str, Any] = json.loads("".join(output) or "{}")
        return bool(told.get("settled"))


def who() -> str:
    """Who deploys, for the journal on the host."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def journalled(release: ReleaseBundle, step: str, command: str) -> StringCommand:
    """A shell command as a step on the way to a release: the host writes down when it began and how it ended."""
    words = (QuoteString(word) for word in (release.name, who(), step))
    return StringCommand(f"{LIB}/journal.py step", *words, "-- sh -c", QuoteString(command))


@operation()
def install_release(release: ReleaseBundle, allow_standin: bool) -> Commands:
    """Carry the bundle to the host and have it verified there; a release that is installed is not touched."""
    if release.name in host.get_fact(InstalledReleases):
        return
    # Under its own name: the bundle says what it is called, and the host compares.
    archive = f"{INCOMING}/{Path(release.archive).name}"
    yield StringCommand(f"install -d -m 700 {INCOMING}")
    yield FileUploadCommand(release.archive, archive, remote_temp_filename=ARRIVES)
    yield FileUploadCommand(BytesIO(release.signature.encode()), f"{archive}.sig")
    yield FileUploadCommand(BytesIO(release.signers.encode()), f"{INCOMING}/allowed_signers")
    lab = "--allow-standin" if allow_standin else ""
    install = f"python3 {LIB}/release_install.py {archive} --signers {INCOMING}/allowed_signers {lab}"
    yield journalled(release, "install", f"{BESIDE} {install} && rm -rf {INCOMING}")


@operation()
def run_release(release: ReleaseBundle, step: str) -> Commands:
    """Swap the slots when a process is older than what it reads or runs another release: `start` the other slot and
    see that it is healthy, then stop the old `web`, `sidekiq`, `streaming`."""
    if not seen(SlotsSettled, release=release.name):
        yield journalled(release, step, f"{LIB}/slots.py settle {release.name} {step}")
