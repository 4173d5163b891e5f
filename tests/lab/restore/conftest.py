"""A lab of its own: what is destroyed here is nobody else's."""

from __future__ import annotations

import pytest

from mastodon_gov.lab.demo import bring_up, machines
from tests.lab.deployed import Deployed, copy_instance
from tests.lab.labs import MakeLab


@pytest.fixture(scope="session")
def doomed(make_lab: MakeLab, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """The demo, deployed, with a stranger; its machine and its backups may be destroyed."""
    lab = make_lab("restore", machines(("python3",)))
    deployed = Deployed(bring_up(lab, copy_instance(tmp_path_factory.mktemp("doomed")), print))
    deployed.deploy()
    return deployed
