"""Lab fixtures. Where this user or host cannot start machines, the lab tests are skipped with the reason."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from mastodon_gov.errors import Refusal
from mastodon_gov.lab import preflight
from mastodon_gov.lab.demo import bring_up, machines
from mastodon_gov.lab.lab import Lab
from mastodon_gov.lab.remove import reap
from mastodon_gov.lab.state import DEFAULT_STATE_DIR, MachineSpec
from tests.lab.deployed import Deployed, copy_instance
from tests.lab.people import Browser, signed_in_owner

MakeLab = Callable[[str, Sequence[MachineSpec]], Lab]


@pytest.fixture(scope="session")
def make_lab() -> Iterator[MakeLab]:
    """`make_lab("purpose", specs)` gives a lab that is removed after the tests, also when they were killed."""
    try:
        preflight.check_host()
    except Refusal as refusal:
        pytest.skip(str(refusal))
    reap(DEFAULT_STATE_DIR)
    with ExitStack() as labs:

        def make(purpose: str, specs: Sequence[MachineSpec]) -> Lab:
            return labs.enter_context(Lab.temporary(f"test-{purpose}-{os.getpid()}", specs))

        yield make


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
