"""Runs pyinfra as a program and trusts what it reports, not its exit code.

0 does not mean deployed: pyinfra also ends with 0 when no host matched or when it was interrupted
(`reference/pyinfra-craft.md` §1.7, §1.9). What counts is the report: it is there, it names the hosts, none failed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mastodon_gov.errors import Refusal, Unreachable, WrongUsage

ROOT = Path(__file__).resolve().parents[1]
NOISE = re.compile(
    r"^(Traceback|  File |    [^\[]|\s*\^+|20\d\d-\S+ <Greenlet|pyinfra\.api\.exceptions\.|--> Disconnecting|\s*$)"
)
# pyinfra names the line of our own code before the sentence that a role refused with.
SENTENCE = re.compile(r"^--> Operation error in \S+ line \d+: (.+)$", re.MULTILINE)
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Run:
    """What a run did. `changes` are operations that changed (or, planned, would change) a host; `differences` what that
    meant, value by value, where an operation says so."""

    changes: tuple[str, ...]
    failed: tuple[str, ...]
    hosts: int
    commands: int
    seconds: float
    log: str
    differences: tuple[str, ...] = ()


def run_pyinfra(  # noqa: PLR0913
    instance: Path,
    *,
    on_progress: Callable[[dict[str, Any]], None],
    dry: bool = False,
    limit: str | None = None,
    verbose: int = 0,
    deploy: Path = ROOT / "deploy.py",
    before: Callable[[], object] = lambda: None,
) -> Run:
    """Deploy the instance of this directory, or (`dry`) say what a deploy would do; `seconds` is wall time from when
    `before`, which runs while pyinfra loads, has ended.

    Raises what `before` raises, and then nothing was deployed; and Refusal when pyinfra gave no report: then nothing is
    known, and its log says why.
    """
    reader, writer = os.pipe()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            _words(instance, deploy, dry, limit, verbose, writer),
            cwd=ROOT,
            # Off, because its spinner can hang a run at "Connecting" (pyinfra-craft §3).
            env=os.environ | {"PYINFRA_PROGRESS": "off", "PYTHONPATH": str(ROOT)},
            pass_fds=(writer,),
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=log,
            bufsize=0,
        )
        os.close(writer)
        assert process.stdin  # noqa: S101  # it is a pipe
        with process.stdin as told:
            before()
            began = time.monotonic()
            with suppress(BrokenPipeError):  # it did not even load; its log says why
                told.write(b"begin\n")
        with os.fdopen(reader) as lines:
            hosts, commands, differences = _follow(lines, on_progress)
        code = process.wait()
        out.seek(0), log.seek(0)
        report, text = out.read(), COLOURS.sub("", log.read())
    changes, failed = _read(report, text, code)
    return Run(changes, failed, hosts, commands, time.monotonic() - began, text, differences)


def _words(  # noqa: PLR0913, PLR0917
    instance: Path, deploy: Path, dry: bool, limit: str | None, verbose: int, descriptor: int
) -> list[str]:
    words = [sys.executable, "-m", "mastodon_gov.loaded", str(instance / "inventory.py"), str(deploy), "--json"]
    words += ["--dry"] if dry else ["-y"]
    words += ["--data", f"progress_fd={descriptor}"]
    words += ["--limit", limit] if limit else []
    return [*words, f"-{'v' * verbose}"] if verbose else words


def _follow(lines: Iterable[str], on_progress: Callable[[dict[str, Any]], None]) -> tuple[int, int, tuple[str, ...]]:
    """Pass on what operations report, and what the run waits for; returns how many hosts were reached, asked how many
    commands, and differences."""
    hosts, commands, differences = 0, 0, []
    for line in lines:
        told = json.loads(line)
        hosts += "host" in told
        differences += [told["difference"]] if "difference" in told else []
        commands = told.get("commands", commands)
        if "role" in told:
            on_progress(told)
        if "waiting" in told:
            print(told["waiting"], file=sys.stderr, flush=True)
    return hosts, commands, tuple(dict.fromkeys(differences))


def _read(report: str, log: str, code: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Operations that changed, or would change, a host; and the hosts that failed."""
    try:
        told = json.loads(report)
    except ValueError:
        if code == WrongUsage.code:  # inventory.py has refused, and its sentences are all there is
            raise WrongUsage(log.strip()) from None
        _, connecting, answers = log.partition("--> Connecting to hosts...\n")
        if connecting and "] Connected" not in answers:
            raise Unreachable(f"No host was reached.\n{last_words(answers)}") from None
        raise Refusal(f"The run ended before its end (pyinfra's exit code: {code}).\n{last_words(log)}") from None
    results = told.get("results") or {"operations": [], "failed_hosts": []}
    planned = [row["name"] for row in told.get("plan", []) if row["hosts_with_change"]]
    done = [row["name"] for row in results["operations"] if row["success"]]
    failed = {*results.get("failed_hosts", []), *(name for row in results["operations"] for name in row["error"])}
    return tuple(done or planned), tuple(sorted(failed))


def last_words(log: str, lines: int = 25) -> str:
    """What a log says of the operation that failed, for a person: our own sentence where there is one; otherwise all
    from its start on, without tracebacks."""
    if sentences := SENTENCE.findall(log):
        return "\n".join(dict.fromkeys(sentences))
    _, _, tail = log.rpartition("--> Starting operation: ")
    kept = [line for line in (tail or log).strip().splitlines() if not NOISE.match(line)]
    return "\n".join(kept[-lines:])
