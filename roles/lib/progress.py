"""What a run tells the control node while it works: one JSON line for each operation, on a descriptor of its own."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from typing import Any

from pyinfra import host, state
from pyinfra.api import BaseStateCallback

_commands: Counter[str] = Counter()
_reporters: list[_Reporter] = []


class _Reporter(BaseStateCallback):  # type: ignore[misc]  # pyinfra.api re-exports the class without its type
    """Writes `{"role", "operation", "changed", "seconds", "commands"}` when an operation has ended on all hosts."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.began = time.monotonic()

    def operation_start(self, state: Any, op_hash: str) -> None:
        """Remember when; pyinfra runs one operation at a time."""
        self.began = time.monotonic()

    def operation_end(self, state: Any, op_hash: str) -> None:
        """Say what it did."""
        role, _, operation = sorted(state.op_meta[op_hash].names)[0].partition(" | ")
        metas = [
            state.ops[each][op_hash].operation_meta for each in state.activated_hosts if op_hash in state.ops[each]
        ]
        line = {
            "role": role,
            "operation": operation,
            "changed": sum(1 for meta in metas if meta.is_complete() and meta.did_change()),
            "seconds": round(time.monotonic() - self.began, 3),
            "commands": sum(_commands.values()),
        }
        os.write(self.descriptor, (json.dumps(line) + "\n").encode())


def _count_commands() -> None:
    """Count what this host is asked: a round trip each, and the measure of `make bench`."""
    ask = host.connector.run_shell_command

    def counted(*words: Any, **options: Any) -> Any:
        _commands[host.name] += 1
        return ask(*words, **options)

    host.connector.run_shell_command = counted  # type: ignore[method-assign]  # on this host's object only


def report_progress() -> None:
    """Report to the descriptor that the command line passed (`--data progress_fd=N`); without one, say nothing."""
    descriptor = host.data.get("progress_fd")
    if descriptor is None:
        return
    _count_commands()
    if not _reporters:  # this runs once a host; one reporter serves all
        _reporters.append(_Reporter(int(descriptor)))
        state.add_callback_handler(_reporters[0])
