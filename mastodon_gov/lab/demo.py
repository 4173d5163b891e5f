"""The demo: an instance in a lab, from nothing to a running, staff-only server; what `make demo` runs.

The instance's own files are committed in inventories/demo. What only a lab can know (addresses, keys, secrets, the
lab's CA) is written beside them, and git ignores it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import click

from mastodon_gov import secrets
from mastodon_gov.bootstrap import prepare
from mastodon_gov.errors import Refusal
from mastodon_gov.instance import Instance
from mastodon_gov.instance.load import load
from mastodon_gov.lab import network
from mastodon_gov.lab.demo_release import Wanted, ensure_bundle, wish
from mastodon_gov.lab.lab import Lab
from mastodon_gov.lab.state import MachineSpec
from mastodon_gov.lab.world import WorldFacts, build_world, world_spec
from mastodon_gov.release.recipe import STANDIN, read_recipe
from mastodon_gov.release.select import selected
from mastodon_gov.secrets.age import new_identity

Say = Callable[[str], None]
REPOSITORY = Path(__file__).resolve().parents[2]
RECIPIENT = "# the lab\n{key}\n"


@dataclass(frozen=True)
class Demo:
    """A lab with a world, and the directory of the instance that runs in it."""

    lab: Lab
    directory: Path
    world: WorldFacts


@contextmanager
def phase(say: Say, what: str) -> Iterator[None]:
    """Report a phase with its seconds."""
    began = time.monotonic()
    yield
    say(f"{time.monotonic() - began:6.1f} s  {what}")


def machines(outside: tuple[str, ...] = (), recipe: Path | None = None) -> list[MachineSpec]:
    """The demo's machines, each from a layer that holds its packages already, also those of what `recipe` builds
    (None: the stand-in). The layer of a built world is made here when it is not there yet.

    The stranger gets the resolver of the world, as everybody has who is not on the host itself.
    """
    listed = subprocess.run([sys.executable, "-m", "roles.packages"], cwd=REPOSITORY, capture_output=True, check=True)
    runtime = read_recipe(recipe or STANDIN, standin=recipe is None).packages("runtime")
    packages = tuple(sorted({*listed.stdout.decode().split(), *runtime}))
    return [
        MachineSpec("social", layer_packages=packages, dns=("world",)),
        world_spec(print),
        MachineSpec("outside", layer_packages=("curl", "dnsutils", "openssl", *outside), dns=("world",)),
    ]


def missing(name: str, specs: list[MachineSpec]) -> list[MachineSpec]:
    """Those the lab does not have yet; a machine that is there keeps what it was made from."""
    try:
        there = {machine.name for machine in Lab.open(name).machines}
    except Refusal:
        there = set()
    return [spec for spec in specs if spec.name not in there]


def write_instance(lab: Lab, world: WorldFacts, directory: Path) -> Instance:
    """Write beside the committed files what only this lab knows. Secrets are made once, and then only completed."""
    names = {"control": [network.address4(lab.number, 1), network.address6(lab.number, 1)]}
    names["social"] = [lab.machine("social").address4, lab.machine("social").address6]
    for name in ("s3", "acme", "mail", "ns", "ntp"):
        names[f"{name}.world.test"] = [world.address4, world.address6]
    lines = "".join(f"{name}: {json.dumps(known)}\n" for name, known in names.items())
    (directory / "addresses.yaml").write_text(f"# Made by `make demo` for this lab.\n{lines}")
    (directory / "lab-ca.pem").write_text(world.bundle.read_text())
    (directory / "known_hosts").write_text(lab.known_hosts.read_text())
    for name in ("deploy", "auditor"):
        key = directory / f"{name}_key"
        if not key.exists():
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"{name}@demo", "-f", str(key)]
            subprocess.run(words, check=True)
    _write_secrets(directory, world)
    return load(directory)


def _write_secrets(directory: Path, world: WorldFacts) -> None:
    given = {"mail.login": world.mail.login.get_secret_value(), "mail.password": world.mail.password.get_secret_value()}
    for user, key in world.keys.items():
        given[f"object_storage.{user}.access_key"] = key.access_key.get_secret_value()
        given[f"object_storage.{user}.secret_key"] = key.secret_key.get_secret_value()
    identity = directory / "identity.txt"
    if not identity.exists():
        (directory / "recipients.txt").write_text(RECIPIENT.format(key=new_identity(identity)))
    if not (directory / secrets.store.FILE).exists():
        secrets.store.create(directory, given)
        return
    kept = secrets.store.read_values(directory, identity)
    if kept != kept | given:
        secrets.store.write(directory, kept | given)


def bring_up(lab: Lab, directory: Path, say: Say, *, first_contact: bool = True, wanted: Wanted | None = None) -> Demo:
    """World, instance directory, bundle and first contact; the deploy is left to the caller."""
    world = build_world(lab, say=say)
    instance = write_instance(lab, world, directory)
    with phase(say, "release bundle at hand"):
        ensure_bundle(wanted or Wanted(instance.release), say)
    if first_contact:
        with phase(say, "first contact with social"):
            _first_contact(lab, instance, directory)
    return Demo(lab, directory, world)


def _first_contact(lab: Lab, instance: Instance, directory: Path) -> None:
    """Only once: afterwards root cannot sign in any more, and need not."""
    words = [
        "ssh",
        "-o",
        "BatchMode=yes",
        "-o",
        f"UserKnownHostsFile={directory / 'known_hosts'}",
        "-o",
        "ConnectTimeout=5",
    ]
    words += ["-i", str(directory / "deploy_key"), f"deploy@{lab.machine('social').address4}", "true"]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        prepare(instance, directory, "social", "root", lab.root_key, None)


def _audited(directory: Path) -> None:
    """One line: the four numbers. Where they are not as they should be, what the audit says of it."""
    words = [sys.executable, "-m", "mastodon_gov.cli", "--instance", str(directory), "audit"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    told = done.stdout.splitlines()
    wanted = told[-1:] if done.returncode == 0 else [line for line in told if line.startswith("! ")] + told[-1:]
    click.echo("\n".join(["audited: " + wanted[-1], *wanted[:-1]] if wanted else [f"not audited: {done.stderr}"]))


def _bundle_meanwhile(wanted: Wanted) -> None:
    """Packages of machines are mostly waited for, so the bundle is built at the same time. bring_up waits for it, and
    says why when it could not be built."""
    with suppress(Refusal):
        ensure_bundle(wanted, click.echo)


@click.command()
@click.option("--lab", "name", default="demo", show_default=True, help="Name of the lab.")
@click.option("--release", "version", help="Build real Mastodon of this version first, if no bundle lies here.")
@click.option("--recipe", type=click.Path(path_type=Path, exists=True), help="How: a recipe's directory.")
@click.option("--sources", type=click.Path(path_type=Path, exists=True), help="From where (docs/operator/releases.md).")
@click.pass_obj
def demo(directory: Path, name: str, version: str | None, recipe: Path | None, sources: Path | None) -> None:
    """Deploy the demo instance into a lab of this machine. Makes machines here; `lab down` removes them."""
    began = time.monotonic()
    wanted = wish(directory, version, recipe, sources)
    click.echo(wanted.sentence())
    Thread(target=_bundle_meanwhile, args=(wanted,), daemon=True).start()
    lab = Lab.up(name, missing(name, machines(recipe=recipe)), say=click.echo)
    made = bring_up(lab, directory, click.echo, wanted=wanted)
    instance = load(directory)
    release = selected(instance, directory)
    kind = "the STAND-IN, which is not Mastodon" if release.standin else "Mastodon"
    click.echo(f"deploying {kind}, release {release.name}")
    code = subprocess.run(
        [sys.executable, "-m", "mastodon_gov.cli", "--instance", str(directory), "deploy"], check=False
    )
    if code.returncode:
        raise Refusal(
            "the deploy of the demo failed; its sentences stand above. Mend that, then run `make demo` again."
        )
    _audited(directory)
    address = made.lab.machine("social").address4
    click.echo(f"""
{time.monotonic() - began:.0f} s in all. The instance runs {kind}:
  https://{instance.domain.web}  (address {address}; the lab's DNS server is {made.world.address4})
  chromium --host-resolver-rules="MAP *.agency.test {address}"   with the authority {directory / "lab-ca.pem"}
The owner's first step: mastodon-gov owner   (shows the first password, once)
What runs:              mastodon-gov status
What an auditor sees:   mastodon-gov audit
{wanted.sentence()}""")
