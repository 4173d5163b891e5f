"""Which release the demo runs: a real bundle that lies here or is built first, or else the stand-in, never silently."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mastodon_gov.errors import Refusal
from mastodon_gov.instance.sources import Sources
from mastodon_gov.lab.state import locked
from mastodon_gov.release.bundle import lab_key
from mastodon_gov.release.pins import pins
from mastodon_gov.release.select import RELEASES, candidates


@dataclass(frozen=True)
class Wanted:
    """A version; with a recipe the real one is built when no bundle of it lies here."""

    version: str
    recipe: Path | None = None
    sources: Path | None = None
    releases: Path = RELEASES

    @property
    def real(self) -> bool:
        """Whether real Mastodon will run: its bundle goes before a stand-in, also when it lacks its signature."""
        return self.recipe is not None or candidates(self.version, False, self.releases)[0].exists()

    def sentence(self) -> str:
        """What the demo runs; its first and its last line."""
        if self.real:
            return f"This demo runs Mastodon {self.version}."
        return (
            f"This demo runs the STAND-IN of {self.version}, which is not Mastodon. For the real thing put a signed "
            f"bundle into releases/, or: make demo RELEASE={self.version} RECIPE=DIR (docs/operator/releases.md)."
        )


def wish(
    directory: Path, version: str | None, recipe: Path | None, sources: Path | None, releases: Path = RELEASES
) -> Wanted:
    """What was asked for; refused before any machine is made when it cannot be had."""
    of_instance = str(Sources(directory).get("release"))
    wanted = Wanted(version or of_instance, recipe, sources, releases)
    pins().version(wanted.version)
    if wanted.version != of_instance:
        raise Refusal(
            f"make demo RELEASE={version}: {directory / 'instance.yaml'} says `release: {of_instance}`. Change it "
            "there; an instance that runs an older one is then upgraded, and no instance goes back."
        )
    if version and not wanted.real:
        raise Refusal(
            f"make demo RELEASE={version}: no bundle of Mastodon {version} lies in releases/, and to build one a "
            "recipe is needed, which this repository does not hold. Say where it is: "
            f"make demo RELEASE={version} RECIPE=DIR, or make demo for the stand-in (docs/operator/releases.md)."
        )
    return wanted


def ensure_bundle(wanted: Wanted, say: Callable[[str], None]) -> None:
    """Build what is wanted when no bundle lies here: with the recipe, or else the stand-in. Who comes second waits."""
    with locked(wanted.releases / ".building"):
        if not any(path.exists() for path in candidates(wanted.version, not wanted.recipe, wanted.releases)):
            _build(wanted, say)


def _build(wanted: Wanted, say: Callable[[str], None]) -> None:
    how = ["--standin"]
    if wanted.recipe:
        key, signers = lab_key(wanted.releases)  # a lab believes it; no ministry does
        how = ["--recipe", str(wanted.recipe), "--key", str(key), "--signers", str(signers)]
        how += ["--sources", str(wanted.sources)] if wanted.sources else []
    say(f"no bundle of {wanted.version} in {wanted.releases}: building it on a clean machine")
    words = [sys.executable, "-m", "mastodon_gov.cli", "release", "build", wanted.version, *how]
    done = subprocess.run([*words, "--bundles", str(wanted.releases)], text=True, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise Refusal(f"the bundle could not be built:\n{done.stderr[-3000:]}")
