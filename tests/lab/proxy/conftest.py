"""One lab for all tests of the proxy and its certificates."""

from __future__ import annotations

import pytest

from mastodon_gov.lab.state import MachineSpec
from mastodon_gov.lab.world import build_world, services, world_spec
from roles.certificates import role as certificates_role
from roles.nginx import role as nginx_role
from tests.lab.labs import MakeLab
from tests.lab.proxy.place import OTHER_MEDIA, Place

NAMES = {**services.NAMES, "social": (*services.NAMES["social"], OTHER_MEDIA)}


@pytest.fixture(scope="session")
def bare(make_lab: MakeLab, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Machines and a world; nothing is deployed yet."""
    packages = (*nginx_role.PACKAGES, *certificates_role.PACKAGES, "curl", "python3")
    social = MachineSpec("social", layer_packages=packages, dns=("world",))
    outside = MachineSpec("outside", layer_packages=("curl", "openssl", "python3"), dns=("world",))
    lab = make_lab("proxy", [world_spec(), social, outside])
    place = Place(lab, build_world(lab, names=NAMES), tmp_path_factory.mktemp("proxy") / "told.json")
    place.trust()
    return place


@pytest.fixture(scope="session")
def place(bare: Place) -> Place:
    """The proxy with a certificate by ACME, in front of a toy application."""
    bare.settled()
    bare.start_application()
    return bare
