"""The verbs of `mastodon-gov lab`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from mastodon_gov.errors import Refusal
from mastodon_gov.lab.demo import demo
from mastodon_gov.lab.lab import Lab
from mastodon_gov.lab.preflight import check_host
from mastodon_gov.lab.remove import reap as remove_abandoned
from mastodon_gov.lab.remove import remove_cache, take_down
from mastodon_gov.lab.state import DEFAULT_STATE_DIR, MachineSpec, Places, all_labs, check_name
from mastodon_gov.lab.world_cli import mail

DEMO = ("social", "world", "outside")

lab_option = click.option("--lab", "lab_name", default="demo", show_default=True, help="Name of the lab.")
state_option = click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_STATE_DIR,
    show_default=True,
    help="Where labs and the cache of images lie.",
)


@click.group()
def lab() -> None:
    """Local Debian 13 machines for the demo and the tests. Everything here needs root."""


for verb in (demo, mail):
    lab.add_command(verb)


@lab.command()
@click.argument("machines", nargs=-1)
@click.option("--layer", help="Snapshot that new machines start from.")
@click.option("--ephemeral", is_flag=True, help="Stay in the foreground; remove the lab at the end.")
@lab_option
@state_option
def up(
    machines: tuple[str, ...],
    layer: str | None,
    ephemeral: bool,
    lab_name: str,
    state_dir: Path,
) -> None:
    """Make or complete a lab. New labs get social, world and outside unless MACHINES are named."""
    check_host()
    for what in remove_abandoned(state_dir):
        click.echo(f"removed {what}")
    exists = any(p.name == lab_name for p in all_labs(state_dir))
    names = machines or (() if exists else DEMO)
    specs = [MachineSpec(n, layer=layer) for n in names]
    if not ephemeral:
        Lab.up(lab_name, specs, state_dir=state_dir, say=click.echo)
        return
    with Lab.temporary(lab_name, specs, state_dir=state_dir, say=click.echo):
        click.echo("The lab is up. End the input (Ctrl-D) or press Ctrl-C to remove it.")
        sys.stdin.read()


@lab.command()
@click.option("--cache", is_flag=True, help="Also remove base images, layers and snapshots.")
@lab_option
@state_option
def down(cache: bool, lab_name: str, state_dir: Path) -> None:
    """Remove a lab: machines with their data, bridge, firewall tables. A lab that is not there is no error."""
    check_host()
    take_down(Places(state_dir, check_name(lab_name, "lab name")))
    if cache:
        remove_cache(state_dir)


@lab.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")
@lab_option
@state_option
def status(as_json: bool, lab_name: str, state_dir: Path) -> None:
    """Show the machines of a lab; changes nothing."""
    found = Lab.open(lab_name, state_dir)
    columns = ("name", "state", "address4", "address6")
    rows = [{c: str(getattr(m, c)) for c in columns} for m in found.machines]
    if as_json:
        paths = {k: str(getattr(found, k)) for k in ("ssh_config", "known_hosts", "root_key")}
        click.echo(json.dumps({"lab": found.name, "machines": rows, **paths}, indent=1))
        return
    table = Table(*columns, title=f"lab {found.name}")
    for row in rows:
        table.add_row(*row.values())
    Console().print(table)
    click.echo(f"ssh -F {found.ssh_config} NAME")


@lab.command(context_settings={"ignore_unknown_options": True})
@click.argument("machine")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@lab_option
@state_option
def ssh(machine: str, command: tuple[str, ...], lab_name: str, state_dir: Path) -> None:
    """Sign in over SSH as root, or run COMMAND. Put `--` before a command with options."""
    found = Lab.open(lab_name, state_dir)
    found.machine(machine)
    os.execvp("ssh", ["ssh", "-F", str(found.ssh_config), machine, *command])  # noqa: S606


@lab.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("machine")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@lab_option
@state_option
def exec_(machine: str, command: tuple[str, ...], lab_name: str, state_dir: Path) -> None:
    """Run COMMAND as root without SSH: also works where SSH is closed or broken."""
    argv = [*Lab.open(lab_name, state_dir).machine(machine).enter(), *command]
    raise SystemExit(subprocess.run(argv, check=False).returncode)


@lab.command()
@click.argument("machine")
@click.argument("layer")
@lab_option
@state_option
def snapshot(machine: str, layer: str, lab_name: str, state_dir: Path) -> None:
    """Keep the state of MACHINE as LAYER, for `lab up --layer`. The machine is restarted for it."""
    Lab.open(lab_name, state_dir).snapshot(machine, layer)


@lab.command()
@click.argument("machine")
@click.argument("other", required=False)
@lab_option
@state_option
def cut(machine: str, other: str | None, lab_name: str, state_dir: Path) -> None:
    """Drop all traffic of MACHINE, or only that between MACHINE and OTHER."""
    Lab.open(lab_name, state_dir).cut(machine, other)


@lab.command()
@click.argument("machine", required=False)
@click.argument("other", required=False)
@lab_option
@state_option
def heal(machine: str | None, other: str | None, lab_name: str, state_dir: Path) -> None:
    """Undo one cut, or all of them."""
    Lab.open(lab_name, state_dir).heal(machine, other)


@lab.command()
@click.argument("machine")
@lab_option
@state_option
def freeze(machine: str, lab_name: str, state_dir: Path) -> None:
    """Halt MACHINE where it is: it answers nothing until `thaw`."""
    Lab.open(lab_name, state_dir).machine(machine).freeze()


@lab.command()
@click.argument("machine")
@lab_option
@state_option
def thaw(machine: str, lab_name: str, state_dir: Path) -> None:
    """Let a frozen MACHINE go on."""
    Lab.open(lab_name, state_dir).machine(machine).thaw()


@lab.command()
@state_option
def reap(state_dir: Path) -> None:
    """Remove labs whose process died: temporary ones, and those that were never complete."""
    check_host()
    for what in remove_abandoned(state_dir):
        click.echo(f"removed {what}")


if __name__ == "__main__":
    try:
        lab()
    except Refusal as refusal:
        click.echo(f"Error: {refusal}", err=True)
        sys.exit(1)
