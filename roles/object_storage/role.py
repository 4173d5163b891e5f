"""Object storage: buckets for media and backups on any S3 service, made from the control node.

The owner's key can undo every protection, so it never reaches a host: this role talks to the service itself and
runs once for all hosts.
"""

from __future__ import annotations

from pyinfra import host, logger
from pyinfra.api import FunctionCommand, OperationError, operation
from pyinfra.api.host import Host
from pyinfra.api.state import State

from mastodon_gov.errors import Refusal
from mastodon_gov.instance import Instance, Node
from mastodon_gov.instance.secret_model import AccessKey
from mastodon_gov.storage.buckets import pending
from mastodon_gov.storage.buckets import settle as settle_bucket
from mastodon_gov.storage.settings import Action, Wanted
from roles.lib import Commands, deploy
from roles.lib.files import Entry
from roles.lib.units import Unit

PACKAGES: list[str] = []
UNITS: list[Unit] = []


def files(node: Node) -> list[Entry]:
    """Nothing of this role lies on a host."""
    return []


@operation()
def buckets(instance: Instance, owner: AccessKey) -> Commands:
    """Bring both buckets to what the instance says; one command for each bucket that differs."""
    try:
        plans = pending(instance, owner)
    except Refusal as refusal:
        raise OperationError(str(refusal)) from None
    for plan in plans:
        for action in plan[1]:
            logger.info(f"{host.print_prefix}{action.why}")
        yield FunctionCommand(_settle, (instance, owner, plan), {})


def _settle(state: State, host: Host, instance: Instance, owner: AccessKey, plan: tuple[Wanted, list[Action]]) -> bool:
    """Change one bucket; False is a failed operation. Asking for `state` and `host` spares the reader a traceback."""
    try:
        settle_bucket(instance, owner, *plan)
    except Refusal as refusal:
        logger.error(f"{host.print_prefix}{refusal}")
        return False
    return True


@deploy("Object storage")
def object_storage(node: Node) -> None:
    """Once in a run, however many hosts there are."""
    owner = node.secrets.object_storage.owner
    buckets(name="Settle buckets", instance=node.instance, owner=owner, _run_once=True)
