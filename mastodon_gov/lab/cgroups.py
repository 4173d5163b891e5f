"""Control groups: the only thing that knows all processes of a machine, and can end them all at once.

Every machine has a group of its own. Two machines started from one shell without that share one group, and
then the systemd of one takes the other's services for its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from mastodon_gov.errors import Refusal

GONE_SECONDS = 30.0


def root() -> Path:
    """Where cgroup v2 is mounted on this host: alone (unified) or beside v1 (hybrid)."""
    unified = Path("/sys/fs/cgroup")
    return unified if (unified / "cgroup.controllers").exists() else unified / "unified"


def wait_until(condition: Callable[[], bool], seconds: float, sentence: str) -> None:
    """Wait for a condition; refuse with the sentence when it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Refusal(f"{sentence} (waited {seconds:.0f} s)")
        time.sleep(0.05)


def populated(group: Path) -> bool:
    """Whether any process lives in the group or below it."""
    return _event(group, "populated 1")


def frozen(group: Path) -> bool:
    """Whether the group is frozen."""
    return _event(group, "frozen 1")


def _event(group: Path, line: str) -> bool:
    try:
        return line in (group / "cgroup.events").read_text()
    except OSError:  # removed while we looked
        return False


def freeze(group: Path, on: bool) -> None:
    """Halt or continue every process of the group, and wait until the kernel has done it."""
    (group / "cgroup.freeze").write_text("1" if on else "0")
    wait_until(lambda: frozen(group) is on, 10, f"{group} did not change its frozen state")


def kill(group: Path) -> None:
    """End every process of the group at once, then remove the group.

    Removing matters: units of a machine started again in a group that was killed die at once (kernel 6.18).
    """
    wait_until(lambda: _killed(group), GONE_SECONDS, f"the processes in {group} did not end")


def _killed(group: Path) -> bool:
    """Kill and remove as far as it goes now; again each time, as a process may still be on its way in."""
    try:
        (group / "cgroup.kill").write_text("1")
    except FileNotFoundError:
        return True
    for directory, _, _ in os.walk(group, topdown=False):
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            pass
        except OSError:  # a process is still on its way out
            return False
    return not group.exists()
