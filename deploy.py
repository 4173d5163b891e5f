"""Which role lands on which group of hosts: a table of contents."""

from __future__ import annotations

from pathlib import Path

from pyinfra import host

from mastodon_gov.instance import Node
from roles.backups.backup_set import backup_set
from roles.backups.role import backups
from roles.base.role import base, base_after_all
from roles.certificates.role import certificates, issue
from roles.firewall.role import firewall
from roles.lib.lock import deploy_lock
from roles.lib.progress import report_progress
from roles.mail.role import mail
from roles.mastodon.database import same_instance
from roles.mastodon.role import mastodon
from roles.nginx.role import nginx
from roles.object_storage.role import object_storage
from roles.postgresql.role import postgresql, refuse_foreign
from roles.redis.role import redis, redis_passwords
from roles.restore.role import not_half_done, restore
from roles.ssh.role import ssh

node: Node = host.data.node

report_progress()
deploy_lock(name="Hold the host's lock")
if "database" in node.groups:
    not_half_done(name="Look for an interrupted restore")
    refuse_foreign(name="Look for somebody else's database")
if "mastodon" in node.groups:
    same_instance(name="Compare with the database", node=node)
object_storage(node)
base(node)
ssh(node)
firewall(node)
certificates(node)
mail(node)
if "database" in node.groups:
    postgresql(node)
    backups(node)
    restore(node)
if "redis" in node.groups:
    redis(node)
if "mastodon" in node.groups:
    mastodon(node)
if "redis" in node.groups:
    redis_passwords(node)
if "proxy" in node.groups:
    nginx(node)
    issue(node)
if "database" in node.groups:
    backup_set(node, Path(host.data.directory))
base_after_all(node)
