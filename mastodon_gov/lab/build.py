"""Making machines and layers. Everything here may die at any line; the next `lab up` goes on from there."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mastodon_gov.errors import Refusal
from mastodon_gov.lab import identity
from mastodon_gov.lab.image import Cache, base_key, layer_key
from mastodon_gov.lab.machine import Machine, load_machines
from mastodon_gov.lab.state import KNOWN_INDEXES, MachineSpec, Places, check_name, write_json

Say = Callable[[str], None]
LAYER_INDEX = 200  # address of the machine on which a layer is made

# Services must not start while packages are installed: a layer is state at rest. No recommends, as on hosts.
# What the packages switch on is switched off again: a machine from a layer starts as bare as one without, and a role
# finds nothing running that it has not started. Debian would also make a PostgreSQL cluster with its own settings.
INSTALL = """set -e
enabled() {{ systemctl list-unit-files --state=enabled --no-legend | cut -d' ' -f1 | sort; }}
mkdir -p /etc/postgresql-common/createcluster.d
echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.d/lab.conf
enabled >/run/before
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -qy --no-install-recommends install {packages}
apt-get clean
enabled | comm -13 /run/before - | xargs -r systemctl disable -q
rm /usr/sbin/policy-rc.d
"""


def packages_layer(packages: Sequence[str]) -> str:
    """The name of this week's layer with these packages."""
    return layer_key(base_key() + INSTALL, packages)


@dataclass(frozen=True)
class Builder:
    """Makes what a lab lacks; the caller holds the lab's lock."""

    places: Places
    number: int
    say: Say

    @property
    def cache(self) -> Cache:
        """The images and layers of this state directory."""
        return Cache(self.places.state_dir)

    def complete(self, specs: Sequence[MachineSpec]) -> None:
        """Make the missing machines, then start whatever does not run, all at once."""
        made = load_machines(self.places, self.number)
        indexes = assign_indexes(specs, {m.name: m.index for m in made})
        wanted = [replace(spec, index=indexes[spec.name]) for spec in specs]
        for spec in wanted:
            check_same(self.places, spec)
        for spec in wanted:
            if not self.places.machine_record(spec.name).exists():
                self._create(spec, self._lowers(spec), indexes)
        machines = load_machines(self.places, self.number)
        identity.write_ssh_files(self.places, machines)
        self._start([m for m in machines if m.group is None])

    def _start(self, machines: Sequence[Machine]) -> None:
        for machine in machines:
            machine.start(wait=False)
        for machine in machines:
            with self.phase(f"{machine.name} answers on {machine.address4} and {machine.address6}"):
                machine.wait_ssh()

    def _create(self, spec: MachineSpec, lowers: Sequence[Path], indexes: dict[str, int]) -> Machine:
        """Make the machine's files. machine.json comes last: without it, the machine is made anew."""
        record = {"spec": asdict(spec), "lowers": [str(p) for p in lowers]}
        machine = Machine.from_record(self.places, self.number, record)
        machine.destroy()
        identity.make_directories(machine.directory)
        identity.write_identity(machine, identity.lab_resolvers(spec.dns, indexes, self.number))
        write_json(self.places.machine_record(spec.name), record)
        return machine

    def _lowers(self, spec: MachineSpec) -> list[Path]:
        if spec.layer and spec.layer_packages:
            raise Refusal(f"machine {spec.name}: give either layer or layer_packages, not both.")
        if spec.layer:
            return self.cache.lowers(spec.layer)
        if spec.layer_packages:
            return self.cache.lowers(self.layer(spec.layer_packages))
        with self.phase(f"base image for {spec.name}"):
            return [self.cache.base()]

    def layer(self, packages: Sequence[str]) -> str:
        """Name of a layer with these packages; made on a machine of its own when it is not there yet."""
        for package in packages:
            if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", package):
                raise Refusal(f"{package!r} is not the name of a Debian package. Correct layer_packages.")
        name = packages_layer(packages)
        with self.phase(f"layer {name} with {len(packages)} packages"), self.cache.layer_lock(name):
            if not self.cache.has_layer(name):
                self._build_layer(name, packages)
        return name

    def _build_layer(self, name: str, packages: Sequence[str]) -> None:
        spec = MachineSpec(f"layer-{name[-8:]}", index=LAYER_INDEX)
        machine = self._create(spec, [self.cache.base()], {})
        identity.write_ssh_files(self.places, load_machines(self.places, self.number))
        try:
            machine.start()
            done = machine.ssh(INSTALL.format(packages=shlex.join(packages)), check=False)
            if done.returncode:
                tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
                raise Refusal(f"the packages of layer {name} could not be installed; apt-get said:\n{tail}")
            machine.stop()
            self.cache.keep(machine.directory / "upper", name, machine.lowers)
        finally:
            machine.destroy()

    @contextmanager
    def phase(self, what: str) -> Iterator[None]:
        """Report what was done and how many seconds it took."""
        begin = time.monotonic()
        yield
        self.say(f"{time.monotonic() - begin:6.1f} s  {what}")


def assign_indexes(specs: Sequence[MachineSpec], made: dict[str, int]) -> dict[str, int]:
    """Machine name to last part of its address: as asked, as made, as known (social 11 …), or the next free."""
    indexes = dict(made)
    for spec in specs:
        check_name(spec.name, "machine name")
        free = (i for i in range(20, LAYER_INDEX) if i not in indexes.values())
        indexes[spec.name] = spec.index or made.get(spec.name) or KNOWN_INDEXES.get(spec.name) or next(free)
    if len(set(indexes.values())) < len(indexes):
        raise Refusal(f"two machines would have the same address; the last parts are {indexes}. Give others.")
    return indexes


def check_same(places: Places, spec: MachineSpec) -> None:
    """Refuse to change a machine that was made differently: its disk cannot follow."""
    path = places.machine_record(spec.name)
    if not path.exists():
        return
    made = json.loads(path.read_text())["spec"]
    for key, value in json.loads(json.dumps(asdict(spec))).items():
        if made[key] != value:
            raise Refusal(
                f"machine {spec.name} of lab {places.name!r} was made with {key}={made[key]!r}, and now {value!r} "
                f"is asked for. Remove the lab with `mastodon-gov lab down --lab {places.name}` and make it "
                "anew, or use another lab."
            )
