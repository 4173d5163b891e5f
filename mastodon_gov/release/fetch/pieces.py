"""One thing to download, and how it is told apart from a damaged one."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

ALGORITHMS = ("sha512", "sha384", "sha256", "sha1")  # the strongest that is given counts


class Unfetchable(Exception):
    """A sentence for a person: what is missing, who wants it, what to do."""


@dataclass(frozen=True)
class Piece:
    """`kind` is gem, npm or node; `file` lies below the cache; `path` is relative to the source unless it is a URL.

    `integrity` is written as npm does ("sha512-<base64>"), or None when the lock file gives none.
    """

    kind: str
    name: str
    version: str
    file: str
    path: str
    integrity: str | None = None
    wanted_by: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """How a person names it, also in `overrides`."""
        return f"{self.kind} {self.name} {self.version}"

    @property
    def wish(self) -> str:
        """Who wants it."""
        shown = ", ".join(self.wanted_by[:4]) + (" and others" if len(self.wanted_by) > 4 else "")
        return shown or "the recipe"


@dataclass(frozen=True)
class Repository:
    """A commit of a git repository. `directory` below the cache gets the files, `wanted_by` as above."""

    name: str
    url: str
    commit: str
    directory: str
    wanted_by: tuple[str, ...] = ()


def damage(file: Path, integrity: str | None) -> str | None:
    """How a file differs from its integrity value; None when it does not, or nothing is promised."""
    given = dict(word.split("-", 1) for word in (integrity or "").split() if "-" in word)
    for algorithm in ALGORITHMS:
        if algorithm in given:
            with file.open("rb") as content:
                found = base64.b64encode(hashlib.file_digest(content, algorithm).digest()).decode()
            return None if found == given[algorithm].partition("?")[0] else f"{algorithm}-{found}"
    return None


def from_hex(algorithm: str, digest: str) -> str:
    """An integrity value from a hexadecimal digest."""
    return f"{algorithm}-{base64.b64encode(bytes.fromhex(digest)).decode()}"


def again(what: str) -> str:
    """What to do when an offline directory lacks something."""
    return f"{what}. Make that directory anew with `release build … --save-downloads DIR` where there is a network."
