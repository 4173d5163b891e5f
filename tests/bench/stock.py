"""The demo's resources through pyinfra's stock operations, one operation each: the reference of `make bench`."""

from __future__ import annotations

from io import StringIO

from pyinfra import host
from pyinfra.operations import apt, files, server, systemd

from mastodon_gov.instance import Node
from roles.lib.files import Directory, Link, ManagedFile
from roles.lib.progress import report_progress
from tests.unit.test_roles import FILES, UNITS

node: Node = host.data.node

report_progress()
for package in ("chrony", "nftables", "postgresql-17", "redis-server", "nginx", "pgbackrest", "certbot", "zstd"):
    apt.packages(name=f"package {package}", packages=[package])
for person in ("deploy", "mastodon", "mastodon-owner", "postgres"):
    server.user(name=f"account {person}", user=person)
for role in FILES.values():
    for entry in role(node):
        if isinstance(entry, ManagedFile):
            text = entry.content if entry.content.endswith("\n") or not entry.content else entry.content + "\n"
            files.put(
                name=entry.path,
                src=StringIO(text),
                dest=entry.path,
                user=entry.user,
                group=entry.group,
                mode=f"{entry.mode:o}",
            )
        elif isinstance(entry, Directory):
            files.directory(
                name=entry.path, path=entry.path, user=entry.user, group=entry.group, mode=f"{entry.mode:o}"
            )
        elif isinstance(entry, Link):
            files.link(name=entry.path, path=entry.path, target=entry.target)
for unit in {unit.name for units in UNITS.values() for unit in units if not unit.masked}:
    systemd.service(name=unit, service=unit, running=None, enabled=None)
