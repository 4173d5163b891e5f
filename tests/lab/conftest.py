"""Lab fixtures. Where this user or host cannot start machines, the lab tests are skipped with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from mastodon_gov.lab.demo import bring_up, machines
from tests.lab.deployed import Deployed, copy_instance
from tests.lab.labs import MakeLab, make_lab
from tests.lab.people import Browser, signed_in_owner

__all__ = ["make_lab"]


@pytest.fixture(scope="session")
def instance(make_lab: MakeLab, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """The demo instance with its world and a stranger, deployed once for all tests that ask for it."""
    lab = make_lab("instance", machines(("python3",)))
    deployed = Deployed(bring_up(lab, copy_instance(tmp_path_factory.mktemp("instance")), print))
    deployed.deploy()
    return deployed


@pytest.fixture(scope="session")
def owner(instance: Deployed) -> Iterator[Browser]:
    """The owner's browser, signed in with both factors."""
    with signed_in_owner(instance) as person:
        yield person


_left: set[str] = set()


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Remember what this run leaves to `make test-all`."""
    _left.update(item.nodeid for item in items if item.get_closest_marker("long"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist tells the process that prints."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left"] = sorted(_left)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker has ended."""
    _left.update(getattr(node, "workeroutput", {}).get("left", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Nothing is thinned out silently: name what this run left to `make test-all`."""
    if _left:
        terminalreporter.section("not run here; `make test-all` runs them")
        for nodeid in sorted(_left):
            terminalreporter.line(nodeid)
