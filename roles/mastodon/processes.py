"""The release on the host, and its processes in their slots."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

from pyinfra import host
from pyinfra.api import FactBase, FileUploadCommand, QuoteString, StringCommand, operation

from mastodon_gov.instance.model import ReleaseBundle
from roles.lib import Commands

LIB = "/usr/local/lib/mastodon-gov"
HOME = "/opt/mastodon"
INCOMING = "/var/lib/mastodon-gov/incoming"


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


@operation()
def install_release(release: ReleaseBundle, allow_standin: bool) -> Commands:
    """Carry the bundle to the host and have it verified there; a release that is installed is not touched."""
    if release.name in host.get_fact(InstalledReleases):
        return
    # Under its own name: the bundle says what it is called, and the host compares.
    archive = f"{INCOMING}/{Path(release.archive).name}"
    yield StringCommand(f"install -d -m 700 {INCOMING}")
    yield FileUploadCommand(release.archive, archive)
    yield FileUploadCommand(BytesIO(release.signature.encode()), f"{archive}.sig")
    yield FileUploadCommand(BytesIO(release.signers.encode()), f"{INCOMING}/allowed_signers")
    yield StringCommand(
        f"python3 {LIB}/release_install.py {archive} --signers {INCOMING}/allowed_signers",
        "--allow-standin" if allow_standin else "",
        f"&& rm -rf {INCOMING}",
    )


@operation()
def run_release(release: ReleaseBundle) -> Commands:
    """Swap the slots when a process is older than what it reads or runs another release."""
    if not host.get_fact(SlotsSettled, release=release.name):
        yield StringCommand(f"{LIB}/slots.py settle", QuoteString(release.name))
