"""Control groups: the only thing that knows all processes of a machine, and can end them all at once.

Every machine has a group of its own. Two machines started from one shell without that share one group, and
then the systemd of one takes the other's services for its own.
"""

from __future__ import annotations

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
    try:
        return "populated 1" in (group / "cgroup.events").read_text()
    except OSError:  # removed while we looked
        return False


def frozen(group: Path) -> bool:
    """Whether the group is frozen."""
    return "frozen 1" in (group / "cgroup.events").read_text()


def freeze(group: Path, on: bool) -> None:
    """Halt or continue every process of the group, and wait until the kernel has done it."""
    (group / "cgroup.freeze").write_text("1" if on else "0")
    wait_until(lambda: frozen(group) is on, 10, f"{group} did not change its frozen state")


def kill(group: Path) -> None:
    """End every process of the group at once, then remove the group.

    Removing matters: units of a machine started again in a group that was killed die at once (kernel 6.18).
    """
    if not group.exists():
        return
    (group / "cgroup.kill").write_text("1")
    wait_until(lambda: not populated(group), GONE_SECONDS, f"processes in {group} did not end")
    remove(group)


def remove(group: Path) -> None:
    """Remove an empty group and everything below it."""
    wait_until(lambda: _removed(group), GONE_SECONDS, f"the empty control group {group} could not be removed")


def _removed(group: Path) -> bool:
    directories = [d for d in group.rglob("*") if d.is_dir()]
    for directory in [*reversed(directories), group]:
        try:
            directory.rmdir()
        except FileNotFoundError:
            pass
        except OSError:  # a process is still on its way out
            return False
    return not group.exists()
