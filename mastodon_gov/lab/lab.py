"""A lab: a few machines on one bridge. `Lab.up` makes or completes it, `Lab.open` finds it, `down` removes it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from mastodon_gov.errors import Refusal
from mastodon_gov.lab import identity, network, preflight
from mastodon_gov.lab.build import Builder, Say
from mastodon_gov.lab.image import Cache
from mastodon_gov.lab.machine import Machine, load_machine, load_machines
from mastodon_gov.lab.remove import destroy, take_down
from mastodon_gov.lab.state import (
    DEFAULT_STATE_DIR,
    LabRecord,
    MachineSpec,
    Places,
    all_labs,
    check_name,
    load_record,
    lock_lab,
    save_record,
)


def _quiet(_: str) -> None:
    """Report nothing."""


class Lab:
    """Handle on a lab that exists; it remembers nothing that the kernel or the disk knows."""

    def __init__(self, places: Places, record: LabRecord, say: Say = _quiet) -> None:
        """Use `Lab.open`, `Lab.up` or `Lab.temporary`."""
        self.places = places
        self.number = record.number
        self._say = say
        self._owned = False

    @property
    def name(self) -> str:
        """The lab's name."""
        return self.places.name

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
        say: Say = _quiet,
    ) -> Lab:
        """Make the lab, or complete it: running machines stay, stopped ones start, missing ones are made.

        It then belongs to nobody and stays until `down`. Each phase is reported to `say`, with its seconds.
        """
        places = Places(state_dir, check_name(name, "lab name"))
        preflight.check_host()
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
        say: Say = _quiet,
    ) -> Iterator[Lab]:
        """A lab that lives as long as the block; if this process dies, `lab reap` removes the lab."""
        places = Places(state_dir, check_name(name, "lab name"))
        preflight.check_host()
        lock = lock_lab(places)
        try:
            old = load_record(places)
            if old is not None and not old.ephemeral:
                raise Refusal(f"lab {name!r} exists and is not a temporary one. Use another name for the new lab.")
            try:
                lab = cls._make(places, machines, ephemeral=True, say=say)
                lab._owned = True
                yield lab
            finally:
                destroy(places)
        finally:
            os.close(lock)

    @classmethod
    def _make(cls, places: Places, specs: Sequence[MachineSpec], *, ephemeral: bool, say: Say) -> Lab:
        old = load_record(places)
        missing = [s for s in specs if not places.machine_record(s.name).exists()]
        preflight.check_disk(places.state_dir, len(missing))
        places.machines.mkdir(parents=True, exist_ok=True)
        number = network.claim(places.root, _reserved(places), old.number if old else None)
        record = LabRecord(number, ephemeral, old.ready if old else False)
        save_record(places, record)
        if changed := preflight.raise_inotify_limit():
            say(changed)
        builder = Builder(places, number, say)
        with builder.phase(f"network 10.89.{number}.0/24 and fd89:{number}::/64"):
            network.up(number)
        if warning := network.docker_warning(number):
            say(f"warning: {warning}")
        identity.make_key(places.root_key, f"lab-{places.name}")
        builder.complete(specs)
        save_record(places, replace(record, ready=True))
        return cls(places, record, say)

    @property
    def machines(self) -> list[Machine]:
        """All machines of the lab, in the order of their addresses."""
        return load_machines(self.places, self.number)

    def machine(self, name: str) -> Machine:
        """One machine; refuse when the lab has none of this name."""
        return load_machine(self.places, self.number, name)

    def layer(self, packages: Sequence[str]) -> str:
        """Name of a layer with these packages, for `MachineSpec.layer`; made when it is not there yet."""
        with self._exclusive():
            return Builder(self.places, self.number, self._say).layer(packages)

    def snapshot(self, name: str, layer: str) -> None:
        """Keep a machine's state as a layer. The machine is shut down for it and started again if it ran."""
        check_name(layer, "layer name")
        machine = self.machine(name)
        cache = Cache(self.places.state_dir)
        with self._exclusive(), cache.layer_lock(layer):
            _refuse_if_used(cache.layer(layer) / "upper", self.places.state_dir)
            ran = machine.group is not None
            machine.stop()
            cache.keep(machine.directory / "upper", layer, machine.lowers)
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
        if self._owned:
            destroy(self.places)
        else:
            take_down(self.places)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the lab's lock, which the owner of an ephemeral lab holds all the time."""
        lock = None if self._owned else lock_lab(self.places)
        try:
            yield
        finally:
            if lock is not None:
                os.close(lock)


def _reserved(places: Places) -> set[int]:
    """Numbers of the other labs of this state directory, also of those not started since the last reboot."""
    records = (load_record(p) for p in all_labs(places.state_dir) if p != places)
    return {r.number for r in records if r is not None}


def _refuse_if_used(upper: Path, state_dir: Path) -> None:
    for places in all_labs(state_dir):
        for record in places.machines.glob("*/machine.json"):
            if str(upper) in json.loads(record.read_text())["lowers"]:
                raise Refusal(
                    f"layer {upper.parent.name!r} is in use by machine {record.parent.name} of lab "
                    f"{places.name!r} and must not change. Choose another layer name, or remove that lab."
                )
