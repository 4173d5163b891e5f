"""Runs on the builder (Python 3.13 standard library only): looks at a compiled release, then packs it.

`pack.py inventory TREE` prints what the release is made of as JSON, for the bill of materials.
`pack.py pack TREE ARCHIVE` reads {"release": …, "sbom": …} on stdin and writes the archive: the same tree and the same
input give the same bytes (fixed order, owner, modes, times, compression).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WRITTEN = ("RELEASE.json", "MANIFEST.sha256", "sbom.cdx.json")  # made here, in front of everything else
ZSTD = ["zstd", "-q", "-10", "-T0", "--no-progress"]  # the bytes do not depend on the number of threads


class Unfit(Exception):
    """The tree cannot become a bundle; one sentence for a person."""


def walk(tree: Path) -> Iterator[Path]:
    """Everything below a directory in a fixed order, links not followed."""
    for entry in sorted(tree.iterdir()):
        yield entry
        if entry.is_dir() and not entry.is_symlink():
            yield from walk(entry)


def unfit(tree: Path, entry: Path) -> str | None:
    """Why an entry may not be in a release, if so."""
    info, path = entry.lstat(), str(entry.relative_to(tree))
    if not path.isprintable():
        return "its name has characters that do not print"
    if stat.S_ISLNK(info.st_mode):
        climbs, inner = 0, os.readlink(entry)
        while inner.startswith("../"):
            climbs, inner = climbs + 1, inner[3:]
        inside = not inner.startswith("/") and ".." not in inner.split("/") and climbs <= path.count("/")
        return None if inside else f"the link to {os.readlink(entry)} may leave the release ('..' only in front)"
    if not stat.S_ISREG(info.st_mode) and not stat.S_ISDIR(info.st_mode):
        return "it is no file, directory or link"
    return "setuid or setgid" if info.st_mode & 0o6000 else None


def contents(tree: Path) -> list[Path]:
    """What goes in, sorted; refused if anything does not belong."""
    entries = [entry for entry in walk(tree) if str(entry.relative_to(tree)) not in WRITTEN]
    if bad := [f"{entry.relative_to(tree)}: {why}" for entry in entries if (why := unfit(tree, entry))]:
        raise Unfit(f"{len(bad)} entries do not belong in a release. Change the recipe:\n  " + "\n  ".join(bad[:20]))
    return entries


def pack(tree: Path, archive: Path, release: dict[str, Any], sbom: dict[str, Any]) -> None:
    """Write the archive; RELEASE.json and the manifest lead it, so that a reader need not unpack the rest."""
    entries = contents(tree)
    files = [entry for entry in entries if stat.S_ISREG(entry.lstat().st_mode)]
    links = {str(entry.relative_to(tree)): os.readlink(entry) for entry in entries if entry.is_symlink()}
    bill = as_json(sbom)
    size = len(bill) + sum(entry.lstat().st_size for entry in files)
    head = as_json(release | {"files": len(files) + 2, "bytes": size, "links": links})
    sums = {"RELEASE.json": hashlib.sha256(head).hexdigest(), "sbom.cdx.json": hashlib.sha256(bill).hexdigest()}
    sums |= {str(entry.relative_to(tree)): sha256_of(entry) for entry in files}
    manifest = "".join(f"{digest}  {path}\n" for path, digest in sorted(sums.items())).encode()
    part = archive.with_name(archive.name + ".part")
    with part.open("wb") as out, subprocess.Popen(ZSTD, stdin=subprocess.PIPE, stdout=out) as zstd:
        with tarfile.open(fileobj=zstd.stdin, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            write(tar, release, entries, tree, dict(zip(WRITTEN, (head, manifest, bill), strict=True)))
        zstd.communicate()
    if zstd.returncode:
        raise Unfit(f"zstd ended with {zstd.returncode}; is the disk full? Run again.")
    part.rename(archive)


def write(
    tar: tarfile.TarFile, release: dict[str, Any], entries: list[Path], tree: Path, made: dict[str, bytes]
) -> None:
    """All members: owner root, read-only, one time for everything."""

    def member(path: str, kind: bytes, mode: int, size: int = 0) -> tarfile.TarInfo:
        info = tarfile.TarInfo(f"{release['name']}/{path}".rstrip("/"))
        info.type, info.mode, info.size, info.mtime = kind, mode, size, release["epoch"]
        info.uname = info.gname = "root"
        return info

    tar.addfile(member("", tarfile.DIRTYPE, 0o555))
    for name, text in made.items():
        tar.addfile(member(name, tarfile.REGTYPE, 0o444, len(text)), io.BytesIO(text))
    for entry in entries:
        path, info = str(entry.relative_to(tree)), entry.lstat()
        if entry.is_symlink():
            link = member(path, tarfile.SYMTYPE, 0o444)
            link.linkname = os.readlink(entry)
            tar.addfile(link)
        elif entry.is_dir():
            tar.addfile(member(path, tarfile.DIRTYPE, 0o555))
        else:
            mode = 0o555 if info.st_mode & 0o111 else 0o444
            with entry.open("rb") as data:
                tar.addfile(member(path, tarfile.REGTYPE, mode, info.st_size), data)


def as_json(value: dict[str, Any]) -> bytes:
    """JSON for people and for byte-wise comparison."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def sha256_of(path: Path) -> str:
    """Digest of a file's content."""
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def inventory(tree: Path) -> dict[str, Any]:
    """Gems and npm packages that are really in the tree, Node's version, and yarn.lock when there is one."""
    gems = {spec.stem for spec in tree.glob("vendor/bundle/ruby/*/specifications/*.gemspec")}
    checkouts = [*tree.glob("vendor/bundle/ruby/*/bundler/gems/*"), *tree.glob("vendor/cache/*")]
    gems |= {path.name for path in checkouts if path.is_dir()}
    npm = set()
    for manifest in tree.glob("node_modules/**/package.json"):
        try:
            about = json.loads(manifest.read_bytes())
        except ValueError:
            continue  # packages carry broken ones for their own tests
        if not isinstance(about, dict):
            continue
        if manifest.parent.name == about.get("name", "").rpartition("/")[2] and about.get("version"):
            npm.add((about["name"], about["version"]))
    node, lock = tree / "node/bin/node", tree / "yarn.lock"
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True) if node.exists() else None
    return {
        "gems": sorted(gems),
        "npm": sorted(npm),
        "node": said.stdout.strip().removeprefix("v") if said else None,
        "yarn_lock": lock.read_text() if lock.exists() else None,
    }


def main(argv: list[str]) -> int:
    """Exit code 1 and a sentence when the tree cannot be packed."""
    tree = Path(argv[1])
    if argv[0] == "inventory":
        print(json.dumps(inventory(tree)))
        return 0
    given = json.load(sys.stdin)
    try:
        pack(tree, Path(argv[2]), given["release"], given["sbom"])
    except Unfit as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
