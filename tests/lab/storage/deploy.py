"""The storage roles on one machine; instance and secrets come from the file in the data `told`."""

from __future__ import annotations

import json
from pathlib import Path

from pyinfra import host

from mastodon_gov.instance import Instance, Secrets
from roles.backups.role import backups
from roles.lib.accounts import Account, accounts
from roles.lib.files import Directory, Entry, managed_files
from roles.mail.role import mail
from roles.object_storage.role import object_storage
from roles.postgresql.role import postgresql
from tests.unit.storage_sample import node_of

told = json.loads(Path(host.data.told).read_text())
node = node_of(Instance.model_validate(told["instance"]), Secrets.model_validate(told["secrets"]))

accounts(name="Settle accounts", wanted=[Account("postgres", "/var/lib/postgresql", shell="/bin/bash")], groups=[])
programs: list[Entry] = [Directory("/usr/local/lib/mastodon-gov"), Directory("/usr/local/lib/mastodon-gov/facts")]
managed_files(name="Write directories", entries=programs)
object_storage(node)
postgresql(node)
backups(node)
mail(node)
