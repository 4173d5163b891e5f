"""One lab for all tests of object storage, backups and mail."""

from __future__ import annotations

import pytest

from mastodon_gov.lab.state import MachineSpec
from mastodon_gov.lab.world import build_world, world_spec
from mastodon_gov.storage.client import reached
from mastodon_gov.storage.rights import rights
from tests.lab.labs import MakeLab
from tests.lab.roles_alone import changed
from tests.lab.storage.place import REPOSITORY, Deployed, Place, run_roles

HOST_PACKAGES = ("postgresql-17", "postgresql-client-17", "pgbackrest", "msmtp-mta", "python3")


@pytest.fixture(scope="session")
def bare(make_lab: MakeLab, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The servers, and a host with packages but without a database."""
    lab = make_lab("storage", [world_spec(), MachineSpec("social", layer_packages=HOST_PACKAGES, dns=("world",))])
    facts = build_world(lab, say=print)
    host = lab.machine("social")
    trust = "/usr/local/share/ca-certificates/lab.crt"
    host.ssh(f"cat > {trust} && update-ca-certificates", stdin=facts.bundle.read_text())
    return Place(lab, facts, tmp_path_factory.mktemp("storage") / "told.json")


@pytest.fixture(scope="session")
def first(bare: Place) -> Deployed:
    """Preflight, plan, deploy, deploy."""
    before = rights(bare.instance(), bare.secrets())
    plan, _ = run_roles(bare, "--dry")
    with reached(bare.instance()):
        seen = [each["Name"] for each in bare.client("owner").list_buckets()["Buckets"]]
    one, log = run_roles(bare)
    assert one, log
    two, _ = run_roles(bare)
    planned = [each["name"] for each in plan["plan"] if each["hosts_with_change"]]
    return Deployed(before, planned, seen, changed(one), changed(two))


@pytest.fixture(scope="session")
def place(bare: Place, first: Deployed) -> Place:
    """Everything deployed."""
    assert REPOSITORY in first.first
    return bare
