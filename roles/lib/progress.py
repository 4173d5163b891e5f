"""What a run tells the control node while it works: one JSON line for each operation, on a descriptor of its own."""

from __future__ import annotations

import atexit
import json
import os
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from pyinfra import host, logger, state
from pyinfra.api import BaseStateCallback
from pyinfra.api.host import Host
from pyinfra.api.state import State


@dataclass
class _Report:
    """Where to report, and what has been counted; one for the whole run."""

    descriptor: int | None = None
    began: float = 0.0


_report = _Report()
_commands: Counter[str] = Counter()


class _Reporter(BaseStateCallback):
    """Writes `{"role", "operation", "changed", "failed", "seconds", "commands"}` when an operation has ended on all
    hosts, and when it has failed on one."""

    @staticmethod
    def operation_start(state: State, op_hash: Any) -> None:
        """Remember when; pyinfra runs one operation at a time."""
        _report.began = time.monotonic()

    @staticmethod
    def operation_host_error(
        state: State, host: Host, op_hash: Any, retry_count: int = 0, max_retries: int = 0
    ) -> None:
        """Say so at once: when no host is left, pyinfra never comes to the operation's end."""
        _write(state, op_hash, failed=True)
        _report.began = time.monotonic()

    @staticmethod
    def operation_end(state: State, op_hash: Any) -> None:
        """Say what it did."""
        _write(state, op_hash, failed=False)


def _write(state: State, op_hash: Any, *, failed: bool) -> None:
    role, _, operation = sorted(state.op_meta[op_hash].names)[0].rpartition(" | ")
    metas = [ops[op_hash].operation_meta for ops in state.ops.values() if op_hash in ops]
    line: dict[str, object] = {
        "role": role.split(" | ")[0],
        "operation": operation,
        "changed": 0 if failed else sum(1 for meta in metas if meta.is_complete() and meta.did_change()),
        "failed": failed,
        "seconds": round(time.monotonic() - _report.began, 3),
        "commands": sum(_commands.values()),
    }
    _tell(line)


def _tell(line: dict[str, object]) -> None:
    os.write(_report.descriptor or 2, (json.dumps(line) + "\n").encode())


def tell_difference(text: str) -> None:
    """Say what an operation will change, as a line for a person; once, before anything is done."""
    if _report.descriptor is not None and not state.is_executing:
        _tell({"difference": f"{host.name}: {text}"})


def tell_waiting(text: str) -> None:
    """Say at once, as a line for a person, what keeps the run from going on."""
    if _report.descriptor is None:
        logger.warning(text)
    else:
        _tell({"waiting": text})


def _count_commands() -> None:
    """Count what this host is asked: a round trip each, and the measure of `make bench`."""
    ask = host.connector.run_shell_command

    def counted(*words: Any, **options: Any) -> Any:
        _commands[host.name] += 1
        return ask(*words, **options)

    setattr(host.connector, "run_shell_command", counted)  # noqa: B010  # this host's object only, not the class


def report_progress() -> None:
    """Report to the descriptor that the command line passed (`--data progress_fd=N`); without one, say nothing. A host
    is named as soon as it was reached: a plan's own report names only hosts that would change."""
    descriptor = host.data.get("progress_fd")
    if descriptor is None:
        return
    _count_commands()
    if _report.descriptor is None:  # this runs once a host; one reporter serves all
        _report.descriptor = int(descriptor)
        handlers: Any = state
        handlers.add_callback_handler(_Reporter())
        # A plan runs no operation, so its questions are told at the end.
        atexit.register(lambda: _tell({"commands": sum(_commands.values())}))
    _tell({"host": host.name})
