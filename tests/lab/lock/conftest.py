"""One machine with PostgreSQL for all tests of the lock."""

from __future__ import annotations

import pytest

from mastodon_gov.lab.state import MachineSpec
from tests.lab.labs import MakeLab
from tests.lab.lock.database import Server


@pytest.fixture(scope="session")
def server(make_lab: MakeLab) -> Server:
    """A machine with nothing but PostgreSQL; each test or module makes databases of its own."""
    lab = make_lab("lock", [MachineSpec("db", layer_packages=("postgresql-17",))])
    return Server(lab.machine("db"))
