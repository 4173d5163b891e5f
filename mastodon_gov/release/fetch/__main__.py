"""Reads a job as JSON on stdin and fills its cache. Exit code 1 and a sentence for each thing that cannot be had."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from . import gemfile, npm
from .download import download
from .pieces import Piece, Repository, Unfetchable, again, damage
from .repository import export

AT_ONCE = 8
EVERY = 5.0  # s between two lines of progress


@dataclass
class Job:
    """What to fetch and from where. Missing pieces are collected, so that one run names them all."""

    cache: Path
    arch: str
    recipe: Path
    source: bool
    locks: list[str]
    git_url: str | None
    commit: str
    gem_source: str
    npm_registry: str
    node: dict[str, Any] | None  # version, integrity, and url when it is not the registry's package
    npm: dict[str, dict[str, str]]  # packages that no lock file names
    overrides: dict[str, Any]
    offline: bool
    problems: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Everything; afterwards `problems` holds a sentence for each piece that could not be had."""
        if self.source:
            application = Repository("the application", self.git_url or "", self.commit, "source")
            export(application, self.cache, offline=self.offline)
        pieces, repositories = self.wanted()
        for repository in repositories:
            if self.overrides.get(repository.name) == "skip":
                continue
            self.attempt(partial(export, self.moved(repository), self.cache, offline=self.offline))
        began = said = time.monotonic()
        todo = [piece for piece in pieces if self.overrides.get(piece.title) != "skip"]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for done, _ in enumerate(pool.map(lambda piece: self.attempt(partial(self.bring, piece)), todo), 1):
                if time.monotonic() - said > EVERY or done == len(todo):
                    said = time.monotonic()
                    say(f"{done} of {len(todo)} packages, {said - began:.0f} s")

    def wanted(self) -> tuple[list[Piece], list[Repository]]:
        """What the lock files and the recipe name."""
        pieces: list[Piece] = []
        repositories: list[Repository] = []
        for name in self.locks:
            path = next((p for p in (self.recipe / name, self.cache / "source" / name) if p.is_file()), None)
            if path is None:
                raise Unfetchable(
                    f"{name}: neither the recipe nor the application's source has this lock file. Correct `locks` in "
                    "the recipe's fetch.yaml."
                )
            if path.name == "Gemfile.lock":
                gems, repositories = gemfile.read(path.read_text(), self.arch)
                pieces += gems
            else:
                read = npm.read_yarn_lock if path.name == "yarn.lock" else npm.read_package_lock
                pieces += read(path.read_text(), self.arch)
        pieces += [npm.tarball(name, about["version"], "", about["integrity"]) for name, about in self.npm.items()]
        if self.node:
            name = f"node-linux-{npm.CPUS.get(self.arch, self.arch)}"
            runtime = npm.tarball(name, self.node["version"], self.node.get("url", ""), self.node["integrity"])
            pieces.append(replace(runtime, kind="node", file="node.tgz"))
        return pieces, repositories

    def attempt(self, fetch: Callable[[], None]) -> None:
        """Note a failure and go on."""
        try:
            fetch()
        except Unfetchable as error:
            self.problems.append(str(error))

    def moved(self, repository: Repository) -> Repository:
        """The repository at the place that `overrides` names for it, if any."""
        return replace(repository, url=self.overrides.get(repository.name, {}).get("url", repository.url))

    def bring(self, piece: Piece) -> None:
        """Keep a piece that is there and sound, download it otherwise."""
        other = self.overrides.get(piece.title, {})
        piece = replace(piece, path=other.get("url", piece.path), integrity=other.get("integrity", piece.integrity))
        target = self.cache / piece.file
        if target.is_file():
            if not damage(target, piece.integrity):
                return
            target.unlink()
        if self.offline:
            raise Unfetchable(again(f"{piece.title} (wanted by {piece.wish}) is not whole in the offline directory"))
        base = self.gem_source if piece.kind == "gem" else self.npm_registry
        url = piece.path if "://" in piece.path else f"{base.rstrip('/')}/{piece.path}"
        download(piece, url, target)


def say(what: str) -> None:
    """Progress goes out at once, marked so that it is not taken for an error."""
    print(f"progress: {what}", file=sys.stderr, flush=True)


def main() -> int:
    """Exit code 1 when anything is missing."""
    given = json.load(sys.stdin)
    job = Job(**given | {"cache": Path(given["cache"]).resolve(), "recipe": Path(given["recipe"]).resolve()})
    job.cache.mkdir(parents=True, exist_ok=True)
    try:
        job.run()
    except Unfetchable as error:
        job.problems.append(str(error))
    for sentence in sorted(job.problems)[:20]:
        print(sentence, file=sys.stderr)
    if len(job.problems) > 20:
        print(f"and {len(job.problems) - 20} more", file=sys.stderr)
    return 1 if job.problems else 0


if __name__ == "__main__":
    sys.exit(main())
