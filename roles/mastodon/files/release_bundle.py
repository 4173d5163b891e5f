"""Release bundles: signature, head, and every member on its way out of the archive (standard library only).

A bundle is `mastodon-<version>-debian<n>-<arch>[-standin].tar.zst` with a detached SSH signature beside it (`.sig`,
PROTOCOL.sshsig of OpenSSH). Nothing of it is parsed before the signature holds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import posixpath
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roles.mastodon.files.release_tree import NAME, Refused, parse_manifest
else:  # on the host the programs lie side by side
    from release_tree import NAME, Refused, parse_manifest

FORMAT = 1
HEAD = ("RELEASE.json", "MANIFEST.sha256")


@dataclass
class Bundle:
    """A bundle whose signature holds; `data` is a private copy, so the file may change without effect."""

    path: Path
    data: IO[bytes]
    signer: str
    head: dict[str, bytes] = field(default_factory=dict)  # RELEASE.json and MANIFEST.sha256
    release: dict[str, Any] = field(default_factory=dict)


def private_copy(path: Path) -> IO[bytes]:
    """The bundle's bytes in an unlinked file: what was verified is what gets unpacked."""
    if not path.is_file():
        raise Refused(f"{path}: there is no such file. Name a bundle made by `mastodon-gov release build`.")
    copy = tempfile.TemporaryFile(dir="/var/tmp")  # noqa: SIM115  outlives this function; /tmp may be memory
    with path.open("rb") as source:
        shutil.copyfileobj(source, copy, 1 << 20)
    copy.flush()
    return copy


def signed_by(path: Path, data: IO[bytes], signers: Path, namespace: str) -> str:
    """The principal in `signers` whose SSH signature (PATH.sig) covers the data; refused otherwise."""
    signature = path.with_name(path.name + ".sig")
    for needed, what in ((signature, "signature"), (signers, "list of allowed signers")):
        if not needed.is_file():
            raise Refused(f"{path.name}: its {what} {needed} is missing. Put it there and run again.")
    by = ["-s", str(signature), "-f", str(signers)]
    found = subprocess.run(["ssh-keygen", "-Y", "find-principals", *by], capture_output=True, check=False)
    who = found.stdout.decode().partition("\n")[0].strip()
    if found.returncode or not who:
        raise Refused(
            f"{path.name}: it is not signed by a key that {signers} allows. Get the bundle from the ministry's "
            "own store, or let whoever keeps that file add the key."
        )
    data.seek(0)
    verify = ["ssh-keygen", "-Y", "verify", "-I", who, "-n", namespace, *by]
    held = subprocess.run(verify, stdin=data, capture_output=True, check=False)
    if held.returncode:
        raise Refused(
            f"{path.name}: the signature of {who} for {namespace!r} does not cover this file: it was changed or cut "
            "off after signing, or signed for another purpose. Copy it again from where it was built."
        )
    return who


@contextlib.contextmanager
def members(bundle: Bundle) -> Iterator[tarfile.TarFile]:
    """The archive as a stream, decompressed by Debian's zstd; broken data at any point is a refusal."""
    bundle.data.seek(0)
    zstd = subprocess.Popen(["zstd", "-dcq"], stdin=bundle.data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert zstd.stdout is not None  # noqa: S101  asked for above; says so to the type checker
    try:
        with tarfile.open(fileobj=zstd.stdout, mode="r|") as tar:
            yield tar
            while zstd.stdout.read(1 << 20):
                pass
        if zstd.wait():
            raise tarfile.ReadError("zstd reports damaged data")
    except (tarfile.TarError, EOFError) as error:
        raise Refused(f"{bundle.path.name}: the archive is broken ({error}). Build it again.") from error
    finally:
        zstd.stdout.close()
        zstd.kill()
        zstd.wait()


def read_head(tar: tarfile.TarFile, bundle: Bundle) -> None:
    """Read what leads every archive: the top directory, RELEASE.json, MANIFEST.sha256; all must agree."""
    top = ""
    for expected in ("", *HEAD):
        member = tar.next()
        top, _, inside = member.name.partition("/") if member else ("", "", "")
        content = tar.extractfile(member) if member and expected else None
        if not NAME.fullmatch(top) or inside != expected or (content is None) == bool(expected):
            raise Refused(
                f"{bundle.path.name}: a bundle begins with <version>-<digest8>/, RELEASE.json and MANIFEST.sha256, "
                f"found {member.name if member else 'its end'!r}. Build it with `mastodon-gov release build`."
            )
        if content:
            bundle.head[expected] = content.read()
    bundle.release = json.loads(bundle.head["RELEASE.json"])
    check_identity(bundle, top)


def check_identity(bundle: Bundle, top: str) -> None:
    """The file's name, the top directory and RELEASE.json must tell the same story."""
    r = bundle.release
    if r.get("format") != FORMAT:
        raise Refused(f"{bundle.path.name}: bundle format {r.get('format')}, this program reads {FORMAT}.")
    file = f"mastodon-{r['version']}-debian{r['debian']}-{r['arch']}{'-standin' * r['standin']}.tar.zst"
    if bundle.path.name != file or {top, r["name"]} != {f"{r['version']}-{r['digest8']}"}:
        raise Refused(
            f"{bundle.path.name}: it holds {top!r}, release {r['name']!r} of {file!r}. "
            "A bundle keeps the name it was built under: give the file that name back, or build it again."
        )


class Tree:
    """Takes an archive's members in order and refuses whatever does not belong; writes them if given a place."""

    def __init__(self, bundle: Bundle, into: Path | None) -> None:
        self.name, self.into = bundle.release["name"], into
        self.manifest = parse_manifest(bundle.head["MANIFEST.sha256"])
        self.links: dict[str, str] = bundle.release["links"]
        self.room = int(bundle.release["bytes"])
        self.directories, self.seen = {"": 0.0}, set(HEAD)
        if hashlib.sha256(bundle.head["RELEASE.json"]).hexdigest() != self.manifest.get("RELEASE.json"):
            raise self.refused("RELEASE.json", "its content differs from MANIFEST.sha256")
        for name, content in bundle.head.items():
            with self.created(name, 0o444) as out:
                if out:
                    out.write(content)
                    os.utime(out.fileno(), (bundle.release["epoch"],) * 2)

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
        content, sha = tar.extractfile(member), hashlib.sha256()
        assert content is not None  # noqa: S101  regular, as checked by the caller
        with self.created(path, member.mode) as out:
            while chunk := content.read(1 << 20):
                sha.update(chunk)
                if out:
                    out.write(chunk)
            if sha.hexdigest() != self.manifest[path]:
                raise self.refused(path, "its content differs from MANIFEST.sha256")
            if out:
                os.utime(out.fileno(), (member.mtime, member.mtime))
        self.seen.add(path)

    def created(self, path: str, mode: int) -> contextlib.AbstractContextManager[IO[bytes] | None]:
        """A new file, born read-only and unbuffered (a late write would renew its time); None when only verifying."""
        if self.into is None:
            return contextlib.nullcontext()
        final = 0o555 if mode & 0o111 else 0o444
        return open(f"{self.into}/{path}", "xb", buffering=0, opener=lambda p, flags: os.open(p, flags, final))

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


def read_bundle(path: Path, signers: Path, namespace: str) -> Bundle:
    """A bundle whose signature holds and whose head is read."""
    data = private_copy(path)
    bundle = Bundle(path, data, signed_by(path, data, signers, namespace))
    with contextlib.suppress(Stop), members(bundle) as tar:
        read_head(tar, bundle)
        raise Stop
    return bundle


class Stop(Exception):
    """The rest of the stream is of no interest."""


def unpack(bundle: Bundle, into: Path | None) -> dict[str, Any]:
    """Verify every member against the manifest, writing them below `into` when it is given."""
    with members(bundle) as tar:
        read_head(tar, bundle)
        tree = Tree(bundle, into)
        while member := tar.next():
            tree.take(tar, member)
    tree.complete()
    manifest = hashlib.sha256(bundle.head["MANIFEST.sha256"]).hexdigest()
    about = {key: bundle.release[key] for key in ("name", "version", "standin", "debian", "arch")}
    return about | {"signer": bundle.signer, "manifest_sha256": manifest, "files": len(tree.manifest)}
