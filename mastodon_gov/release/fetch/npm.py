"""package-lock.json of npm and yarn.lock of yarn 2 and newer, with workspaces."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from typing import Any
from urllib.parse import unquote

from .pieces import Piece, Unfetchable

CPUS = {"amd64": "x64", "arm64": "arm64"}
ALIAS = re.compile(r"(?P<name>@?[^@]+)@npm:(?P<version>[^:]+)(?:::__archiveUrl=(?P<url>\S+))?")
ELSEWHERE = "{file}: {name} comes from {where}, not from a registry. Publish it in your registry and lock it there."


def tarball(name: str, version: str, url: str = "", integrity: str | None = None, wants: Any = ()) -> Piece:
    """A package; where a registry keeps it follows from its name."""
    path = f"{name}/-/{name.rpartition('/')[2]}-{version}.tgz"
    return Piece("npm", name, version, f"npm/{path}", url or path, integrity, tuple(dict.fromkeys(wants)))


def read_package_lock(text: str, arch: str) -> list[Piece]:
    """Packages of a lock file of version 2 or 3, without those for other systems."""
    lock = json.loads(text)
    if lock.get("lockfileVersion", 0) < 2:
        raise Unfetchable("package-lock.json: its version is older than 2. Write it anew with npm 7 or newer.")
    wanted: dict[str, list[str]] = defaultdict(list)
    for place, about in lock["packages"].items():
        who = f"{_name(place, about)} {about.get('version', '')}".strip() if place else "package.json"
        for kind in ("dependencies", "optionalDependencies", "devDependencies"):
            for name in about.get(kind, ()):
                wanted[name].append(who)
    pieces = {}
    for place, about in lock["packages"].items():
        if "node_modules/" not in place or about.get("link") or about.get("inBundle") or not _suits(about, arch):
            continue
        name, where = _name(place, about), about.get("resolved", "")
        if where and not where.startswith(("http://", "https://")):
            raise Unfetchable(ELSEWHERE.format(file="package-lock.json", name=name, where=where))
        piece = tarball(
            name, about["version"], integrity=about.get("integrity"), wants=wanted[place.rpartition("node_modules/")[2]]
        )
        pieces[piece.file] = piece
    return list(pieces.values())


def _name(place: str, about: dict[str, Any]) -> str:
    name: str = about.get("name") or place.rpartition("node_modules/")[2]
    return name


def _suits(about: dict[str, Any], arch: str) -> bool:
    here = {"os": "linux", "cpu": CPUS.get(arch, arch), "libc": "glibc"}
    return all(_one_of(about[key], value) for key, value in here.items() if about.get(key))


def _one_of(allowed: list[str], value: str) -> bool:
    """npm's rule: a word with ! excludes; without any other word everything else is allowed."""
    plain = [word for word in allowed if not word.startswith("!")]
    return f"!{value}" not in allowed and (not plain or value in plain or "any" in plain)


def read_yarn_lock(text: str, arch: str) -> list[Piece]:
    """Packages of a lock file of yarn 2 or newer. Yarn checks its own digests when it installs."""
    if "\n__metadata:" not in text:
        raise Unfetchable("yarn.lock: it is of yarn 1. Write it anew with yarn 2 or newer.")
    blocks = list(_blocks(text))
    wanted: dict[str, list[str]] = defaultdict(list)
    for _, about, wishes in blocks:
        who = str(about.get("resolution", "")).replace("@npm:", " ").partition("@workspace:")
        for wish in wishes:
            wanted[wish].append(f"workspace {who[2]}" if who[1] else who[0])
    pieces = {}
    for keys, about, _ in blocks:
        found, resolution = ALIAS.fullmatch(about.get("resolution", "")), about.get("resolution", "")
        if "@workspace:" in resolution or "@patch:" in resolution or not _meets(about.get("conditions", ""), arch):
            continue
        if not found:
            name, _, where = resolution[1:].partition("@")
            raise Unfetchable(ELSEWHERE.format(file="yarn.lock", name=resolution[:1] + name, where=where))
        wants = [who for key in keys for who in wanted[key]]
        piece = tarball(found["name"], found["version"], unquote(found["url"] or ""), wants=wants)
        pieces[piece.file] = piece
    return list(pieces.values())


def _blocks(text: str) -> list[tuple[list[str], dict[str, str], list[str]]]:
    """(names it goes by, its keys, what it depends on) of every entry; the file is a narrow kind of YAML."""
    found: list[tuple[list[str], dict[str, str], list[str]]] = []
    section = ""
    for line in text.splitlines():
        if line.endswith(":") and line[:1] not in {" ", "#", ""}:
            found.append((line[:-1].strip('"').split(", "), {}, []))
        elif found and re.match(r" {2}\S", line):
            key, _, value = line.strip().partition(":")
            section = key
            found[-1][1][key] = value.strip().strip('"')
        elif found and re.match(r" {4}\S", line) and section in {"dependencies", "optionalDependencies"}:
            name, _, wish = line.strip().partition(": ")
            found[-1][2].append(f"{name.strip(chr(34))}@{wish.strip(chr(34))}")
    return found[1:] if found and found[0][0] == ["__metadata"] else found


def _meets(conditions: str, arch: str) -> bool:
    """Whether this builder is what an entry is for: `os=linux & (cpu=x64 | cpu=arm64) & libc=glibc`."""
    here = {"os": "linux", "cpu": CPUS.get(arch, arch), "libc": "glibc"}
    for group in filter(None, conditions.split(" & ")):
        words = [word.strip("() ").partition("=") for word in group.split(" | ")]
        if not _one_of([value for _, _, value in words], here.get(words[0][0], "")):
            return False
    return True
