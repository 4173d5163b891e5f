"""The control node's half of the fetch phase: program, job and offline directory go to the builder.

What runs there is the package `fetch`.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from mastodon_gov.errors import Refusal
from mastodon_gov.release.pins import pins
from mastodon_gov.release.recipe import Downloads
from mastodon_gov.release.remote import Remote
from mastodon_gov.release.sources import Sources

PROGRAM = Path(__file__).with_name("fetch")


def check_sources(downloads: Downloads | None, sources: Sources) -> None:
    """Refuse before any machine is started what cannot end well."""
    if sources.offline_dir and not (downloads and sources.offline_dir.is_dir()):
        raise Refusal(
            f"release build: offline_dir {sources.offline_dir} needs a recipe with fetch.yaml, and must be "
            "a directory made by `release build … --save-downloads DIR`."
        )
    if downloads and downloads.source and not sources.git_url and not sources.offline_dir:
        raise Refusal(
            "release build: the recipe's fetch.yaml wants the application's source. Say where its git repository is: "
            "`git_url: https://…` in a file given with --sources."
        )


def job(downloads: Downloads, sources: Sources, commit: str, arch: str, work: str) -> dict[str, Any]:
    """What the fetch program reads; a build that lacks a pin is refused."""
    pinned = pins().node
    node = {"version": pinned.version, "integrity": pinned.integrity.get(arch)}
    if sources.node_archive:
        node |= sources.node_archive.model_dump(exclude_none=True)
    if downloads.node and not node["integrity"]:
        raise Refusal(
            f"release build: Node {pinned.version} is not pinned for {arch}, only for {', '.join(pinned.integrity)}. "
            "Give `node_archive: {url: …, integrity: sha512-…}` in a file given with --sources."
        )
    return {
        **downloads.model_dump(mode="json"),
        **sources.job(),
        "node": node if downloads.node else None,
        "commit": commit,
        "arch": arch,
        "cache": f"{work}/cache",
        "recipe": f"{work}/recipe",
    }


def send_program(remote: Remote, work: str) -> None:
    """Put the package `fetch` on the builder."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for path in sorted(PROGRAM.glob("*.py")):
            tar.add(path, arcname=f"fetch/{path.name}")
    where = f"{work}/program"
    remote.run(f"rm -rf {where}; mkdir {where}; tar -x --no-same-owner -C {where}", stdin=raw.getvalue())


def send_directory(remote: Remote, directory: Path, cache: str) -> None:
    """Put an offline directory into the builder's cache; the fetch program checks every piece of it."""
    with tempfile.TemporaryFile(dir="/var/tmp") as raw:
        with tarfile.open(fileobj=raw, mode="w") as tar:
            tar.add(directory, arcname=".")
        raw.seek(0)
        remote.run(f"set -e; tar -x --no-same-owner -C {cache}; chown -R mastodon-build: {cache}", stdin=raw)


def bring_directory(remote: Remote, cache: str, directory: Path) -> None:
    """Copy the builder's cache here; git makes the sources' files again from its repositories."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir="/var/tmp") as raw:
        remote.run(f"tar -c -C {cache} --exclude=./source --exclude='*.part' .", out=raw)
        raw.seek(0)
        with tarfile.open(fileobj=raw) as tar:
            tar.extractall(directory, filter="data")
