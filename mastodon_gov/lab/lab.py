"""A lab: a few machines on one bridge. `Lab.up` makes or completes it, `Lab.open` finds it, `down` removes it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from mastodon_gov.errors import Refusal
from mastodon_gov.lab import identity, network, preflight
from mastodon_gov.lab.image import Cache, base_key, layer_key
from mastodon_gov.lab.machine import Machine, close_socket
from mastodon_gov.lab.starter import starter
from mastodon_gov.lab.state import (
    DEFAULT_STATE_DIR,
    KNOWN_INDEXES,
    LabRecord,
    MachineSpec,
    Places,
    all_labs,
    check_name,
    load_record,
    lock_lab,
    locked,
    save_record,
    write_json,
)

Say = Callable[[str], None]

INSTALL = """set -e
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -qy --no-install-recommends install {packages}
apt-get clean
rm /usr/sbin/policy-rc.d
"""


class Lab:
    """Handle on a lab that exists. It holds the lab's lock only when the lab is ephemeral."""

    def __init__(self, places: Places, record: LabRecord, say: Say = lambda _: None) -> None:
        """Use `Lab.open`, `Lab.up` or `Lab.temporary`."""
        self.places = places
        self.record = record
        self.cache = Cache(places.state_dir)
        self._say = say
        self._lock: int | None = None

    @property
    def name(self) -> str:
        """The lab's name."""
        return self.places.name

    @property
    def number(self) -> int:
        """N of 10.89.N.0/24 and fd89:N::/64."""
        return self.record.number

    @property
    def ssh_config(self) -> Path:
        """For ssh, scp and testinfra; shares connections for a minute."""
        return self.places.ssh_config

    @property
    def known_hosts(self) -> Path:
        """The machines' host keys, under name and both addresses."""
        return self.places.known_hosts

    @property
    def root_key(self) -> Path:
        """Private key that may sign in as root on a new machine."""
        return self.places.root_key

    @classmethod
    def open(cls, name: str, state_dir: Path = DEFAULT_STATE_DIR) -> Lab:
        """Find a lab; refuse when there is none of this name."""
        places = Places(state_dir, check_name(name, "lab name"))
        record = load_record(places)
        if record is None:
            known = ", ".join(p.name for p in all_labs(state_dir)) or "none"
            raise Refusal(
                f"there is no lab {name!r} in {state_dir}; known labs: {known}. Make it with "
                f"`mastodon-gov lab up --lab {name}`."
            )
        return cls(places, record)

    @classmethod
    def up(
        cls,
        name: str,
        machines: Sequence[MachineSpec] = (),
        *,
        state_dir: Path = DEFAULT_STATE_DIR,
        say: Say = lambda _: None,
    ) -> Lab:
        """Make the lab, or complete it: running machines stay, stopped ones start, missing ones are made."""
        places = Places(state_dir, check_name(name, "lab name"))
        lock = lock_lab(places)
        try:
            return cls._make(places, machines, ephemeral=False, say=say)
        finally:
            os.close(lock)

    @classmethod
    @contextmanager
    def temporary(
        cls,
        name: str,
        machines: Sequence[MachineSpec],
        *,
        state_dir: Path = DEFAULT_STATE_DIR,
        say: Say = lambda _: None,
    ) -> Iterator[Lab]:
        """A lab that lives as long as the block; if this process dies, `lab reap` removes the lab."""
        places = Places(state_dir, check_name(name, "lab name"))
        lock = lock_lab(places)
        try:
            lab = cls._make(places, machines, ephemeral=True, say=say)
            lab._lock = lock
            yield lab
        finally:
            destroy(places)
            os.close(lock)

    @classmethod
    def _make(cls, places: Places, specs: Sequence[MachineSpec], *, ephemeral: bool, say: Say) -> Lab:
        old = load_record(places)
        preflight.check(places.state_dir, sum(not _made(places, s.name) for s in specs))
        others = (load_record(p) for p in all_labs(places.state_dir) if p != places)
        reserved = {r.number for r in others if r is not None}
        places.machines.mkdir(parents=True, exist_ok=True)
        number = network.claim(places.root, reserved, old.number if old else None)
        lab = cls(places, LabRecord(number, ephemeral, old.ready if old else False), say)
        save_record(places, lab.record)
        with lab._phase(f"network 10.89.{number}.0/24"):
            network.up(number)
        if warning := network.docker_warning(number):
            say(f"warning: {warning}")
        identity.make_key(places.root_key, f"lab-{places.name}")
        lab._complete(specs)
        lab.record = replace(lab.record, ready=True)
        save_record(places, lab.record)
        return lab

    def _complete(self, specs: Sequence[MachineSpec]) -> None:
        """Make the missing machines, then start whatever does not run, all at once."""
        indexes = self._indexes(specs)
        for spec in specs:
            wanted = replace(spec, index=indexes[spec.name])
            check_same(self.places, wanted)
            if not _made(self.places, spec.name):
                self._create(wanted, indexes)
        identity.write_ssh_files(self.places, self.machines)
        stopped = [m for m in self.machines if m.group is None]
        for machine in stopped:
            machine.start(wait=False)
        for machine in stopped:
            with self._phase(f"{machine.name} answers on {machine.address4} and {machine.address6}"):
                machine.wait_ssh()

    def _indexes(self, specs: Sequence[MachineSpec]) -> dict[str, int]:
        """Name to last part of the address: as asked, as recorded, as known, or the next free one."""
        indexes = {m.name: m.index for m in self.machines}
        for spec in specs:
            check_name(spec.name, "machine name")
            free = (i for i in range(20, 200) if i not in indexes.values())
            default = indexes.get(spec.name) or KNOWN_INDEXES.get(spec.name) or next(free)
            indexes[spec.name] = spec.index or default
        if len(set(indexes.values())) < len(indexes):
            raise Refusal(f"two machines of lab {self.name!r} have the same index: {indexes}. Give each its own.")
        return indexes

    def _create(self, spec: MachineSpec, indexes: dict[str, int]) -> None:
        """Make the machine's files. machine.json comes last: without it, the machine is made anew."""
        lowers = self._lowers(spec)
        with self._phase(f"machine {spec.name}"):
            assert spec.index is not None  # noqa: S101 - filled in by _complete
            directory = self.places.machines / spec.name
            identity.clear(directory)
            machine = Machine(self.places, self.number, spec.name, spec.index, spec.volatile, tuple(lowers))
            resolvers = identity.lab_resolvers(spec.dns, indexes, self.number)
            identity.write_identity(machine, resolvers)
            record = {"spec": asdict(spec), "lowers": [str(p) for p in lowers]}
            write_json(directory / "machine.json", record)

    def _lowers(self, spec: MachineSpec) -> list[Path]:
        if spec.layer and spec.layer_packages:
            raise Refusal(f"machine {spec.name}: give either layer or layer_packages, not both.")
        if spec.layer:
            return self.cache.lowers(spec.layer)
        if spec.layer_packages:
            return self.cache.lowers(self.layer(spec.layer_packages))
        return [self._base()]

    def _base(self) -> Path:
        with self._phase("base image"):
            return self.cache.base()

    def layer(self, packages: Sequence[str]) -> str:
        """Name of a layer with these packages, made on a machine of its own when it is not there yet."""
        for package in packages:
            if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", package):
                raise Refusal(f"{package!r} is not the name of a Debian package.")
        name = layer_key(base_key(), packages)
        with locked(self.cache.locks / f".layer-{name}"):
            if not (self.cache.layer(name) / "layer.json").exists():
                self._build_layer(name, packages)
        return name

    def _build_layer(self, name: str, packages: Sequence[str]) -> None:
        spec = MachineSpec(f"layer-{name[-8:]}", index=200)
        self._create(spec, {})
        machine = self.machine(spec.name)
        identity.write_ssh_files(self.places, self.machines)
        try:
            with self._phase(f"layer {name} with {len(packages)} packages"):
                machine.start()
                done = machine.ssh(INSTALL.format(packages=shlex.join(packages)), check=False)
                if done.returncode:
                    tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
                    raise Refusal(f"the packages of layer {name} could not be installed:\n{tail}")
                machine.stop()
                self.cache.keep(machine.directory / "upper", name, machine.lowers)
        finally:
            machine.destroy()

    @property
    def machines(self) -> list[Machine]:
        """All machines of the lab, in the order of their addresses."""
        found = [self.machine(p.parent.name) for p in self.places.machines.glob("*/machine.json")]
        return sorted(found, key=lambda m: m.index)

    def machine(self, name: str) -> Machine:
        """One machine; refuse when the lab has none of this name."""
        path = self.places.machines / name / "machine.json"
        if not path.exists():
            known = ", ".join(sorted(p.parent.name for p in self.places.machines.glob("*/machine.json")))
            raise Refusal(f"lab {self.name!r} has no machine {name!r}; it has: {known or 'none'}.")
        data = json.loads(path.read_text())
        spec = data["spec"]
        lowers = tuple(Path(p) for p in data["lowers"])
        return Machine(self.places, self.number, name, spec["index"], spec["volatile"], lowers)

    def snapshot(self, name: str, layer: str) -> None:
        """Keep a machine's state as a layer. The machine is shut down for it and started again if it ran."""
        check_name(layer, "layer name")
        machine = self.machine(name)
        upper = self.cache.layer(layer) / "upper"
        for places in all_labs(self.places.state_dir):
            for record in places.machines.glob("*/machine.json"):
                if str(upper) in json.loads(record.read_text())["lowers"]:
                    raise Refusal(
                        f"layer {layer!r} is in use by machine {record.parent.name} of lab {places.name!r} and "
                        "must not change. Choose another layer name, or remove that lab."
                    )
        ran = machine.group is not None
        with self._phase(f"snapshot of {name} as layer {layer}"):
            machine.stop()
            self.cache.keep(machine.directory / "upper", layer, machine.lowers)
        if ran:
            machine.start()

    def cut(self, name: str, other: str | None = None) -> None:
        """Cut a machine off from everything, or two machines from each other."""
        network.cut(self.number, *self._interfaces(name, other))

    def heal(self, name: str | None = None, other: str | None = None) -> None:
        """Undo one cut, or all."""
        if name is None:
            network.heal_all(self.number)
        else:
            network.heal(self.number, *self._interfaces(name, other))

    def _interfaces(self, name: str, other: str | None) -> tuple[str, str | None]:
        return self.machine(name).interface, self.machine(other).interface if other else None

    def down(self) -> None:
        """Remove machines, bridge, rules, control groups and files; the cache stays."""
        lock = lock_lab(self.places) if self._lock is None else None
        destroy(self.places)
        if lock is not None:
            os.close(lock)

    @contextmanager
    def _phase(self, what: str) -> Iterator[None]:
        begin = time.monotonic()
        yield
        self._say(f"{time.monotonic() - begin:6.1f} s  {what}")


def _made(places: Places, name: str) -> bool:
    return (places.machines / name / "machine.json").exists()


def check_same(places: Places, spec: MachineSpec) -> None:
    """Refuse to change a machine that was made differently: its disk cannot follow."""
    path = places.machines / spec.name / "machine.json"
    if not path.exists():
        return
    made = json.loads(path.read_text())["spec"]
    wanted = json.loads(json.dumps(asdict(spec)))
    for key in wanted:
        if made[key] != wanted[key]:
            raise Refusal(
                f"machine {spec.name} of lab {places.name!r} was made with {key}={made[key]!r}, and now "
                f"{wanted[key]!r} is asked for. Remove the lab with `mastodon-gov lab down --lab {places.name}` "
                "and make it anew, or use another lab."
            )


def destroy(places: Places) -> None:
    """Remove a lab, whatever state it is in. The caller holds its lock; the lock file goes last."""
    record = load_record(places)
    if record is not None:
        from mastodon_gov.lab import cgroups

        for group in starter().groups(f"mfg{record.number}-*"):
            cgroups.kill(group)
        for control in places.sockets.glob("*@*"):
            close_socket(places, control)
        network.down(record.number)
    shutil.rmtree(places.root, ignore_errors=True)
    places.lock.unlink(missing_ok=True)
