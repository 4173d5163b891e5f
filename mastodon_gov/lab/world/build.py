"""Bring the lab machine `world` to serve, and keep what its clients need to know."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from mastodon_gov.errors import Refusal
from mastodon_gov.instance.secret_model import AccessKey, MailSecrets
from mastodon_gov.lab import identity, network
from mastodon_gov.lab.lab import Lab
from mastodon_gov.lab.machine import Machine
from mastodon_gov.lab.state import KNOWN_INDEXES
from mastodon_gov.lab.world import authority as ca
from mastodon_gov.lab.world import services

REPOSITORY = Path(__file__).resolve().parents[3]
DEPLOY = Path(__file__).with_name("deploy.py")
# For MachineSpec(layer_packages=…): the packages of deploy.py and of the role radosgw, installed once per base.
WORLD_PACKAGES = (
    *("ceph-base", "ceph-common", "ceph-mgr", "ceph-mon", "ceph-osd", "radosgw"),
    *("nginx", "opensmtpd", "pebble", "unbound"),
)
LOGIN = "social"
USERS = ("owner", "media", "backups")
Say = Callable[[str], None]


class WorldFacts(BaseModel):
    """What a client of the world needs. `bundle` is what it trusts: the lab's CA and every root of the ACME server."""

    model_config = ConfigDict(frozen=True)

    bundle: Path
    endpoint: str
    acme_directory: str
    mail_relay: str
    mail: MailSecrets
    keys: dict[str, AccessKey]
    address4: str
    address6: str


def build_world(
    lab: Lab,
    *,
    names: Mapping[str, Sequence[str]] = services.NAMES,
    acme_life: timedelta = timedelta(days=90),
    say: Say = lambda _: None,
) -> WorldFacts:
    """Build or complete the world; a few seconds when it is already there.

    `names` are the DNS names that point to each machine of the lab, `acme_life` is the life of issued certificates.
    """
    from roles.radosgw.role import PROGRAM  # pyinfra takes half a second, which other verbs of `lab` must not pay

    told = prepare(lab, names, acme_life)
    with _phase(say, "world: S3, ACME, DNS and mail serve"):
        changed = apply(lab, told)
        lab.machine("world").ssh([PROGRAM, "cluster"])  # nothing is missing: it waits until the gateway answers
    with _phase(say, f"world: {changed} operations changed something; keys and roots read back"):
        return _learn(lab)


def load_world(lab: Lab) -> WorldFacts:
    """What the last build learnt; refuses where there was none."""
    path = _directory(lab) / "facts.json"
    if not path.exists():
        raise Refusal(f"the world of lab {lab.name!r} was not built ({path} is missing). Build it with `make demo`.")
    return WorldFacts.model_validate_json(path.read_text())


def prepare(lab: Lab, names: Mapping[str, Sequence[str]], acme_life: timedelta) -> Path:
    """Make what the lab decides, once: CA, certificate, mail password. Returns the file (0600) that deploy.py reads."""
    machine, directory = lab.machine("world"), _directory(lab)
    authority = ca.authority(directory, f"CA of the lab {lab.name} {lab.number}")
    certificate, key = _leaf(directory, authority, [machine.address4, machine.address6])
    world = services.World(
        hosts=_hosts(lab),
        names=names,
        resolvers=[line.split()[1] for line in identity.host_resolvers().splitlines() if line.startswith("nameserver")],
        certificate=certificate,
        key=key,
        authority=authority.pem,
        credentials=_mail(machine, directory)["credentials"],
        acme_seconds=int(acme_life.total_seconds()),
    )
    told = directory / "world.json"
    ca.write_secret(told, json.dumps(asdict(world)))
    return told


def _hosts(lab: Lab) -> dict[str, tuple[str, str]]:
    """Addresses by machine; the demo's machines have theirs before they are made."""
    indexes = KNOWN_INDEXES | {machine.name: machine.index for machine in lab.machines}
    return {name: (network.address4(lab.number, i), network.address6(lab.number, i)) for name, i in indexes.items()}


def apply(lab: Lab, told: Path) -> int:
    """Run pyinfra over the machine; returns how many operations changed something."""
    machine = lab.machine("world")
    data = {
        "world": told,
        "ssh_user": "root",
        "ssh_key": lab.root_key,
        "ssh_known_hosts_file": lab.known_hosts,
        "ssh_strict_host_key_checking": "yes",
    }
    options = [word for key, value in data.items() for word in ("--data", f"{key}={value}")]
    command = [sys.executable, "-m", "pyinfra", "-y", "--json", machine.address4, str(DEPLOY), *options]
    environment = {**os.environ, "PYINFRA_PROGRESS": "off"}
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    # pyinfra's exit code alone proves nothing: it is 0 for a host that was never reached.
    results = json.loads(done.stdout)["results"] if done.stdout.strip() else {}
    failed = done.returncode or results.get("failed_hosts") or not results.get("operations")
    if failed:
        raise Refusal(f"the world of lab {lab.name!r} could not be built: {_tail(done.stderr)}")
    return sum(bool(operation["success"]) for operation in results["operations"])


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-15:])


def _learn(lab: Lab) -> WorldFacts:
    machine, directory = lab.machine("world"), _directory(lab)
    bundle = directory / "lab-ca.pem"
    draft = directory / "lab-ca.pem.new"
    draft.write_text(machine.ssh(["cat", services.CA, services.ROOTS]).stdout)
    draft.rename(bundle)
    mail = _mail(machine, directory)
    facts = {
        "bundle": str(bundle),
        "endpoint": f"https://{services.S3}",
        "acme_directory": services.ACME_DIRECTORY,
        "mail_relay": services.MAIL,
        "mail": {"login": LOGIN, "password": mail["password"]},
        "keys": {uid: _access_key(machine, uid) for uid in USERS},
        "address4": machine.address4,
        "address6": machine.address6,
    }
    ca.write_secret(directory / "facts.json", json.dumps(facts, indent=1))
    return load_world(lab)


def _access_key(machine: Machine, uid: str) -> dict[str, Any]:
    user = json.loads(machine.ssh(["radosgw-admin", "user", "info", f"--uid={uid}"]).stdout)
    return {name: user["keys"][0][name] for name in ("access_key", "secret_key")}


def _directory(lab: Lab) -> Path:
    directory = lab.places.root / "world"
    directory.mkdir(mode=0o755, exist_ok=True)
    return directory


def _leaf(directory: Path, authority: ca.Authority, addresses: Sequence[str]) -> tuple[str, str]:
    path = directory / "leaf.json"
    everywhere = [*addresses, "127.0.0.1", "::1"]
    if path.exists():
        certificate, key = json.loads(path.read_text())
        if ca.good(certificate, authority, services.LEAF_NAMES, everywhere):
            return certificate, key
    certificate, key = ca.leaf(authority, services.LEAF_NAMES, everywhere)
    ca.write_secret(path, json.dumps([certificate, key]))
    return certificate, key


def _mail(machine: Machine, directory: Path) -> dict[str, str]:
    """Password and table line of the relay's only user. The hash is kept, as it would be another one each time."""
    path = directory / "mail.json"
    if not path.exists():
        password = secrets.token_urlsafe(24)
        hashed = machine.ssh(["openssl", "passwd", "-6", "-stdin"], stdin=password + "\n").stdout.strip()
        ca.write_secret(path, json.dumps({"password": password, "credentials": f"{LOGIN} {hashed}\n"}))
    made: dict[str, str] = json.loads(path.read_text())
    return made


@contextmanager
def _phase(say: Say, what: str) -> Iterator[None]:
    begin = time.monotonic()
    yield
    say(f"{time.monotonic() - begin:6.1f} s  {what}")
