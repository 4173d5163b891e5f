"""What the host's lock waits for: work that a run has left behind, and nothing that a person does at a terminal."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from roles.lib.lock import HOLD

DEPLOY, OURS, OTHER = "1000", "7", "5"


def process(
    proc: Path, number: int, name: str, *, session: str = OTHER, terminal: int = 0, login: str = DEPLOY
) -> None:
    """A process as the kernel shows it. Its name may hold anything."""
    place = proc / str(number)
    place.mkdir(parents=True)
    told = {"loginuid": login, "sessionid": session, "comm": f"{name}\n"}
    told["stat"] = f"{number} ({name}) S 1 {number} {number} {terminal} -1 4194560\n"
    for part, text in told.items():
        (place / part).write_text(text)


@contextmanager
def holding(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The command that takes the lock, on a machine with these processes."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/sessionid").write_text(OURS)
    process(tmp_path / "proc", 20, "sh", session=OURS)
    script = HOLD.replace("/proc", f"{tmp_path}/proc").replace("/run/mastodon-gov", f"{tmp_path}/run")
    words, known = ["sh", "-c", script], {"SUDO_UID": DEPLOY, "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=known) as run:
        assert run.stdin
        run.stdin.write("ana@laptop\n")
        run.stdin.flush()
        yield run
        run.stdin.close()


def next_line(run: subprocess.Popen[str]) -> str:
    assert run.stdout
    return run.stdout.readline().strip()


def test_what_is_nobody_s_work_holds_up_nothing(tmp_path: Path) -> None:
    """Connections, a person's shell and what runs in it, and other people."""
    process(tmp_path / "proc", 11, "sshd-session")
    process(tmp_path / "proc", 12, "bash", terminal=34816)
    process(tmp_path / "proc", 13, "less (a b) c", terminal=34816)
    process(tmp_path / "proc", 14, "journalctl", login="1001")
    with holding(tmp_path) as run:
        assert next_line(run) == "held"


def test_work_that_was_left_is_named_at_once_and_waited_for(tmp_path: Path) -> None:
    process(tmp_path / "proc", 11, "ruby (rails) x")
    with holding(tmp_path) as run:
        assert next_line(run) == "waits ruby (rails) x (process 11)"
        shutil.rmtree(tmp_path / "proc/11")
        assert next_line(run) == "held"


def test_the_second_learns_who_holds_it(tmp_path: Path) -> None:
    with holding(tmp_path) as first:
        assert next_line(first) == "held"
        shutil.rmtree(tmp_path / "proc")
        with holding(tmp_path) as second:
            assert next_line(second) == "ana@laptop"
