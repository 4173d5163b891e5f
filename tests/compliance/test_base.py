"""What every host has: its system, its packages, its people."""

from __future__ import annotations

import pytest

from mastodon_gov.audit.facts import Facts
from tests.compliance.conftest import Evidence

IPV4 = {
    "accept_redirects": "0",
    "send_redirects": "0",
    "secure_redirects": "0",
    "accept_source_route": "0",
    "rp_filter": "1",
    "log_martians": "1",
}


@pytest.mark.control("MFG-OS-01")
def test_debian_13(facts: Facts, evidence: Evidence) -> None:
    observed = facts["host"]["version_id"]
    evidence(observed=observed, expected="13", command="/etc/os-release")
    assert observed == "13"


@pytest.mark.control("MFG-OS-13")
@pytest.mark.parametrize("setting", IPV4)
@pytest.mark.parametrize("interface", ["all", "default"])
def test_ipv4_trusts_no_router(interface: str, setting: str, facts: Facts, evidence: Evidence) -> None:
    observed = facts["sysctl"][f"net.ipv4.conf.{interface}.{setting}"]
    evidence(observed=observed, expected=IPV4[setting], command=f"sysctl net.ipv4.conf.{interface}.{setting}")
    assert observed == IPV4[setting]
