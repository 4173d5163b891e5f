"""Detached SSH signatures of bundles and of lists of versions (PROTOCOL.sshsig of OpenSSH; standard library only)."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from roles.mastodon.files.release_tree import Refused
else:  # on the host the programs lie side by side
    from release_tree import Refused


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
