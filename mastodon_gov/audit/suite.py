"""Runs tests/compliance as a program and takes what it reports, check by check."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mastodon_gov.audit.outside import HERE
from mastodon_gov.audit.results import Check, Session
from mastodon_gov.errors import Refusal

ROOT = Path(__file__).resolve().parents[2]
# pytest's exit codes: all passed, some failed, nothing was selected. Any other is not an audit.
ENDED = (0, 1, 5)


@dataclass(frozen=True)
class Asked:
    """What to audit, and as whom."""

    directory: Path
    level: str = "base"
    groups: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    probe: bool = False
    account: str = "deploy"
    key: Path | None = None
    outside_from: str = HERE
    ssh_config: Path | None = None

    @property
    def words(self) -> list[str]:
        """The suite's own options."""
        words = ["--instance", str(self.directory), "--level", self.level, "--account", self.account]
        words += [word for group in self.groups for word in ("--group", group)]
        words += [word for control in self.controls for word in ("--control", control)]
        words += ["--probe"] if self.probe else []
        words += ["--key", str(self.key)] if self.key else []
        words += ["--from-ssh-config", str(self.ssh_config)] if self.ssh_config else []
        return [*words, "--from", self.outside_from]


def run_suite(asked: Asked, on_check: Callable[[Check], None]) -> tuple[list[Check], Session]:
    """Every check, as it ends, and what the suite says of itself. Raises Refusal when the suite would not run."""
    reader, writer = os.pipe()
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:testinfra", "-p", "no:typeguard"]
    words += ["--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), "tests/compliance"]
    checks: list[Check] = []
    session = Session()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [*words, *asked.words, "--report-fd", str(writer)],
            cwd=ROOT,
            pass_fds=(writer,),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        os.close(writer)
        with os.fdopen(reader) as lines:
            for line in lines:
                told = json.loads(line)
                if "session" in told:
                    session = Session(**told["session"])
                else:
                    checks.append(Check.from_line(told["check"]))
                    on_check(checks[-1])
        code = process.wait()
        log.seek(0)
        if code not in ENDED:
            raise Refusal(_why(log.read(), code))
    return checks, session


def _why(log: str, code: int) -> str:
    """pytest's own sentence for a suite that it refuses, or the end of its log."""
    _, _, sentences = log.rpartition("ERROR: ")
    told = sentences.strip() or "\n".join(log.strip().splitlines()[-15:])
    return f"The suite of checks did not run (pytest's exit code: {code}).\n{told}"
