"""Bundles on hosts: send and install, list, prune. roles/mastodon/files/release_install.py does the work there."""

from __future__ import annotations

import json
import shlex
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from mastodon_gov.errors import Refusal
from mastodon_gov.release.bundle import NAMESPACE, PROGRAMS, read_release
from mastodon_gov.release.remote import Remote

RELEASES = "/opt/mastodon/releases"
# Everything needed comes along in one tar on stdin, into a directory only root can read, and is gone afterwards.
CARRIED = """set -e
umask 077
mkdir -p /var/lib/mastodon-gov
exec 9>/var/lib/mastodon-gov/release.lock
flock -n 9 || {{ echo "$(hostname): another release is being sent there. Wait for it and run again." >&2; exit 1; }}
d=/var/lib/mastodon-gov/release-incoming
rm -rf $d
mkdir $d
trap 'rm -rf $d' EXIT
tar -x --no-same-owner -C $d
cd $d
python3 -B release_install.py {arguments} > answer || [ -s answer ]
cat answer
"""


def install_on(host: Remote, bundle: Path, signers: Path, *, allow_standin: bool) -> dict[str, Any]:
    """Install a bundle on a host; `changed` is false, and little was sent, when it is there and intact."""
    release, manifest = read_release(bundle)
    there = check_on(host, release.name)
    if there and there["intact"] and there["manifest_sha256"] == manifest and (allow_standin or not release.standin):
        return there | {"changed": False}
    arguments = [bundle.name, "--signers", "allowed_signers", "--namespace", NAMESPACE]
    arguments += ["--allow-standin"] if allow_standin else []
    signature = bundle.with_name(bundle.name + ".sig")
    for needed in (signers, signature):
        if not needed.is_file():
            raise Refusal(f"{bundle.name}: {needed} is missing. A bundle travels with its signature and the signers.")
    return carried(host, arguments, {"allowed_signers": signers, bundle.name: bundle, signature.name: signature})


def check_on(host: Remote, name: str) -> dict[str, Any] | None:
    """What an installed release is like; None when it is not installed."""
    names = [release["name"] for release in list_on(host)["releases"]]
    return carried(host, ["--check", f"{RELEASES}/{name}"]) if name in names else None


def list_on(host: Remote) -> dict[str, Any]:
    """Installed releases, and which of them slots and `current` point to."""
    return carried(host, ["--list"])


def prune_on(host: Remote) -> dict[str, Any]:
    """Remove releases that nothing points to; at least two stay."""
    return carried(host, ["--prune"])


def carried(host: Remote, arguments: list[str], files: dict[str, Path] | None = None) -> dict[str, Any]:
    """Run the host's program with files it needs; its JSON, also when it finds damage (exit code 1)."""
    programs = {path.name: path for path in PROGRAMS.glob("release_*.py")}
    with tempfile.TemporaryFile(dir="/var/tmp") as raw:
        with tarfile.open(fileobj=raw, mode="w") as tar:
            for name, path in {**programs, **(files or {})}.items():
                tar.add(path, arcname=name)
        raw.seek(0)
        answer = host.run(CARRIED.format(arguments=shlex.join(arguments)), stdin=raw)
    result: dict[str, Any] = json.loads(answer)
    return result
