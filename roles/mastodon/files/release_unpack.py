"""Every member of a bundle on its way out of the archive: checked, hashed, written in one pass (standard library)."""

from __future__ import annotations

import hashlib
import os
import posixpath
import tarfile
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roles.mastodon.files.release_bundle import HEAD, Bundle, members, read_head
    from roles.mastodon.files.release_tree import Refused, parse_manifest
else:  # on the host the programs lie side by side
    from release_bundle import HEAD, Bundle, members, read_head
    from release_tree import Refused, parse_manifest

THREADS = 4
BATCH = 4 << 20  # bytes handed to a thread at once
LARGE = 8 << 20  # bytes; a larger file is written as it comes, so that memory stays small
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class Crew:
    """Threads that hash and write small files, many at a time: creating a file waits more than it works.

    The first failure is raised by `add` or `finish`; leaving the block waits for whatever is at work.
    """

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(THREADS)
        self.at_work: deque[Future[None]] = deque()
        self.batch: list[Callable[[], None]] = []
        self.size = 0

    def add(self, size: int, job: Callable[[], None]) -> None:
        """One file of `size` bytes."""
        self.batch.append(job)
        self.size += size + 4096
        if self.size > BATCH:
            self.hand_out()

    def hand_out(self) -> None:
        """Give the batch to a thread; with enough of them under way, wait for the oldest."""
        self.at_work.append(self.pool.submit(_all, self.batch))
        self.batch, self.size = [], 0
        while len(self.at_work) > 2 * THREADS:
            self.at_work.popleft().result()

    def finish(self) -> None:
        """Wait for everything."""
        self.hand_out()
        while self.at_work:
            self.at_work.popleft().result()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)


def _all(jobs: list[Callable[[], None]]) -> None:
    for job in jobs:
        job()


class Tree:
    """Takes an archive's members in order and refuses whatever does not belong; writes them if given a place."""

    def __init__(self, bundle: Bundle, into: Path | None, crew: Crew) -> None:
        self.name, self.into, self.crew = bundle.release["name"], into, crew
        text = bundle.head["MANIFEST.sha256"]
        self.manifest = parse_manifest(text) | {"MANIFEST.sha256": hashlib.sha256(text).hexdigest()}
        self.links: dict[str, str] = bundle.release["links"]
        self.room = int(bundle.release["bytes"])
        self.directories, self.seen = {"": 0.0}, set(HEAD)
        if hashlib.sha256(bundle.head["RELEASE.json"]).hexdigest() != self.manifest.get("RELEASE.json"):
            raise self.refused("RELEASE.json", "its content differs from MANIFEST.sha256")
        for name, content in bundle.head.items():
            member = tarfile.TarInfo(name)
            member.mode, member.mtime = 0o444, bundle.release["epoch"]
            self.put(name, member, (content,))

    def take(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Check one member and write it."""
        top, _, path = member.name.partition("/")
        if top != self.name or posixpath.normpath(path) != path or posixpath.dirname(path) not in self.directories:
            raise self.refused(member.name, "it lies outside the release or in a directory the archive did not make")
        if path in self.seen or path in self.directories:
            raise self.refused(path, "it is there twice")
        if member.mode & 0o7022:
            raise self.refused(path, f"its mode {member.mode:o} has setuid, setgid, sticky or foreign write bits")
        if member.isdir():
            self.directories[path] = member.mtime
            if self.into:
                (self.into / path).mkdir(mode=0o755)
        elif member.issym():
            self.take_link(path, member.linkname)
        elif member.isreg():
            self.take_file(tar, member, path)
        else:
            raise self.refused(path, "it is neither a file, a directory nor a symbolic link")

    def take_link(self, path: str, target: str) -> None:
        """A symbolic link must be the one RELEASE.json lists, and stay inside."""
        if self.links.get(path) != target or link_leaves(path, target):
            raise self.refused(path, f"this link to {target!r} leaves the release or is not listed in RELEASE.json")
        self.seen.add(path)
        if self.into:
            (self.into / path).symlink_to(target)

    def take_file(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        """A file must have the content the manifest promises."""
        self.room -= member.size
        if path not in self.manifest or self.room < 0:
            raise self.refused(path, "the manifest does not list it or it is larger than announced")
        if member.size > LARGE:
            content = tar.extractfile(member)
            assert content is not None  # noqa: S101  regular, as checked by the caller
            self.put(path, member, iter(lambda: content.read(1 << 20), b""))
        else:
            self.crew.add(member.size, partial(self.put, path, member, (read_small(tar, member),)))
        self.seen.add(path)

    def put(self, path: str, member: tarfile.TarInfo, chunks: Iterable[bytes]) -> None:
        """Hash a file and write it, born read-only; nothing is written when only verifying."""
        sha, out = hashlib.sha256(), -1
        if self.into:
            out = os.open(f"{self.into}/{path}", CREATE, 0o555 if member.mode & 0o111 else 0o444)
        try:
            for chunk in chunks:
                sha.update(chunk)
                write_all(out, chunk)
            if sha.hexdigest() != self.manifest[path]:
                raise self.refused(path, "its content differs from MANIFEST.sha256")
            if self.into:
                os.utime(out, (member.mtime, member.mtime))
        finally:
            if self.into:
                os.close(out)

    def complete(self) -> None:
        """Nothing that was promised may be missing; directories get their final mode, the deepest first."""
        if missing := sorted((self.manifest.keys() | self.links.keys()) - self.seen):
            raise self.refused(missing[0], f"it is missing ({len(missing)} in all)")
        for path, mtime in reversed(self.directories.items()) if self.into else ():
            os.utime(f"{self.into}/{path}", (mtime, mtime))
            Path(f"{self.into}/{path}").chmod(0o555)

    def refused(self, path: str, why: str) -> Refused:
        """One sentence for any bad member."""
        return Refused(f"{self.name}: {path!r} in the bundle is refused: {why}. Build the bundle again.")


def read_small(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The content of the member that was just met; without the file object that `extractfile` makes of each."""
    stream = tar.fileobj
    assert stream is not None  # noqa: S101  open, as long as members come out of it
    stream.seek(member.offset_data)
    content: bytes = stream.read(member.size)
    if len(content) != member.size:
        raise tarfile.ReadError("unexpected end of data")
    return content


def write_all(out: int, data: bytes) -> None:
    """Every byte, or an error: a disk that fills up takes a part of a write without one. Nothing when `out` is -1."""
    view = memoryview(data)
    while out >= 0 and view:
        view = view[os.write(out, view) :]


def link_leaves(path: str, target: str) -> bool:
    """Whether a link could lead outside.

    `..` is allowed only in front, where it climbs real directories: then each link ends inside whatever other
    links it passes through.
    """
    inner = target
    while inner.startswith("../"):
        inner = inner[3:]
    climbs = (len(target) - len(inner)) // 3
    return target.startswith("/") or ".." in inner.split("/") or climbs > path.count("/")


def unpack(bundle: Bundle, into: Path | None) -> dict[str, Any]:
    """Verify every member against the manifest, writing them below `into` when it is given."""
    with members(bundle) as tar:
        read_head(tar, bundle)
        with Crew() as crew:
            tree = Tree(bundle, into, crew)
            while member := tar.next():
                tree.take(tar, member)
            crew.finish()
    tree.complete()
    manifest = hashlib.sha256(bundle.head["MANIFEST.sha256"]).hexdigest()
    about = {key: bundle.release[key] for key in ("name", "version", "standin", "debian", "arch")}
    return about | {"signer": bundle.signer, "manifest_sha256": manifest, "files": len(tree.manifest) - 1}
