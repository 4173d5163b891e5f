"""The end of a deploy: configuration and database are kept together (docs/decisions/backup-set.md)."""

from __future__ import annotations

import json
from pathlib import Path

from pyinfra import host, logger
from pyinfra.api import FactBase, FunctionCommand, StringCommand, operation
from pyinfra.api.host import Host
from pyinfra.api.state import State

from mastodon_gov.backups.configuration import is_kept, keep
from mastodon_gov.errors import Refusal
from mastodon_gov.instance import Node
from roles.backups.role import started
from roles.lib import Commands, deploy
from roles.restore.role import RestoreUnderWay

INCREMENTAL = "mfg-backup-incr.service"


class BackedUpRelease(FactBase[str]):
    """Name of the release in the newest manifest that this host wrote, or "". `backup-status` knows it too, but asks
    the store."""

    default = str

    def command(self) -> str:
        """The newest file; nothing on a host without one."""
        return '{ cat "$(ls -t /var/lib/mastodon-gov/manifests/*.json | head -n1)"; } 2>/dev/null; true'

    def process(self, output: list[str]) -> str:
        """One JSON document."""
        return str((json.loads("".join(output) or "{}").get("release") or {}).get("name", ""))


@operation()
def configuration(node: Node, directory: Path) -> Commands:
    """Put the instance directory, encrypted to its recipients, into the backup bucket when it has changed."""
    try:
        kept = is_kept(node.instance, node.secrets, directory)
    except Refusal:
        # Before the first deploy the key may not even look; what it still may not do then is said by the upload.
        kept = False
    if not kept:
        yield FunctionCommand(_keep, (node, directory), {})


def _keep(state: State, host: Host, node: Node, directory: Path) -> bool:
    """False is a failed operation. Asking for `state` and `host` spares the reader a traceback."""
    try:
        keep(node.instance, node.secrets, directory)
    except Refusal as refusal:
        logger.error(f"{host.print_prefix}{refusal}")
        return False
    return True


@operation()
def manifest_of_release(node: Node) -> Commands:
    """Make a small backup where no manifest names the running release: a restore must know which one to install."""
    if "mastodon" not in node.groups or host.get_fact(BackedUpRelease) == node.release.name:
        return
    done = host.get_fact(RestoreUnderWay).get("done", {})
    # A restore that has switched ends with a full backup of its own.
    if "swap" not in done or "backup" in done:
        yield StringCommand(started(INCREMENTAL, "mfg-backup-manifest"))


@deploy("Backup set")
def backup_set(node: Node, directory: Path) -> None:
    """Last of all: what lies in the bucket now is enough for an empty host."""
    configuration(name="Keep the configuration", node=node, directory=directory, _run_once=True)
    manifest_of_release(name="Back up what was deployed", node=node)
