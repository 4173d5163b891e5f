"""A recipe: how one application becomes a release. A directory with

    assemble fetch VERSION CACHE           downloads into CACHE; run again after a failure
    assemble compile VERSION CACHE DEST    without network: the whole release into DEST, its final path
    build-packages.txt, runtime-packages.txt    names of Debian packages, one a line

Both steps run as an unprivileged user and see SOURCE_DATE_EPOCH, MASTODON_COMMIT, NODE_VERSION and NODE_INTEGRITY.
Every file gets the time SOURCE_DATE_EPOCH when it is packed; a recipe whose caches remember times sets it itself first.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

from mastodon_gov.errors import Refusal

STANDIN = Path(__file__).parents[2] / "tests/standin"
NEEDED = ("assemble", "build-packages.txt", "runtime-packages.txt")


@dataclass(frozen=True)
class Recipe:
    """`standin`: what it builds is not Mastodon."""

    directory: Path
    standin: bool

    def __post_init__(self) -> None:
        """Refuse a directory that is no recipe."""
        if missing := [name for name in NEEDED if not (self.directory / name).is_file()]:
            raise Refusal(
                f"{self.directory}: no recipe, it lacks {', '.join(missing)}. docs/operator/releases.md says what "
                "a recipe is."
            )

    def packages(self, kind: str) -> list[str]:
        """Debian packages; `kind` is "build" or "runtime"."""
        lines = (self.directory / f"{kind}-packages.txt").read_text().splitlines()
        return sorted({name for line in lines if (name := line.partition("#")[0].strip())})

    def files(self) -> list[Path]:
        """What belongs to the recipe, in a fixed order."""
        found = [path for path in sorted(self.directory.rglob("*")) if "__pycache__" not in path.parts]
        return [path for path in found if path.is_symlink() or path.is_file()]

    def digest(self) -> str:
        """SHA-256 over paths, kinds and contents."""
        sha = hashlib.sha256()
        for path in self.files():
            kind = "link" if path.is_symlink() else "program" if path.stat().st_mode & 0o111 else "file"
            text = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
            about = f"{path.relative_to(self.directory)}\0{kind}\0{hashlib.sha256(text).hexdigest()}\n"
            sha.update(about.encode())
        return sha.hexdigest()

    def archive(self) -> bytes:
        """The recipe as a tar, for the builder."""
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as tar:
            for path in self.files():
                tar.add(path, arcname=str(path.relative_to(self.directory)))
        return raw.getvalue()
