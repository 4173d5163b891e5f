"""Verifies, installs, checks, lists and prunes releases on a host (root, Debian 13, standard library only).

The result is JSON on stdout, a refusal one sentence on stderr with exit code 1. A release becomes visible by one
rename after every byte was verified; until then its directory's name starts with a dot.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roles.mastodon.files.release_bundle import Bundle, read_bundle
    from roles.mastodon.files.release_signature import private_copy, signed_by
    from roles.mastodon.files.release_tree import (
        HOME,
        Refused,
        check_tree,
        listing,
        locked,
        parse_manifest,
        prune,
        sweep,
    )
    from roles.mastodon.files.release_unpack import unpack
else:  # on the host the programs lie side by side
    from release_bundle import Bundle, read_bundle
    from release_signature import private_copy, signed_by
    from release_tree import HOME, Refused, check_tree, listing, locked, parse_manifest, prune, sweep
    from release_unpack import unpack


def install(bundle: Bundle, root: Path, allow_standin: bool) -> dict[str, Any]:
    """Unpack beside the final name, then rename; says so when the very same release is there and intact."""
    check_fits(bundle, root, allow_standin)
    releases = root / HOME / "releases"
    releases.mkdir(mode=0o755, parents=True, exist_ok=True)
    name = bundle.release["name"]
    with locked(releases):
        sweep(releases)
        if (releases / name).exists():
            return already_there(bundle, releases / name)
        check_space(bundle, releases)
        incoming = releases / f".incoming-{name}"
        incoming.mkdir(mode=0o755)
        try:
            result = unpack(bundle, incoming)
        except BaseException as error:
            shutil.rmtree(incoming)
            if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise Refused(
                    f"{bundle.path.name}: the disk of {releases} filled up while unpacking; what was written is gone "
                    "again. Run `mastodon-gov release prune` or enlarge the disk, then run this again."
                ) from error
            raise
        subprocess.run(["sync", "--file-system", str(incoming)], check=True)
        incoming.rename(releases / name)
        subprocess.run(["sync", str(releases)], check=True)
    return result | {"changed": True, "path": str(releases / name)}


def check_fits(bundle: Bundle, root: Path, allow_standin: bool) -> None:
    """Debian release, architecture, and whether a stand-in may be here at all."""
    lines = (root / "etc/os-release").read_text().splitlines()
    os_release = {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines)}
    arch = subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()
    here = f"{os_release.get('ID')} {os_release.get('VERSION_ID')} {arch}"
    needs = f"debian {bundle.release['debian']} {bundle.release['arch']}"
    if here != needs:
        raise Refused(
            f"{bundle.path.name}: it was built for {needs}, this host is {here}: gems and Node would not start. "
            "Build the version for this system with `mastodon-gov release build`."
        )
    if bundle.release["standin"] and not allow_standin:
        raise Refused(
            f"{bundle.path.name}: it is a stand-in, not Mastodon, and this instance is not marked as a lab. "
            "Install a bundle of real Mastodon."
        )


def check_space(bundle: Bundle, releases: Path) -> None:
    """Room for every byte, a block per entry, and a twentieth to spare."""
    files = parse_manifest(bundle.head["MANIFEST.sha256"])
    need = int((bundle.release["bytes"] + 4096 * len(files)) * 1.05)
    disk = os.statvfs(releases)
    if (free := disk.f_bavail * disk.f_frsize) < need or (disk.f_files > 0 and disk.f_favail < 2 * len(files)):
        raise Refused(
            f"{bundle.path.name}: unpacking needs {need >> 20} MiB and {2 * len(files)} inodes below {releases}, "
            f"free are {free >> 20} MiB and {disk.f_favail}. Run `mastodon-gov release prune` or enlarge the disk."
        )


def already_there(bundle: Bundle, final: Path) -> dict[str, Any]:
    """The release of this name is installed: intact and the same, or a person must look."""
    found = check_tree(final)
    manifest = hashlib.sha256(bundle.head["MANIFEST.sha256"]).hexdigest()
    if not found["intact"] or found["manifest_sha256"] != manifest:
        why = found["problems"][0] if found["problems"] else "its manifest is another one"
        raise Refused(
            f"{final}: a release of this name is installed but differs from the bundle ({why}). Nothing was written. "
            f"Find out who changed it; then `mv {final} {final}.damaged` and install again."
        )
    return found | {"changed": False, "path": str(final), "signer": bundle.signer}


def arguments() -> argparse.Namespace:
    """The command line; exactly one thing to do."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", nargs="?", type=Path, help="install this bundle")
    parser.add_argument("--verify", action="store_true", help="only verify it, write nothing")
    parser.add_argument("--signers", type=Path, help="allowed_signers file of the ministry (see ssh-keygen(1))")
    parser.add_argument("--namespace", default="mastodon-release", help="purpose the signature must be made for")
    parser.add_argument("--allow-standin", action="store_true", help="this instance is a lab")
    parser.add_argument("--root", type=Path, default=Path("/"), help="the host's root directory")
    parser.add_argument("--signed", type=Path, metavar="FILE", help="only verify the signature FILE.sig of any file")
    parser.add_argument("--check", type=Path, metavar="DIRECTORY", help="compare an installed release")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--prune", action="store_true")
    args = parser.parse_args()
    signed = args.bundle or args.signed
    if sum(map(bool, (signed, args.check, args.list, args.prune))) != 1 or (signed and not args.signers):
        parser.error("give a bundle or --signed with --signers, or one of --check, --list, --prune")
    return args


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Do the one thing asked for."""
    if args.check:
        return check_tree(args.check)
    if args.list or args.prune:
        return listing(args.root) if args.list else prune(args.root)
    if args.signed:
        with private_copy(args.signed) as data:
            return {"signer": signed_by(args.signed, data, args.signers, args.namespace)}
    bundle = read_bundle(args.bundle, args.signers, args.namespace)
    return unpack(bundle, None) if args.verify else install(bundle, args.root, args.allow_standin)


def main() -> int:
    """Exit code 0: done or intact; 1: refused or damaged."""
    os.umask(0o022)  # releases are world-readable, whatever the caller's mask
    try:
        result = run(arguments())
    except (Refused, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0 if result.get("intact", True) else 1


if __name__ == "__main__":
    sys.exit(main())
