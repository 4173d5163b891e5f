"""Gemfile.lock, as Bundler writes it: indentation says what a line is."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from .pieces import Piece, Repository, from_hex

SPEC = re.compile(r" {4}(?P<name>\S+) \((?P<version>[^)]+)\)$")
WANTS = re.compile(r" {6}(?P<name>[^\s(!]+)")
DIRECT = re.compile(r" {2}(?P<name>[^\s(!]+)")
CHECKSUM = re.compile(r" {2}(?P<name>\S+) \((?P<version>[^)]+)\) sha256=(?P<digest>[0-9a-f]{64})")
# Versions may end with a platform; what is not for any Linux of this processor is left out.
PLATFORM = re.compile(r"^[0-9][0-9A-Za-z.]*-(?P<platform>[a-z].*)$")
PROCESSORS = {"amd64": "x86_64", "arm64": "(aarch64|arm64)"}


def read(text: str, arch: str) -> tuple[list[Piece], list[Repository]]:
    """Gems from the index and gems from git. `arch` is Debian's name of the processor."""
    wanted, digests = _wanted(text), _digests(text)
    gems: list[Piece] = []
    repositories: list[Repository] = []
    for title, lines in _sections(text):
        specs = [found.group("name", "version") for line in lines if (found := SPEC.match(line))]
        if title == "GEM":
            for name, version in specs:
                if fits(version, arch):
                    file = f"{name}-{version}.gem"
                    gems.append(
                        Piece("gem", name, version, f"gems/{file}", f"gems/{file}", digests.get((name, version)))
                    )
        elif title == "GIT":
            keys = dict(line.strip().split(": ", 1) for line in lines if re.match(r" {2}\w+: ", line))
            short = re.split(r"[/:]", keys["remote"].rstrip("/"))[-1].removesuffix(".git")
            directory = f"gems/{short}-{keys['revision'][:12]}"
            names = tuple(name for name, _ in specs)
            repositories.append(
                Repository(f"gem {', '.join(names)}", keys["remote"], keys["revision"], directory, names)
            )
    return (
        [replace(gem, wanted_by=tuple(wanted[gem.name])) for gem in gems],
        [
            replace(r, wanted_by=tuple({who: None for name in r.wanted_by for who in wanted[name]}))
            for r in repositories
        ],
    )


def fits(version: str, arch: str) -> bool:
    """Whether a version's platform, if any, is this builder's."""
    platform = PLATFORM.match(version)
    return not platform or bool(re.match(rf"{PROCESSORS.get(arch, arch)}-linux(-gnu)?$", platform["platform"]))


def _sections(text: str) -> Iterator[tuple[str, list[str]]]:
    for block in re.split(r"\n(?=[A-Z])", text):
        title, _, rest = block.partition("\n")
        yield title.strip(), rest.splitlines()


def _digests(text: str) -> dict[tuple[str, str], str]:
    lines = [line for title, lines in _sections(text) if title == "CHECKSUMS" for line in lines]
    found = [match for line in lines if (match := CHECKSUM.match(line))]
    return {(match["name"], match["version"]): from_hex("sha256", match["digest"]) for match in found}


def _wanted(text: str) -> dict[str, list[str]]:
    """Gem -> who depends on it: other gems with their version, or the Gemfile."""
    wanted: dict[str, list[str]] = defaultdict(list)
    for title, lines in _sections(text):
        owner = "the Gemfile"
        for line in lines:
            if title == "DEPENDENCIES" and (direct := DIRECT.match(line)):
                wanted[direct["name"]].insert(0, owner)
            elif spec := SPEC.match(line):
                owner = f"{spec['name']} {spec['version']}"
            elif title in {"GEM", "GIT", "PATH"} and (wish := WANTS.match(line)):
                wanted[wish["name"]].append(owner)
    return wanted
