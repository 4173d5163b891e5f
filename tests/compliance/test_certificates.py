"""The key of the public names, and that its certificate is renewed. What is served is asked from outside."""

from __future__ import annotations

import pytest

from mastodon_gov.audit.facts import Facts, Foreseen
from mastodon_gov.instance import Instance
from tests.compliance.conftest import Evidence
from tests.compliance.expect import same

RENEWED = {"timer": "active", "enabled": "enabled", "hook": True}


@pytest.mark.control("MFG-CRT-02")
@pytest.mark.parametrize("what", [*RENEWED, "server"])
def test_it_is_renewed(what: str, facts: Facts, evidence: Evidence, instance: Instance) -> None:
    if not (acme := instance.certificates.acme):
        raise Foreseen("The ministry issues this certificate itself; its days left are MFG-CRT-01.")
    same(evidence, facts["renewal"][what], (RENEWED | {"server": acme.directory})[what], "systemctl, certbot's files")


@pytest.mark.control("MFG-CRT-03")
@pytest.mark.parametrize(
    ("what", "value"), [("owner", "root:root"), ("mode", "0600"), ("fits", True), ("authority", True)]
)
def test_the_key_is_root_s(what: str, value: object, facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["key"][what], value, "stat privkey.pem, openssl pkey")
