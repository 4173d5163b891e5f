"""A storage host of one's own. It is deployed apart from the instance, because it has other administrators and keys:

pyinfra --sudo --user deploy HOST roles/radosgw/deploy.py --data storage_name=s3.agency.example
"""

from __future__ import annotations

from pyinfra import host

from roles.lib.lock import deploy_lock
from roles.radosgw.role import Storage, User, radosgw

USERS = (User("owner", owns_buckets=True), User("media"), User("backups"))

deploy_lock(name="Hold the host's lock")
radosgw(Storage(host.data.storage_name, "/etc/ssl/s3/chain.pem", "/etc/ssl/s3/key.pem", USERS))
