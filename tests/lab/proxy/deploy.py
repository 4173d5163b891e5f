"""The roles under test; the instance comes from the file in the data `told`."""

from __future__ import annotations

import json
from pathlib import Path

from pyinfra import host

from mastodon_gov.instance import Instance
from mastodon_gov.instance.node import CertificateFiles
from roles.certificates.role import certificates, issue
from roles.lib.files import Directory, managed_files
from roles.nginx.role import nginx
from tests.unit.storage_sample import node_of, secrets

told = json.loads(Path(host.data.told).read_text())
changes = {
    "groups": frozenset({"proxy"}),
    "name": "social",
    "certificate": CertificateFiles.model_validate(told["certificate"]),
}
node = node_of(Instance.model_validate(told["instance"]), secrets()).model_copy(update=changes)

lib = "/usr/local/lib/mastodon-gov"
managed_files(name="Write directories", entries=[Directory(lib), Directory(f"{lib}/facts")])
certificates(node)
nginx(node)
issue(node)
