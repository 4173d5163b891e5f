"""Release bundles: opened only when the signature holds, and their head (standard library only).

A bundle is `mastodon-<version>-debian<n>-<arch>[-standin].tar.zst` with a detached SSH signature beside it (`.sig`,
PROTOCOL.sshsig of OpenSSH). Nothing of it is parsed before the signature holds.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roles.mastodon.files.release_signature import private_copy, signed_by
    from roles.mastodon.files.release_tree import NAME, Refused
else:  # on the host the programs lie side by side
    from release_signature import private_copy, signed_by
    from release_tree import NAME, Refused

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


@contextlib.contextmanager
def members(bundle: Bundle) -> Iterator[tarfile.TarFile]:
    """The archive as a stream, decompressed by Debian's zstd; broken data at any point is a refusal."""
    bundle.data.seek(0)
    zstd = subprocess.Popen(["zstd", "-dcq"], stdin=bundle.data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert zstd.stdout is not None  # noqa: S101  asked for above; says so to the type checker
    try:
        with tarfile.open(fileobj=zstd.stdout, mode="r|", bufsize=1 << 20) as tar:
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
