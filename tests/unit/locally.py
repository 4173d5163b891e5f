"""Runs our operations on this machine: facts and commands are real, the host is a temporary directory."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from typing import Any
from unittest.mock import patch

from pyinfra.api import Config, Inventory, State, StringCommand
from pyinfra.api.connect import connect_all
from pyinfra.api.deploy import add_deploy
from pyinfra.api.host import Host
from pyinfra.context import ctx_host, ctx_state


def shell(command: StringCommand) -> subprocess.CompletedProcess[str]:
    """Run one command as pyinfra would: a `sh -c` string, content on standard input."""
    stdin = command.connector_arguments.get("_stdin") or ""
    assert isinstance(stdin, str)
    return subprocess.run(
        ["sh", "-c", command.get_raw_value()], input=stdin, capture_output=True, text=True, check=False
    )


def _real_fact(_: Host, cls: Any, **arguments: Any) -> Any:
    fact = cls()
    command = fact.command(**arguments)
    done = shell(command if isinstance(command, StringCommand) else StringCommand(command))
    assert done.returncode == 0, "a fact that fails would fail the host"
    lines = done.stdout.splitlines()
    return fact.process(lines) if lines else cls.default()


def new_state(name: str) -> Any:
    """pyinfra's state with one host."""
    untyped: Any = (Inventory, Config)
    make_inventory, make_config = untyped
    return State(make_inventory(([name], {"fake_delay": 0, "fake_delay_jitter": 0})), make_config())


def commands(work: Callable[[], object], facts: Mapping[Any, Any] | None = None) -> list[StringCommand]:
    """What the operations called by `work` would run on a host; facts are canned, or asked of this machine."""

    def get_fact(host: Host, cls: Any, *_: Any, **arguments: Any) -> Any:
        return facts[cls] if facts and cls in facts else _real_fact(host, cls, **arguments)

    state = new_state("@fake/host")
    with ctx_state.use(state), patch.object(Host, "get_fact", get_fact):
        connect_all(state)
        add_deploy(state, work)
        host = next(iter(state.inventory))
        with ctx_host.use(host):
            found = [c for op in state.get_op_order() for c in state.ops[host][op].command_generator()]
            return [command for command in found if isinstance(command, StringCommand)]
