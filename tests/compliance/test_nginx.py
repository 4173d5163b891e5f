"""nginx from inside: what it keeps of visitors, and what it tells the application. Answers are asked from outside."""

from __future__ import annotations

import pytest

from mastodon_gov.audit.facts import Facts
from tests.compliance.conftest import Evidence
from tests.compliance.expect import holds, same

LOG_DAYS = 14
# Spellings of the client's address and scheme that Rails would believe; an empty value removes the header.
FORWARDED = {
    "x-forwarded-for": ["$remote_addr"],
    "x-real-ip": ["$remote_addr"],
    "x-forwarded-proto": ["https"],
    "client-ip": ['""'],
    "forwarded": ['""'],
    "x-forwarded-host": ['""'],
    "x-forwarded-port": ['""'],
    "proxy": ['""'],
}


@pytest.mark.control("MFG-WEB-08")
def test_addresses_of_visitors_go(facts: Facts, evidence: Evidence) -> None:
    oldest = facts["logs"]["oldest"]
    holds(evidence, oldest <= LOG_DAYS, f"{oldest} days", f"{LOG_DAYS} days or less", "the oldest access log")


@pytest.mark.control("MFG-WEB-08")
@pytest.mark.parametrize("setting", ["rotate", "maxage"])
def test_logs_are_rotated(setting: str, facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["rotation"].get(setting), str(LOG_DAYS), "/etc/logrotate.d/nginx")


@pytest.mark.control("MFG-WEB-08")
def test_rotation_runs(facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["rotation"]["timer"], "active, enabled", "systemctl is-active, is-enabled logrotate.timer")


@pytest.mark.control("MFG-WEB-08")
def test_no_query_is_logged(facts: Facts, evidence: Evidence) -> None:
    """Queries carry codes of sign-ins."""
    same(evidence, facts["logs"]["queries"], 0, "access.log")


@pytest.mark.control("MFG-APP-15")
@pytest.mark.parametrize("header", FORWARDED)
def test_visitors_cannot_name_their_address(header: str, facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["forwarded"].get(header), FORWARDED[header], "nginx -T")
