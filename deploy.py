"""Which role lands on which group of hosts: a table of contents."""

from __future__ import annotations

from pyinfra import host

from mastodon_gov.instance import Node
from roles.base.role import base
from roles.firewall.role import firewall
from roles.lib.lock import deploy_lock
from roles.lib.progress import report_progress
from roles.postgresql.role import postgresql
from roles.redis.role import redis
from roles.ssh.role import ssh

node: Node = host.data.node

report_progress()
deploy_lock(name="Hold the host's lock")
base(node)
ssh(node)
firewall(node)
if "database" in node.groups:
    postgresql(node)
if "redis" in node.groups:
    redis(node)
