"""The verbs of `mastodon-gov release`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from mastodon_gov.errors import Refusal
from mastodon_gov.lab.lab import Lab
from mastodon_gov.lab.state import DEFAULT_STATE_DIR, MachineSpec, locked
from mastodon_gov.release import hosts
from mastodon_gov.release.build import Builder
from mastodon_gov.release.build import build as build_bundle
from mastodon_gov.release.bundle import differences, lab_key, read_release
from mastodon_gov.release.bundle import verify as verify_bundle
from mastodon_gov.release.fetching import check_sources
from mastodon_gov.release.known import known_versions, standing
from mastodon_gov.release.machine import wanted
from mastodon_gov.release.pins import pins
from mastodon_gov.release.recipe import STANDIN, Recipe, read_recipe
from mastodon_gov.release.remote import Remote
from mastodon_gov.release.sources import Sources, read_sources

LAB = "release"  # the name of the lab whose only machine builds
BUILDING = DEFAULT_STATE_DIR / "locks" / "release-build"  # held while it does: by one build at a time on this machine
LAB_CA = Path("/etc/ssl/certs/ca-certificates.crt")  # a lab machine trusts what the machine it runs on trusts
existing = click.Path(path_type=Path, exists=True)
signers_option = click.option(
    "--signers",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("releases/allowed_signers"),
    show_default=True,
    help="Keys the ministry trusts (the file format is in ssh-keygen(1), ALLOWED SIGNERS).",
)
out_option = click.option(
    "--bundles",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("releases"),
    show_default=True,
    help="Where bundles lie.",
)
on_option = click.option("--on", "host", required=True, help="Name of the host, as ssh knows it.")


@click.group()
def release() -> None:
    """Release bundles: build, verify, compare, check, list, install, prune."""


@release.command()
@click.argument("version")
@click.option("--standin", is_flag=True, help="Build the stand-in, which is not Mastodon, for a lab.")
@click.option("--recipe", type=existing, help="Directory of a recipe (docs/operator/releases.md).")
@click.option("--on", "host", default="lab", show_default=True, help="Clean Debian 13 machine, as ssh knows it.")
@click.option("--key", type=existing, help="SSH key that signs; a stand-in has its own.")
@click.option("--sources", type=existing, help="YAML: where downloads come from (docs/operator/releases.md).")
@click.option(
    "--save-downloads",
    type=click.Path(path_type=Path, file_okay=False),
    help="Copy all that was downloaded here, for a build without a network (offline_dir).",
)
@out_option
@signers_option
def build(  # noqa: PLR0913, PLR0917  each is an option of the command line
    version: str,
    standin: bool,
    recipe: Path | None,
    host: str,
    key: Path | None,
    sources: Path | None,
    save_downloads: Path | None,
    bundles: Path,
    signers: Path,
) -> None:
    """Build VERSION on a clean machine and put the signed bundle here. Changes that machine and the bundles."""
    pins().version(version)
    what = chosen_recipe(standin, recipe)
    if standin and not key:
        key, signers = lab_key(bundles)
    if key is None:
        raise Refusal("release build: name the ministry's key with --key; only a stand-in is signed without one.")
    where = read_sources(sources) if sources else Sources(ca_file=LAB_CA if host == "lab" else None)
    check_sources(what.downloads(), where)
    with builder(host, what) as remote:
        made = build_bundle(Builder(remote, what, version, where, click.echo), bundles, key, signers, save_downloads)
    click.echo(f"{made}")


def chosen_recipe(standin: bool, directory: Path | None) -> Recipe:
    """The stand-in's recipe or a given one; never a stand-in silently."""
    if standin == bool(directory):
        raise Refusal(
            "release build: say what to build: --standin for a lab, or --recipe DIRECTORY for real Mastodon. "
            "This repository holds no recipe of real Mastodon (docs/decisions/release-bundles.md says why)."
        )
    return read_recipe(directory or STANDIN, standin=standin)


@contextmanager
def builder(host: str, recipe: Recipe) -> Iterator[Remote]:
    """The machine that `ssh` knows by this name; for `lab` a fresh lab machine, or the one an unfinished build left."""
    if host != "lab":
        yield Remote(("ssh", host))
        return
    with locked(BUILDING):
        lab = Lab.up(LAB, [MachineSpec("builder", layer_packages=tuple(wanted(recipe)), index=14)], say=click.echo)
        yield Remote(("ssh", "-F", str(lab.ssh_config), "builder"))
        lab.down()


@release.command()
@click.argument("file", type=existing)
@signers_option
def verify(file: Path, signers: Path) -> None:
    """Check the signature and every file of a bundle, as a host does. Changes nothing, needs no network."""
    click.echo(json.dumps(verify_bundle(file, signers)))


@release.command()
@click.argument("one", type=existing)
@click.argument("other", type=existing)
def compare(one: Path, other: Path) -> None:
    """Name the files that differ between two bundles, such as two builds of the same inputs. Changes nothing.

    Exit: 0 none differs, 1 otherwise.
    """
    differ = differences(one, other)
    click.echo("\n".join([*differ, f"{len(differ)} files differ"]))
    sys.exit(1 if differ else 0)


@release.command()
@click.argument("version", required=False)
@click.option("--list", "file", type=existing, help="A newer list of versions, with its signature FILE.sig beside it.")
@click.option("--signers", type=existing, help="Who may sign it; default: release_signers of the instance.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@click.pass_obj
def check(directory: Path, version: str | None, file: Path | None, signers: Path | None, as_json: bool) -> None:
    """How far behind upstream VERSION is, or what the instance runs. Changes nothing, needs no internet.

    Exit: 0 up to date, 1 a security release is missing.
    """
    known = known_versions(directory, file, signers)
    found = standing(version or running_version(directory), known, datetime.now(UTC).date())
    click.echo(json.dumps(found.data()) if as_json else found.sentence())
    sys.exit(1 if found.security else 0)


def running_version(directory: Path) -> str:
    """Version of the release that `current` points to on the instance's host."""
    from mastodon_gov.remote import application_host

    host = application_host(directory)
    name = Path(host.run(["readlink", "-m", "/opt/mastodon/current"]).strip()).name
    if name == "current":
        raise Refusal(f"{host.name}: no release runs there yet. Name a version: mastodon-gov release check 4.6.5.")
    return name.partition("-")[0]


@release.command("list")
@out_option
def list_(bundles: Path) -> None:
    """Bundles that lie here, and the versions that can be built."""
    for file in sorted(bundles.glob("mastodon-*.tar.zst")):
        about, _ = read_release(file)
        click.echo(f"{file.name}  {about.name}{'  stand-in' if about.standin else ''}  built from {about.build_date}")
    click.echo(f"known versions: {', '.join(pins().known())}")


@release.command()
@click.argument("file", type=existing)
@on_option
@click.option("--allow-standin", is_flag=True, help="The host belongs to a lab.")
@signers_option
def install(file: Path, host: str, allow_standin: bool, signers: Path) -> None:
    """Send a bundle to a host and unpack it beside the others. Nothing that runs there is touched."""
    click.echo(json.dumps(hosts.install_on(Remote(("ssh", host)), file, signers, allow_standin=allow_standin)))


@release.command()
@on_option
def prune(host: str) -> None:
    """Remove releases from a host that no slot uses; at least two stay."""
    click.echo(json.dumps(hosts.prune_on(Remote(("ssh", host)))))
