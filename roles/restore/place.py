"""What an empty host gets before its database is brought back: everything up to a cluster that was never started.

`mastodon-gov restore --onto-empty` runs it in the place of deploy.py; the whole deploy follows the restore.
"""

from __future__ import annotations

from pyinfra import host

from mastodon_gov.instance import Node
from roles.backups.role import backup_files
from roles.base.role import base
from roles.certificates.role import certificates
from roles.firewall.role import firewall
from roles.lib.lock import deploy_lock
from roles.lib.progress import report_progress
from roles.postgresql.role import place
from roles.restore.role import not_half_done, restore
from roles.ssh.role import ssh

node: Node = host.data.node

report_progress()
deploy_lock(name="Hold the host's lock")
if "database" in node.groups:
    not_half_done(name="Look for an interrupted restore")
    base(node)
    ssh(node)
    firewall(node)
    certificates(node)
    place(node)
    backup_files(node)
    restore(node)
