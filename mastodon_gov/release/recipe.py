"""A recipe: how one application becomes a release. A directory with

    fetch.yaml                             what is downloaded into CACHE; or, without it,
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

import yaml
from pydantic import Field, ValidationError

from mastodon_gov.errors import Refusal
from mastodon_gov.release.pins import Frozen

STANDIN = Path(__file__).parents[2] / "tests/standin"
NEEDED = ("assemble", "build-packages.txt", "runtime-packages.txt")


class Locked(Frozen):
    """An npm package: exact version, and its integrity as npm writes it."""

    version: str
    integrity: str


class Downloads(Frozen):
    """fetch.yaml: lock files (in the recipe or the source), packages that none of them names, source, Node."""

    locks: tuple[str, ...]
    npm: dict[str, Locked] = Field(default_factory=dict)
    source: bool = True
    node: bool = True


@dataclass(frozen=True)
class Entry:
    """A file of a recipe, or a link whose `content` is its target."""

    path: str
    type: bytes
    mode: int
    content: bytes


@dataclass(frozen=True)
class Recipe:
    """Read once, so that the digest is of exactly what gets built. `standin`: what it builds is not Mastodon."""

    entries: tuple[Entry, ...]
    standin: bool

    def packages(self, kind: str) -> list[str]:
        """Debian packages; `kind` is "build" or "runtime"."""
        lines = (self.file(f"{kind}-packages.txt") or b"").decode().splitlines()
        return sorted({name for line in lines if (name := line.partition("#")[0].strip())})

    def file(self, path: str) -> bytes | None:
        """Content of a file of the recipe."""
        return next((entry.content for entry in self.entries if entry.path == path), None)

    def downloads(self) -> Downloads | None:
        """fetch.yaml, when there is one."""
        text = self.file("fetch.yaml")
        try:
            return None if text is None else Downloads.model_validate(yaml.safe_load(text))
        except (yaml.YAMLError, ValidationError) as error:
            keys = ", ".join(Downloads.model_fields)
            raise Refusal(f"fetch.yaml of the recipe cannot be read ({error}). Allowed keys: {keys}.") from error

    def digest(self) -> str:
        """SHA-256 over paths, kinds, modes and contents."""
        return hashlib.sha256(self.archive()).hexdigest()

    def archive(self) -> bytes:
        """The recipe as a tar for the builder, always the same bytes."""
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for entry in self.entries:
                member = tarfile.TarInfo(entry.path)
                member.type, member.mode = entry.type, entry.mode
                if entry.type == tarfile.SYMTYPE:
                    member.linkname = entry.content.decode()
                    tar.addfile(member)
                else:
                    member.size = len(entry.content)
                    tar.addfile(member, io.BytesIO(entry.content))
        return raw.getvalue()


def read_recipe(directory: Path, *, standin: bool) -> Recipe:
    """A recipe's directory; one that lacks a part is refused."""
    if missing := [name for name in NEEDED if not (directory / name).is_file()]:
        raise Refusal(
            f"{directory}: no recipe, it lacks {', '.join(missing)}. docs/operator/releases.md says what a recipe is."
        )
    found = [path for path in sorted(directory.rglob("*")) if "__pycache__" not in path.parts]
    return Recipe(tuple(entry(path, directory) for path in found if path.is_symlink() or path.is_file()), standin)


def entry(path: Path, directory: Path) -> Entry:
    """One file or link."""
    name = str(path.relative_to(directory))
    if path.is_symlink():
        return Entry(name, tarfile.SYMTYPE, 0o777, str(path.readlink()).encode())
    return Entry(name, tarfile.REGTYPE, 0o755 if path.stat().st_mode & 0o111 else 0o644, path.read_bytes())
