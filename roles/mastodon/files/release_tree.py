"""Installed releases on a host: compare with their manifest, list, prune (standard library only)."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HOME = "opt/mastodon"
# Links under HOME, each to a release; nginx serves files of the previous one, and a rollback goes to it.
POINTERS = ("slot/a", "slot/b", "current", "previous")
NAME = re.compile(r"\d+\.\d+\.\d+-[0-9a-f]{8}")


class Refused(Exception):
    """A sentence for a person: what was found, what is allowed, what to do next."""


def parse_manifest(text: bytes) -> dict[str, str]:
    """path -> sha256, from lines as sha256sum writes them."""
    pairs = (line.split("  ", 1) for line in text.decode().splitlines())
    return {path: digest for digest, path in pairs}


def check_tree(tree: Path) -> dict[str, Any]:
    """Compare an installed release with its own manifest; every difference is a line, at most 20 of them."""
    if not NAME.fullmatch(tree.name) or not (tree / "MANIFEST.sha256").is_file():
        raise Refused(
            f"{tree}: this is no installed release. Installed ones are listed by `release_install.py --list`."
        )
    text = (tree / "MANIFEST.sha256").read_bytes()
    manifest = parse_manifest(text)
    links: dict[str, str] = json.loads((tree / "RELEASE.json").read_bytes())["links"]
    problems, seen = [], {"MANIFEST.sha256"}
    for entry in walk(tree):
        path, info = entry.path[len(str(tree)) + 1 :], entry.stat(follow_symlinks=False)
        seen.add(path)
        if entry.is_symlink():
            good = links.get(path) == os.readlink(entry.path)
        elif entry.is_file(follow_symlinks=False):
            good = path == "MANIFEST.sha256" or manifest.get(path) == sha256_of(entry.path)
        else:
            good = stat.S_ISDIR(info.st_mode)
        if not good:
            problems.append(f"{path}: changed or not in the manifest")
        elif not entry.is_symlink() and (info.st_mode & 0o7222 or info.st_uid != os.geteuid()):
            problems.append(f"{path}: mode {info.st_mode & 0o7777:o}, owner {info.st_uid}; must be read-only, of root")
    problems = sorted(problems) + [f"{path}: missing" for path in sorted((manifest.keys() | links.keys()) - seen)]
    digest = hashlib.sha256(text).hexdigest()
    return {"name": tree.name, "intact": not problems, "problems": problems[:20], "manifest_sha256": digest}


def walk(tree: Path) -> Iterator[os.DirEntry[str]]:
    """Everything below a directory, links not followed. Not pathlib: Mastodon has 46,000 files, and the audit 10 s."""
    waiting = [str(tree)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)


def sha256_of(path: str) -> str:
    """Digest of a file's content; most are small, so nothing is done for each but reading it."""
    digest, content = hashlib.sha256(), os.open(path, os.O_RDONLY)
    try:
        while block := os.read(content, 1 << 18):
            digest.update(block)
    finally:
        os.close(content)
    return digest.hexdigest()


@contextlib.contextmanager
def locked(releases: Path) -> Iterator[None]:
    """One installer at a time; the lock dies with its process."""
    handle = os.open(releases, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Refused(f"{releases}: another installation or prune is at work. Wait for it and run again.") from None
    finally:
        os.close(handle)


def sweep(releases: Path) -> None:
    """Remove what a killed run left; with the lock held nobody is using it."""
    for left in [*releases.glob(".incoming-*"), *releases.glob(".removing-*")]:
        shutil.rmtree(left)


def pointers(root: Path) -> dict[str, str]:
    """Which release each of these links leads to."""
    links = {pointer: root / HOME / pointer for pointer in POINTERS}
    return {pointer: link.resolve().name for pointer, link in links.items() if link.is_symlink()}


def installed(root: Path) -> list[Path]:
    """Installed releases, the newest installation last (a directory's ctime is its rename into place)."""
    found = [path for path in (root / HOME / "releases").glob("*") if NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: path.lstat().st_ctime_ns)


def prune(root: Path) -> dict[str, Any]:
    """Remove releases nothing points to, keeping at least two; each vanishes by a rename first."""
    releases = root / HOME / "releases"
    if not releases.is_dir():
        return {"kept": [], "removed": [], "changed": False}
    with locked(releases):
        sweep(releases)
        there = installed(root)
        keep = {path for path in there if path.name in pointers(root).values()}
        spare = [path for path in there if path not in keep]
        keep.update(spare[len(spare) - max(0, 2 - len(keep)) :])
        gone = [path for path in there if path not in keep]
        for path in gone:
            shutil.rmtree(path.rename(releases / f".removing-{path.name}"))
    removed = [path.name for path in gone]
    return {"kept": sorted(path.name for path in keep), "removed": removed, "changed": bool(removed)}


def listing(root: Path) -> dict[str, Any]:
    """Installed releases and who points to them."""
    about = [json.loads((path / "RELEASE.json").read_bytes()) for path in installed(root)]
    keys = ("name", "version", "standin", "build_date")
    return {"releases": [{key: r[key] for key in keys} for r in about], "pointers": pointers(root)}
