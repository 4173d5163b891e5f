"""What an instance's `inventory.py` needs: its hosts with their `Node` and how to reach them.

This is the one place that knows where the age identity lies.
"""

from __future__ import annotations

import os
import runpy
import socket
import sys
import traceback
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from enum import Enum
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mastodon_gov import secrets
from mastodon_gov.certificate_files import certificate_files
from mastodon_gov.errors import Refusal, Unreachable, WrongUsage
from mastodon_gov.instance import Instance, Node
from mastodon_gov.instance.load import load
from mastodon_gov.release.select import selected

# A role branches on these names; a group nobody knows would silently deploy nothing.
GROUPS = ("database", "redis", "mastodon", "proxy")

if TYPE_CHECKING:
    import paramiko


class Reader(Enum):
    """Who runs an instance's inventory.py: pyinfra, or we, for whole nodes or for the names alone."""

    PYINFRA, NODES, NAMES = range(3)


_READER: ContextVar[Reader] = ContextVar("reader", default=Reader.PYINFRA)
HostList = list[tuple[str, dict[str, Any]]]


def identity_path(directory: Path) -> Path:
    """Where the age identity of this instance lies (it may not be there yet)."""
    if given := os.environ.get("MASTODON_GOV_IDENTITY"):
        return Path(given)
    beside = directory / "identity.txt"
    return beside if beside.exists() else Path.home() / ".config/mastodon-gov/identity.txt"


def groups(inventory_file: str, hosts: Mapping[str, Iterable[str]]) -> dict[str, HostList]:
    """The groups pyinfra reads, each a list of hosts. Ends the program with sentences and code 2 if a file is wrong."""
    if _READER.get() is Reader.NAMES:
        return {group: [(name, {}) for name in names] for group, names in hosts.items()}
    try:
        return read_groups(Path(inventory_file).resolve().parent, hosts)
    except Refusal as refusal:
        if _READER.get() is Reader.NODES:
            raise
        # Above us is pyinfra, which would show a traceback.
        print(refusal, file=sys.stderr)
        sys.exit(WrongUsage.code)


def read_groups(directory: Path, hosts: Mapping[str, Iterable[str]]) -> dict[str, HostList]:
    """As `groups`, with a Refusal for what is wrong."""
    if text := [group for group, names in hosts.items() if isinstance(names, str)]:
        name = hosts[text[0]]
        raise WrongUsage(f'inventory.py, {text[0]}: found "{name}". Allowed: a list of hosts. Write ["{name}"].')
    named = {group: list(names) for group, names in hosts.items()}
    if unknown := [group for group in named if group not in GROUPS]:
        raise WrongUsage(f"inventory.py: found the group {unknown[0]}. Allowed: {', '.join(GROUPS)}. Rename it.")
    member = {name: frozenset(g for g in named if name in named[g]) for names in named.values() for name in names}
    if len(member) > 1:
        raise WrongUsage(
            f"inventory.py: found the hosts {', '.join(sorted(member))}. Allowed: one host, in every group: database "
            "and Redis listen to nobody outside it, so parts on other hosts would not find them. Name one."
        )
    instance = load(directory)
    found = secrets.read(directory, identity_path(directory))
    if instance.backups.second and instance.backups.second.endpoint and not found.object_storage.second:
        raise WrongUsage(
            "secrets.age, object_storage.second: found nothing, while backups.second names another S3 service. Give "
            "its key with `mastodon-gov secrets edit`."
        )
    release = selected(instance, directory)
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
    return {group: [name for name, _ in hosts] for group, hosts in _run(directory, Reader.NAMES).items()}


def nodes(directory: Path, limit: str | None = None) -> list[Node]:
    """The node of every host, in the order in which the instance's inventory.py names them; with `limit` only those
    that pyinfra takes for it: a group's, or those whose name fits. Raises Unreachable when that is none."""
    if limit and "," in limit:
        raise WrongUsage(
            f'--limit: found "{limit}". Allowed: one host, one group, or one name with * and ?. Run it once for each.'
        )
    hosts = _run(directory, Reader.NODES)
    listed = {name: data["node"] for group in hosts.values() for name, data in group}
    if limit:
        group = [name for name, _ in hosts.get(limit, ())]
        listed = {name: node for name, node in listed.items() if name in group or (not group and fnmatch(name, limit))}
    if not listed:
        what = f"--limit {limit} fits no host of inventory.py" if limit else "inventory.py names no host"
        raise Unreachable(f"{what}. Allowed: the hosts and groups that {directory / 'inventory.py'} lists.")
    return list(listed.values())


def _run(directory: Path, reader: Reader) -> dict[str, HostList]:
    """What inventory.py defines, as `reader` wants it. It is Python, so anything may go wrong in it."""
    path = directory / "inventory.py"
    if not path.is_file():
        raise WrongUsage(f"{path} does not exist. Write it as `mastodon-gov init` does, or copy the file.")
    before = _READER.set(reader)
    try:
        found = runpy.run_path(str(path))
        return {group: [(name, data) for name, data in found[group]] for group in GROUPS if found.get(group)}
    except Refusal:
        raise
    except Exception as error:
        raise WrongUsage(_fault(path, error)) from None
    finally:
        _READER.reset(before)


def _fault(path: Path, error: Exception) -> str:
    """An error of somebody's inventory.py, with the line of that file that led to it."""
    steps = traceback.extract_tb(error.__traceback__)
    line = next((step.lineno for step in reversed(steps) if step.filename == str(path)), None)
    told = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        line, told = error.lineno, f"{type(error).__name__}: {error.msg}"
    return (
        f"{path}, line {line or 1}: found {told}. Allowed: Python that gives `groups` a list of hosts for each group. "
        "Mend that line, or begin with the file that `mastodon-gov init` writes."
    )


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
