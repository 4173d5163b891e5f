"""Building on a clean machine, with the stand-in and with tiny recipes; installing on another one."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from mastodon_gov.errors import Refusal
from mastodon_gov.lab.lab import Lab
from mastodon_gov.lab.state import MachineSpec
from mastodon_gov.release import build, hosts
from mastodon_gov.release.build import Builder
from mastodon_gov.release.bundle import lab_key, read_release, verify
from mastodon_gov.release.cli import LAB_CA
from mastodon_gov.release.machine import prepare, wanted
from mastodon_gov.release.recipe import STANDIN, Entry, Recipe, read_recipe
from mastodon_gov.release.remote import Remote
from mastodon_gov.release.sources import Sources

MakeLab = Callable[[str, Sequence[MachineSpec]], Lab]
VERSION = "4.6.5"
# Fails the first time as a broken download does; its compile step says what it can reach.
TINY = """#!/bin/sh
set -e
case $1 in
  fetch) [ -e "$3/tried" ] || { touch "$3/tried"; echo "download broke off" >&2; exit 7; } ;;
  compile)
    echo "as $(id -un), at $4" > "$4/facts"
    ip -o addr show scope global >> "$4/facts" ;;
esac
"""


@dataclass
class Workshop:
    """Two clean machines: one builds, one gets releases."""

    builder: Remote
    target: Remote
    out: Path
    said: list[str] = field(default_factory=list)

    def build(self, recipe: Recipe) -> Path:
        """Build and sign; what was said is kept."""
        self.said.clear()
        job = Builder(self.builder, recipe, VERSION, Sources(ca_file=LAB_CA), self.said.append)
        return build.build(job, self.out, *lab_key(self.out))

    def forget(self) -> None:
        """Make the builder clean again."""
        self.builder.run(f"rm -rf {build.WORK}/* {build.RELEASES}/*")


@pytest.fixture(scope="module")
def workshop(make_lab: MakeLab, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """The machines live as long as this module's tests."""
    packages = tuple(wanted(read_recipe(STANDIN, standin=True)))
    specs = [MachineSpec("builder", packages), MachineSpec("target", ("zstd",))]
    lab = make_lab("release", specs)
    ssh = ("ssh", "-F", str(lab.ssh_config))
    return Workshop(Remote((*ssh, "builder")), Remote((*ssh, "target")), tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def tiny(workshop: Workshop, tmp_path: Path) -> Iterator[Recipe]:
    """A recipe of a few lines, on a builder that remembers nothing."""
    workshop.forget()
    (tmp_path / "assemble").write_text(TINY)
    (tmp_path / "assemble").chmod(0o755)
    (tmp_path / "build-packages.txt").write_text("ruby\n")
    (tmp_path / "runtime-packages.txt").write_text("ruby  # the version that runs\n")
    yield read_recipe(tmp_path, standin=True)
    workshop.forget()


def manifest_of(bundle: Path) -> list[str]:
    """The manifest's lines."""
    plain = subprocess.run(["zstd", "-dcq", bundle], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        name = next(name for name in tar.getnames() if name.endswith("/MANIFEST.sha256"))
        content = tar.extractfile(name)
        assert content
        return content.read().decode().splitlines()


def installed(workshop: Workshop, name: str, path: str) -> str:
    """A file of an installed release."""
    return workshop.target.run(f"cat /opt/mastodon/releases/{name}/{path}")


def test_a_failed_download_is_named_and_the_next_run_goes_on_and_keeps_what_is_done(
    workshop: Workshop, tiny: Recipe
) -> None:
    with pytest.raises(Refusal, match=r"phase fetch failed on builder(?s:.*)download broke off"):
        workshop.build(tiny)
    workshop.build(tiny)
    before = workshop.builder.run(f"find {build.RELEASES} -printf '%p %T@\\n' | sort")
    workshop.build(tiny)
    kept = [line.split()[0] for line in workshop.said if "kept" in line]
    assert kept == ["fetch", "compile", "pack"]
    assert workshop.builder.run(f"find {build.RELEASES} -printf '%p %T@\\n' | sort") == before


def test_compiling_happens_unprivileged_at_the_final_path_without_a_network(workshop: Workshop, tiny: Recipe) -> None:
    workshop.builder.run(f"install -d -m 777 {build.WORK}/standin-{VERSION}/cache")
    workshop.builder.run(f"touch {build.WORK}/standin-{VERSION}/cache/tried")
    about, _ = read_release(workshop.build(tiny))
    facts = workshop.builder.run(f"cat {build.RELEASES}/{about.name}/facts")
    assert facts == f"as mastodon-build, at /opt/mastodon/releases/{about.name}\n", "no address is left in there"
    assert "ruby3.3" in about.toolchain, "the toolchain goes as deep as the interpreter itself"


def test_a_compile_phase_that_still_has_the_network_is_refused(
    workshop: Workshop, tiny: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.builder.run(f"install -d -m 777 {build.WORK}/standin-{VERSION}/cache")
    workshop.builder.run(f"touch {build.WORK}/standin-{VERSION}/cache/tried")
    monkeypatch.setattr(build, "COMPILE", build.COMPILE.replace("unshare --net", "unshare"))
    with pytest.raises(Refusal, match="the network is still there in the compile phase"):
        workshop.build(tiny)
    assert not list(workshop.out.glob(".incoming*"))


def test_a_server_is_no_builder(workshop: Workshop, tiny: Recipe) -> None:
    workshop.builder.run("ln -s releases/x /opt/mastodon/current; touch /opt/mastodon/releases/x")
    try:
        with pytest.raises(Refusal, match="a server, not a clean builder"):
            workshop.build(tiny)
    finally:
        workshop.builder.run("rm /opt/mastodon/current /opt/mastodon/releases/x")


@pytest.mark.long
def test_the_standin_twice_from_nothing_has_the_same_bytes_and_installs(workshop: Workshop) -> None:
    recipe = read_recipe(STANDIN, standin=True)
    bundle = workshop.build(recipe)
    once, files = hashlib.sha256(bundle.read_bytes()).hexdigest(), manifest_of(bundle)
    workshop.forget()
    bundle = workshop.build(recipe)
    assert set(manifest_of(bundle)) ^ set(files) == set(), "these files differ between two builds"
    assert hashlib.sha256(bundle.read_bytes()).hexdigest() == once
    signers = workshop.out / "allowed_signers"
    assert verify(bundle, signers)["standin"] is True
    about, manifest = read_release(bundle)

    with pytest.raises(Refusal, match="stand-in, not Mastodon"):
        hosts.install_on(workshop.target, bundle, signers, allow_standin=False)
    first = hosts.install_on(workshop.target, bundle, signers, allow_standin=True)
    again = hosts.install_on(workshop.target, bundle, signers, allow_standin=True)
    assert (first["changed"], again["changed"]) == (True, False)
    assert first["manifest_sha256"] == manifest
    shipped = json.loads(installed(workshop, about.name, "RELEASE.json"))
    assert shipped["runtime_packages"] == recipe.packages("runtime")
    assert workshop.target.run(f"{build.RELEASES}/{about.name}/node/bin/node --version").startswith("v")
    sbom = installed(workshop, about.name, "sbom.cdx.json")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(sbom) is None
    kinds = {part["purl"].partition("/")[0] for part in json.loads(sbom)["components"]}
    assert {"pkg:gem", "pkg:npm", "pkg:deb", "pkg:generic"} <= kinds
    damaged = f"{build.RELEASES}/{about.name}/Gemfile.lock"
    workshop.target.run(f"chmod 644 {damaged}; echo >> {damaged}; chmod 444 {damaged}")
    with pytest.raises(Refusal, match=r"differs from the bundle \(Gemfile.lock"):
        hosts.install_on(workshop.target, bundle, signers, allow_standin=True)
    assert hosts.prune_on(workshop.target)["removed"] == []
    assert workshop.target.run("ls -A /var/lib/mastodon-gov").split() == ["release.lock"]


def test_another_recipe_or_version_of_a_tool_gives_another_name(workshop: Workshop, tiny: Recipe) -> None:
    job = Builder(workshop.builder, tiny, VERSION, Sources(), print)
    machine = prepare(job.remote, job.recipe, job.work, build.RELEASES)
    name = job.release(machine).name
    assert job.release(machine).name == name
    newer = replace(machine, toolchain=machine.toolchain | {"ruby3.3": "3.3.9-1"})
    assert job.release(newer).name != name
    changed = replace(tiny, entries=(*tiny.entries, Entry("note", tarfile.REGTYPE, 0o644, b"")))
    assert replace(job, recipe=changed).release(machine).name != name
