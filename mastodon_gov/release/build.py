"""Builds a bundle on a clean Debian 13 machine. Each phase that is done stays done until its inputs change."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from mastodon_gov.errors import Refusal
from mastodon_gov.release import bundle, fetching, pack, sbom
from mastodon_gov.release.bundle import Release
from mastodon_gov.release.machine import DEBIAN, Machine, prepare, wanted
from mastodon_gov.release.pins import Version, pins
from mastodon_gov.release.recipe import Downloads, Recipe
from mastodon_gov.release.remote import Failed, Remote
from mastodon_gov.release.sources import Sources

Say = Callable[[str], None]
PROGRESS = "progress: "  # begins a line of stderr that is no complaint
WORK = "/var/tmp/mastodon-build"  # noqa: S108  on the builder, owned by root; survives a reboot on purpose
RELEASES = "/opt/mastodon/releases"

# The probe must reach this machine's own SSH server from outside the new network namespace, and fail inside it:
# without the first half, a probe that never works would pass for a network that is off.
COMPILE = """set -e
set -- $SSH_CONNECTION
cat > {work}/probe.py <<'END'
import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).close()
END
python3 {work}/probe.py "$3" "$4" || {{ echo "the probe of the network does not work on this builder" >&2; exit 1; }}
rm -rf {dest}
install -d -o mastodon-build {dest}
unshare --net --pid --fork --kill-child --mount-proc sh -ec '
  ip link set lo up
  if python3 {work}/probe.py "$1" "$2" 2>/dev/null; then
    echo "the network is still there in the compile phase" >&2; exit 1; fi
  shift 2; exec "$@"' sh "$3" "$4" {step} >&2
"""


@dataclass(frozen=True)
class Builder:
    """One build: the machine, what is built, where from, who hears of it."""

    remote: Remote
    recipe: Recipe
    version: str
    sources: Sources
    say: Say

    @property
    def pin(self) -> Version:
        """The pinned version; an unknown one is refused."""
        return pins().version(self.version)

    @property
    def work(self) -> str:
        """Directory on the builder; one per recipe and version."""
        return f"{WORK}/{'standin' if self.recipe.standin else 'mastodon'}-{self.version}"

    def phase(self, name: str, key: str, script: str) -> None:
        """Run a phase, or keep what an earlier run finished from the same inputs; says which and how long."""
        done = f"{self.work}/{name}.done"
        if self.remote.run(f"cat {done} 2>/dev/null || true").strip() == key:
            self.say(f"{name:9} kept from an earlier run")
            return
        began = time.monotonic()
        self.say(f"{name:9} …")
        lock = f"exec 9>{self.work}.lock; flock -n 9 || {{ echo 'another build is at work there' >&2; exit 1; }}"
        try:
            self.remote.follow(f"{lock}\nrm -f {done}\n{script}\necho {key} > {done}", partial(self.hear, name))
        except Failed as error:
            lines = [line for line in error.output.splitlines() if not line.startswith(PROGRESS)]
            tail = "\n  ".join(lines[-15:])
            raise Refusal(
                f"release build {self.version}: phase {name} failed on {self.remote.ssh[-1]}:\n  {tail}\n"
                "Finished phases are kept there: run the same command again when the cause is gone."
            ) from error
        self.say(f"{name:9} {time.monotonic() - began:.1f} s")

    def hear(self, name: str, line: str) -> None:
        """Pass on what a phase says of its progress."""
        if line.startswith(PROGRESS):
            self.say(f"{name:9} {line.removeprefix(PROGRESS)}")

    def release(self, machine: Machine) -> Release:
        """RELEASE.json; its digest covers everything that goes in, so the path is known before building."""
        source = self.recipe.digest()
        inputs = {"commit": self.pin.commit, "recipe": source, "node": pins().node.model_dump(), "debian": DEBIAN}
        inputs |= {"version": self.version, "arch": machine.arch, "toolchain": machine.toolchain}
        inputs |= {"other": other} if (other := self.sources.other_content()) else {}
        digest8 = sha256({**inputs, "format": bundle.FORMAT})[:8]
        return Release(
            name=f"{self.version}-{digest8}",
            version=self.version,
            digest8=digest8,
            standin=self.recipe.standin,
            commit=None if self.recipe.standin else self.pin.commit,
            source_digest=source,
            debian=DEBIAN,
            arch=machine.arch,
            epoch=self.pin.epoch,
            build_date=datetime.fromtimestamp(self.pin.epoch, UTC).isoformat(),
            node=None,
            toolchain=machine.toolchain,
            runtime_packages=self.recipe.packages("runtime"),
        )

    def user(self, *words: str, network: bool) -> str:
        """A command as the unprivileged user, with nothing of this machine's environment."""
        ca = f"{self.work}/extra-ca.pem"
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": f"{self.work}/home",
            "LANG": "C.UTF-8",
            "PYTHONPATH": f"{self.work}/program",
            "SOURCE_DATE_EPOCH": str(self.pin.epoch),
            "MASTODON_COMMIT": self.pin.commit,
            "NODE_VERSION": pins().node.version,
            "NODE_INTEGRITY": " ".join(f"{arch}={value}" for arch, value in pins().node.integrity.items()),
            **(self.sources.environment(ca) if network else {}),
        }
        user = ["setpriv", "--reuid=mastodon-build", "--regid=mastodon-build", "--clear-groups", "--no-new-privs"]
        given = [f"{name}={value}" for name, value in environment.items()]
        return shlex.join([*user, "env", "-i", f"--chdir={self.work}/home", *given, *words])

    def step(self, *words: str, network: bool) -> str:
        """One step of the recipe."""
        return self.user(f"{self.work}/recipe/assemble", *words, network=network)

    def fetch(self, arch: str) -> None:
        """Bring the recipe to the builder and download, the only phase with a network."""
        recipe = f"{self.work}/recipe"
        self.remote.run(
            f"rm -rf {recipe}; mkdir {recipe}; tar -x --no-same-owner -C {recipe}", stdin=self.recipe.archive()
        )
        if self.sources.ca_file:
            self.remote.put(self.sources.ca_file.read_bytes(), f"{self.work}/extra-ca.pem")
        key = {"version": self.version, "recipe": self.recipe.digest(), "other": self.sources.other_content()}
        downloads = self.recipe.downloads()
        if downloads is None:
            step = self.step("fetch", self.version, f"{self.work}/cache", network=True)
        else:
            step = self.fetch_program(downloads, arch)
        self.phase("fetch", sha256(key), f"set -e; {step} >&2")

    def fetch_program(self, downloads: Downloads, arch: str) -> str:
        """The command that does what fetch.yaml says; its job may hold a password, so only root reads the file."""
        fetching.send_program(self.remote, self.work)
        if self.sources.offline_dir:
            fetching.send_directory(self.remote, self.sources.offline_dir, f"{self.work}/cache")
        job = fetching.job(downloads, self.sources, self.pin.commit, arch, self.work)
        self.remote.put(json.dumps(job).encode(), f"{self.work}/fetch.json", mask="077")
        return f"{self.user('python3', '-B', '-m', 'fetch', network=True)} < {self.work}/fetch.json"

    def compile(self, release: Release) -> None:
        """Let the recipe build at the final path in a network namespace without routes, and prove that it is one."""
        dest = f"{RELEASES}/{release.name}"
        step = self.step("compile", self.version, f"{self.work}/cache", dest, network=False)
        script = COMPILE.format(work=self.work, dest=dest, step=step)
        self.phase("compile", release.name, script)

    def pack(self, release: Release, runtime: dict[str, str]) -> str:
        """Write the archive on the builder; returns its path there."""
        dest, archive = f"{RELEASES}/{release.name}", f"{self.work}/{release.file}"
        self.remote.put(Path(pack.__file__).read_bytes(), f"{self.work}/pack.py")
        inventory = json.loads(self.remote.run(f"python3 -B {self.work}/pack.py inventory {dest}"))
        done = release.model_copy(update={"node": inventory["node"]})
        given = {
            "release": done.model_dump(exclude={"files", "bytes"}),
            "sbom": sbom.bill(done, inventory, runtime),
        }
        self.remote.put(json.dumps(given).encode(), f"{self.work}/pack.json")
        script = f"set -e; python3 -B {self.work}/pack.py pack {dest} {archive} < {self.work}/pack.json"
        self.phase("pack", sha256({"given": given, "pack": Path(pack.__file__).read_text()}), script)
        return archive

    def bring(self, release: Release, archive: str, out: Path, key: Path, signers: Path) -> Path:
        """Copy the archive here, sign it, verify it as a host will, and only then put it among the bundles."""
        began, staging = time.monotonic(), out / ".incoming"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        self.remote.get(archive, staging / release.file)
        signature = bundle.sign(staging / release.file, key)
        result = bundle.verify(staging / release.file, signers)
        signature.rename(out / signature.name)
        final = (staging / release.file).rename(out / release.file)
        staging.rmdir()
        took = f"{time.monotonic() - began:.1f} s"
        self.say(f"sign      {took}: copied, signed by {result['signer']}, {result['files']} files verified")
        return final


def build(builder: Builder, out: Path, key: Path, signers: Path, downloads: Path | None = None) -> Path:
    """All phases; returns the signed bundle in `out`, which is replaced only by a whole one.

    `downloads`: a directory that gets a copy of all that was downloaded, for an offline build elsewhere.
    """
    builder.pin  # noqa: B018  an unknown version is refused before any connection
    fetching.check_sources(builder.recipe.downloads(), builder.sources)
    began = time.monotonic()
    machine = prepare(builder.remote, builder.recipe, builder.work, RELEASES)
    builder.say(f"packages  {time.monotonic() - began:.1f} s ({len(wanted(builder.recipe))} wanted)")
    release = builder.release(machine)
    builder.say(f"release   {release.name} for debian{release.debian}-{release.arch}")
    builder.fetch(machine.arch)
    if downloads:
        fetching.bring_directory(builder.remote, f"{builder.work}/cache", downloads)
    builder.compile(release)
    archive = builder.pack(release, machine.runtime)
    return builder.bring(release, archive, out, key, signers)


def sha256(value: dict[str, Any]) -> str:
    """Digest of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
