"""What may follow what: the verbs of the host's program on a state that an earlier one left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from roles.restore.files import held, recovery, restore, state, switching
from roles.restore.files.catalogue import Refused
from roles.restore.files.state import State

Left = Callable[..., State]


@pytest.fixture
def told() -> list[str]:
    """What would have been done to the host, in order."""
    return []


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: list[str]) -> Left:
    """A state with these steps done; nothing of the host is touched."""
    monkeypatch.setattr(state, "STATE", tmp_path / "restore.json")
    monkeypatch.setattr(restore, "COPY", recovery.Copy(tmp_path / "b", tmp_path / "r", tmp_path / "l", "p", "u"))
    monkeypatch.setattr(switching, "CURRENT", tmp_path)
    monkeypatch.setattr(recovery, "stop", lambda _: told.append("copy stopped"))
    monkeypatch.setattr(held, "let_through", lambda: told.append("let through"))
    monkeypatch.setattr(switching, "start_application", lambda: told.append("application started"))

    def make(*done: str, **more: Any) -> State:
        kept = {"target": {"kind": "latest", "value": "", "as_of": ""}, "label": "one", **more}
        state.STATE.write_text(json.dumps(kept | {"done": {name: {"seconds": 0, "result": None} for name in done}}))
        return State()

    return make


def test_a_copy_that_is_dropped_leaves_nothing_held(left: Left, told: list[str]) -> None:
    """The hold was on, and the stop failed: what it had stopped starts again, and visitors, mail and federation get
    through. Also where the hold was killed before it was written down."""
    for done in (("verify", "hold"), ("verify",)):
        told.clear()
        restore.drop(left(*done, before="/main.before"))
        assert told == ["copy stopped", "let through", "application started"]
        assert not state.STATE.exists()


def test_a_copy_that_was_only_looked_at_is_dropped_without_a_restart(left: Left, told: list[str]) -> None:
    restore.drop(left("verify"))
    assert told == ["copy stopped"]


def test_once_the_application_was_stopped_the_copy_is_not_dropped(left: Left, told: list[str]) -> None:
    begun = left("verify", "hold", "stop-application", before="/main.before")
    with pytest.raises(Refused, match="The switch has begun"):
        restore.drop(begun)
    assert (told, state.STATE.exists()) == ([], True)
