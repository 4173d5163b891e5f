"""What the control node reads from a bundle, writes about it, and how it is signed and verified."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, StringConstraints, ValidationError

from mastodon_gov.errors import Refusal
from mastodon_gov.instance.node import ReleaseBundle
from mastodon_gov.migrations import Migrations, read_paths
from mastodon_gov.release.pins import Frozen

NAMESPACE = "mastodon-release"
FORMAT = 1
PROGRAMS = Path(__file__).parents[2] / "roles/mastodon/files"
INSTALLER = PROGRAMS / "release_install.py"
# Debian policy 5.6.1. A bundle is data: what it lists must not be able to say anything else to apt.
PackageName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+.-]+$")]


class Release(Frozen):
    """RELEASE.json, as far as it is known before packing; `epoch` in seconds since 1970, `bytes` unpacked."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: int = FORMAT
    name: str
    version: str
    digest8: str
    standin: bool
    commit: str | None
    source_digest: str | None
    debian: str
    arch: str
    epoch: int
    build_date: str
    node: str | None
    toolchain: dict[str, str]
    runtime_packages: list[PackageName]
    files: int = 0
    bytes: int = 0

    @property
    def file(self) -> str:
        """The archive's file name."""
        standin = "-standin" if self.standin else ""
        return f"mastodon-{self.version}-debian{self.debian}-{self.arch}{standin}.tar.zst"


def read_release(bundle: Path) -> tuple[Release, str]:
    """RELEASE.json and the manifest's SHA-256, without unpacking the rest. It does not verify: `verify` does."""
    release, manifest = _head(bundle)
    return release, hashlib.sha256(manifest).hexdigest()


def differences(one: Path, other: Path) -> list[str]:
    """Paths whose content, presence or link differs between two bundles."""
    (_, manifest), (_, other_manifest) = _head(one), _head(other)
    lines = set(manifest.decode().splitlines()) ^ set(other_manifest.decode().splitlines())
    paths = {line.split("  ", 1)[1] for line in lines}
    return sorted(paths)


def migrations_of(bundle: Path) -> Migrations:
    """The migrations that the bundle's manifest lists."""
    _, manifest = _head(bundle)
    return read_paths(line.split("  ", 1)[1] for line in manifest.decode().splitlines() if "  " in line)


def migration_texts(bundle: Path, wanted: frozenset[str]) -> dict[str, str]:
    """The text of migrations with these numbers, by path. Reads the archive to their end: seconds for real Mastodon.

    Raises Refusal when the archive ends before it has shown all of them.
    """
    texts: dict[str, str] = {}
    with subprocess.Popen(["zstd", "-dcq", bundle], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as zstd:
        with suppress(tarfile.TarError, EOFError), tarfile.open(fileobj=zstd.stdout, mode="r|") as tar:
            for member in tar:
                if len(texts) == len(wanted):
                    break
                path = member.name.partition("/")[2]
                if read_paths([path]).known & wanted and (text := tar.extractfile(member)):
                    texts[path] = text.read().decode(errors="replace")
        zstd.kill()
    if missing := wanted - read_paths(texts).known:
        raise Refusal(
            f"{bundle}: it is cut off or damaged: the migration {min(missing)} that it lists cannot be read. "
            "Copy it again from where it was built."
        )
    return texts


def _head(bundle: Path) -> tuple[Release, bytes]:
    """RELEASE.json and the manifest, which stand first in a bundle."""
    with subprocess.Popen(["zstd", "-dcq", bundle], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as zstd:
        try:
            with tarfile.open(fileobj=zstd.stdout, mode="r|") as tar:
                tar.next()  # the top directory
                head = [stream.read() for _ in "ab" if (m := tar.next()) and (stream := tar.extractfile(m))]
            return Release.model_validate_json(head[0]), head[1]
        except (tarfile.TarError, EOFError, IndexError, ValidationError) as error:
            raise Refusal(
                f"{bundle}: this is no release bundle. Bundles are made by `mastodon-gov release build`."
            ) from error
        finally:
            zstd.kill()


def verify(bundle: Path, signers: Path) -> dict[str, Any]:
    """The host's own verification, run here: signature, every file, every link. Needs no network."""
    argv = [sys.executable, str(INSTALLER), str(bundle), "--verify", "--signers", str(signers)]
    done = subprocess.run([*argv, "--namespace", NAMESPACE], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refusal(done.stderr.strip())
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def verify_signature(file: Path, signers: Path) -> None:
    """Refuse a file whose detached signature is not by one of the signers; done by the hosts' own program."""
    argv = [sys.executable, str(INSTALLER), "--signed", str(file), "--signers", str(signers), "--namespace", NAMESPACE]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refusal(done.stderr.strip())


@contextmanager
def signers_of(bundle: ReleaseBundle) -> Iterator[Path]:
    """Who may sign for the instance, as a file for as long as the block runs."""
    with tempfile.NamedTemporaryFile("w", suffix=".signers") as signers:
        signers.write(bundle.signers)
        signers.flush()
        yield Path(signers.name)


def check_signature(bundle: ReleaseBundle) -> None:
    """Refusal unless the archive is signed by a key that the instance allows; its files are not looked at."""
    with signers_of(bundle) as signers:
        verify_signature(Path(bundle.archive), signers)


def sign(bundle: Path, key: Path) -> Path:
    """The detached signature FILE.sig, by Debian's ssh-keygen; a passphrase is asked on the terminal."""
    if not key.is_file():
        raise Refusal(f"{key}: the key to sign with is not there. Name it with --key (see docs/operator/releases.md).")
    signature = bundle.with_name(bundle.name + ".sig")
    signature.unlink(missing_ok=True)
    argv = ["ssh-keygen", "-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(bundle)]
    done = subprocess.run(argv, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise Refusal(f"{key}: ssh-keygen did not sign {bundle.name}: {done.stderr.strip()}")
    return signature


def lab_key(directory: Path) -> tuple[Path, Path]:
    """A key and its allowed_signers file for stand-ins, made on first use: no ministry would trust it."""
    key, signers = directory / "standin-key", directory / "allowed_signers"
    if not key.exists():
        directory.mkdir(parents=True, exist_ok=True)
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "stand-in", "-f", str(key)]
        subprocess.run(keygen, check=True)
    public = key.with_name(key.name + ".pub").read_text()
    line = f'standin@lab namespaces="{NAMESPACE}" {public}'
    known = signers.read_text() if signers.exists() else ""
    if line not in known:
        part = signers.with_name(signers.name + ".part")
        part.write_text(known + line)
        os.replace(part, signers)
    return key, signers
