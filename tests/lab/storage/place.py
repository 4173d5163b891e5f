"""The lab of the storage roles: its servers, its instance and secrets, and a run of the roles."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mastodon_gov.instance import Instance, Secrets
from mastodon_gov.lab.lab import Lab
from mastodon_gov.lab.machine import Machine
from mastodon_gov.lab.world import WorldFacts
from mastodon_gov.storage.client import connect
from tests.lab import roles_alone
from tests.unit.storage_sample import instance, secret_values, storage

REPOSITORY = "Backups | Make the repository and the first backup"
DEPLOY = Path(__file__).with_name("deploy.py")


@dataclass(frozen=True)
class Place:
    """The lab and what belongs to it."""

    lab: Lab
    world: WorldFacts
    told: Path

    @property
    def host(self) -> Machine:
        """The machine that the roles are for."""
        return self.lab.machine("social")

    def instance(self, **changes: Any) -> Instance:
        """The demo's instance, as this lab knows it."""
        here = [self.world.address4, self.world.address6]
        parts: dict[str, Any] = {
            "object_storage": storage(endpoint=self.world.endpoint, backup_lock_days=1),
            "addresses": {name: here for name in ("s3.world.test", "mail.world.test")},
            "network": {"resolvers": [self.world.address4], "time_servers": ["time.agency.test"]},
            "trusted_ca": (self.world.bundle.read_text(),),
        }
        return instance(**{**parts, **changes})

    def secret_values(self, **changes: Any) -> dict[str, Any]:
        """The secrets of this lab's servers."""
        keys = {
            name: {part: getattr(key, part).get_secret_value() for part in ("access_key", "secret_key")}
            for name, key in self.world.keys.items()
        }
        login, password = (getattr(self.world.mail, part).get_secret_value() for part in ("login", "password"))
        mail = {"login": login, "password": password}
        return secret_values(**{"object_storage": keys, "mail": mail, **changes})

    def secrets(self, **changes: Any) -> Secrets:
        """The same, typed."""
        return Secrets.model_validate(self.secret_values(**changes))

    def client(self, key: str) -> Any:
        """A client with this key, for use inside `reached`."""
        return connect(self.instance(), getattr(self.secrets().object_storage, key), str(self.world.bundle))


def run_roles(at: Place, *options: str, instance_changes: Any = None, secret_changes: Any = None) -> tuple[Any, str]:
    """Run pyinfra over the roles; returns its results and its log."""
    values = {
        "instance": json.loads(at.instance(**instance_changes or {}).model_dump_json()),
        "secrets": at.secret_values(**secret_changes or {}),
    }
    return roles_alone.run_roles(at.lab, DEPLOY, at.told, values, *options)


def until(condition: Callable[[], Any], seconds: float) -> Any:
    """The first true answer; fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"nothing within {seconds} s"
        time.sleep(0.2)
    return answer


@dataclass(frozen=True)
class Deployed:
    """What the first runs did."""

    rights_before: list[str]
    planned: list[str]
    buckets_after_plan: list[str]
    first: list[str]
    second: list[str]


@contextmanager
def stopped(machine: Machine, unit: str) -> Iterator[None]:
    """A service that is away for the length of the block."""
    machine.ssh(["systemctl", "stop", unit])
    try:
        yield
    finally:
        machine.ssh(["systemctl", "start", unit])
