"""What an instance's `inventory.py` needs: its hosts with their `Node` and how to reach them.

This is the one place that knows where the age identity lies.
"""

from __future__ import annotations

import os
import runpy
import socket
import sys
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mastodon_gov import secrets
from mastodon_gov.certificate_files import certificate_files
from mastodon_gov.errors import Refusal
from mastodon_gov.instance import Instance, Node
from mastodon_gov.instance.load import load
from mastodon_gov.release.select import selected

WRONG_USAGE = 2
# A role branches on these names; a group nobody knows would silently deploy nothing.
GROUPS = ("database", "redis", "mastodon", "proxy")

if TYPE_CHECKING:
    import paramiko

_NAMES_ONLY: ContextVar[bool] = ContextVar("names_only", default=False)
HostList = list[tuple[str, dict[str, Any]]]


def identity_path(directory: Path) -> Path:
    """Where the age identity of this instance lies (it may not be there yet)."""
    if given := os.environ.get("MASTODON_GOV_IDENTITY"):
        return Path(given)
    beside = directory / "identity.txt"
    return beside if beside.exists() else Path.home() / ".config/mastodon-gov/identity.txt"


def groups(inventory_file: str, hosts: Mapping[str, Iterable[str]]) -> dict[str, HostList]:
    """The groups pyinfra reads, each a list of hosts. Ends the program with sentences and code 2 if a file is wrong."""
    if _NAMES_ONLY.get():
        return {group: [(name, {}) for name in names] for group, names in hosts.items()}
    try:
        return read_groups(Path(inventory_file).resolve().parent, hosts)
    except Refusal as refusal:
        # Above us is pyinfra, which would show a traceback.
        print(refusal, file=sys.stderr)
        sys.exit(WRONG_USAGE)


def read_groups(directory: Path, hosts: Mapping[str, Iterable[str]]) -> dict[str, HostList]:
    """As `groups`, with a Refusal for what is wrong."""
    named = {group: list(names) for group, names in hosts.items()}
    if unknown := [group for group in named if group not in GROUPS]:
        raise Refusal(f"inventory.py: found the group {unknown[0]}. Allowed: {', '.join(GROUPS)}. Rename it.")
    instance = load(directory)
    found = secrets.read(directory, identity_path(directory))
    if instance.backups.second and instance.backups.second.endpoint and not found.object_storage.second:
        raise Refusal(
            "secrets.age, object_storage.second: found nothing, while backups.second names another S3 service. Give "
            "its key with `mastodon-gov secrets edit`."
        )
    release = selected(instance, directory)
    member = {name: frozenset(g for g in named if name in named[g]) for names in named.values() for name in names}
    data = {}
    for name, of in member.items():
        node = Node(
            name=name,
            groups=of,
            instance=instance,
            secrets=found,
            release=release,
            certificate=certificate_files(directory, instance, name, identity_path(directory)),
        )
        data[name] = _host(directory, instance, node)
    return {group: [(name, data[name]) for name in names] for group, names in named.items()}


def members(directory: Path) -> dict[str, list[str]]:
    """Names of the hosts in each group, as the instance's inventory.py says. Opens no secrets: an auditor has none."""
    before = _NAMES_ONLY.set(True)
    try:
        found = runpy.run_path(str(directory / "inventory.py"))
    finally:
        _NAMES_ONLY.reset(before)
    return {group: [name for name, _ in found[group]] for group in GROUPS if found.get(group)}


def nodes(directory: Path) -> list[Node]:
    """The node of every host, in the order in which the instance's inventory.py names them."""
    found = runpy.run_path(str(directory / "inventory.py"))
    listed = (pair for group in GROUPS for pair in found.get(group, ()))
    return list({name: data["node"] for name, data in listed}.values())


def _host(directory: Path, instance: Instance, node: Node) -> dict[str, Any]:
    """Host data: the node, and how pyinfra signs in. Only host keys of `known_hosts` are believed."""
    key = directory / "deploy_key"
    return {
        "node": node,
        "directory": str(directory),
        "ssh_hostname": instance.reached_at(node.name)[0],
        "ssh_user": "deploy",
        **({"ssh_key": str(key)} if key.exists() else {}),
        "ssh_known_hosts_file": str(directory / "known_hosts"),
        "ssh_strict_host_key_checking": "yes",
        "ssh_paramiko_connect_kwargs": {"transport_factory": _without_delay},
        "_sudo": True,
    }


def _without_delay(sock: socket.socket, **options: Any) -> paramiko.Transport:
    """paramiko leaves Nagle's algorithm on: small packets then wait 40 ms for a delayed acknowledgement."""
    import paramiko  # takes a quarter of a second, which verbs that only want names must not pay

    # Through a jump host the "socket" is a channel, which has no such option.
    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return paramiko.Transport(sock, **options)
