"""How far a restore is: each step is written down when it is done, so that the same command goes on after a kill."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from roles.restore.files.catalogue import Target
else:  # on the host the programs lie side by side
    from catalogue import Target

STATE = Path("/var/lib/mastodon-gov/restore.json")


def say(text: str) -> None:
    """A line for the person who waits. The control node shows lines of this form as they come, and keeps back others
    unless the program fails (PROGRESS in mastodon_gov/remote.py)."""
    print(f"... {text}", file=sys.stderr, flush=True)


class State:
    """What was asked and what was done; replaced in one step, so a kill leaves the old or the new."""

    def __init__(self) -> None:
        """Read what is there."""
        self.kept: dict[str, Any] = json.loads(STATE.read_text()) if STATE.exists() else {}

    def save(self) -> None:
        """Write it down for good."""
        draft = STATE.with_suffix(".new")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(self.kept, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, STATE)

    def remove(self) -> None:
        """Forget it: there is nothing to go on with."""
        STATE.unlink(missing_ok=True)

    def file_away(self, name: str) -> None:
        """Keep it for the record, out of the way of the next."""
        kept = STATE.parent / "restores"
        kept.mkdir(mode=0o700, exist_ok=True)
        os.replace(STATE, kept / f"{name}.json")

    def step(self, name: str, work: Callable[[], Any]) -> Any:
        """Do a step unless it was done; keeps its seconds and its result."""
        done = self.kept["done"]
        if name not in done:
            say(name)
            began = time.monotonic()
            result = work()
            done[name] = {"seconds": round(time.monotonic() - began, 2), "result": result}
            self.save()
            print(f"{done[name]['seconds']:7.1f} s  {name}", file=sys.stderr, flush=True)
        return done[name]["result"]

    @property
    def summary(self) -> dict[str, Any]:
        """What a person needs to decide."""
        return {"state": bool(self.kept), **self.kept}

    @property
    def target(self) -> Target:
        """What the restore under way is to reach."""
        return Target(**self.kept["target"])
