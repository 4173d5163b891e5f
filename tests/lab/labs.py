"""Labs for tests; needs nothing of this project but the lab itself (test_lab_systemd takes it to another machine)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest

from mastodon_gov.errors import Refusal
from mastodon_gov.lab import preflight
from mastodon_gov.lab.lab import Lab
from mastodon_gov.lab.remove import reap
from mastodon_gov.lab.state import DEFAULT_STATE_DIR, MachineSpec

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
