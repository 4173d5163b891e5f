"""Which bundle of `releases/` an instance runs."""

from __future__ import annotations

import platform
from pathlib import Path

from mastodon_gov.errors import Refusal
from mastodon_gov.instance import Instance
from mastodon_gov.instance.node import ReleaseBundle
from mastodon_gov.release.bundle import read_release

RELEASES = Path(__file__).resolve().parents[2] / "releases"
DEBIAN = "13"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def candidates(version: str, lab: bool, releases: Path = RELEASES) -> list[Path]:
    """Where a bundle of a version for this kind of machine may lie: a real one first, in a lab then a stand-in."""
    arch = ARCHITECTURES.get(platform.machine(), platform.machine())
    stem = f"mastodon-{version}-debian{DEBIAN}-{arch}"
    return [releases / f"{stem}.tar.zst", *([releases / f"{stem}-standin.tar.zst"] if lab else [])]


def selected(instance: Instance, directory: Path, releases: Path = RELEASES) -> ReleaseBundle:
    """The bundle of `instance.release`: a real one before a stand-in, a stand-in only in a lab.

    `directory` is the instance's: its `release_signers` names who may sign (ssh-keygen(1), ALLOWED SIGNERS). A lab
    without one believes the key that `release build --standin` made. Raises Refusal when there is none to trust.
    """
    places = candidates(instance.release, instance.lab, releases)
    archive = next((path for path in places if path.exists()), None)
    if archive is None:
        raise Refusal(
            f"instance.yaml, release: {releases} holds no {places[0].name}. Build it with "
            f"`mastodon-gov release build {instance.release}`, or carry the signed bundle there."
        )
    release, _ = read_release(archive)
    signature, signers = archive.with_name(archive.name + ".sig"), directory / "release_signers"
    if instance.lab and not signers.exists():
        signers = releases / "allowed_signers"
    for needed in (signature, signers):
        if not needed.exists():
            raise Refusal(
                f"{needed} is missing, so {archive.name} cannot be verified. A bundle is deployed only with its "
                "signature and the list of those who may sign (docs/operator/releases.md)."
            )
    return ReleaseBundle(
        name=release.name,
        version=release.version,
        standin=release.standin,
        archive=str(archive),
        signature=signature.read_text(),
        signers=signers.read_text(),
        packages=tuple(release.runtime_packages),
    )
