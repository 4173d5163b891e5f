"""Redis as it runs."""

from __future__ import annotations

import pytest

from mastodon_gov.audit.facts import Facts
from tests.compliance.conftest import Evidence
from tests.compliance.expect import holds, none, same

LOOPBACK = {"127.0.0.1", "::1", "-::1"}
# What the audit itself asks with: settings and users, no data.
AUDIT = {"+acl|list", "+config|get", "+info", "+ping", "-@all"}


@pytest.mark.control("MFG-RED-01")
def test_it_listens_to_the_host(facts: Facts, evidence: Evidence) -> None:
    observed = facts["settings"]["bind"]
    good = bool(observed) and set(observed.split()) <= LOOPBACK
    holds(evidence, good, observed, "loopback", "CONFIG GET bind")


@pytest.mark.control("MFG-RED-01")
def test_protected_mode(facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["settings"]["protected-mode"], "yes", "CONFIG GET protected-mode")


@pytest.mark.control("MFG-RED-02")
def test_nobody_without_a_name(facts: Facts, evidence: Evidence) -> None:
    words = facts["users"]["default"].split()
    holds(evidence, "off" in words and "nopass" not in words, words, "off", "ACL LIST")


@pytest.mark.control("MFG-RED-02")
def test_only_our_users(facts: Facts, evidence: Evidence) -> None:
    same(evidence, sorted(facts["users"]), ["audit", "default", "mastodon"], "ACL LIST")


@pytest.mark.control("MFG-RED-02")
@pytest.mark.parametrize("taken", ["-@dangerous", "-@admin"])
def test_the_application_does_not_administer(taken: str, facts: Facts, evidence: Evidence) -> None:
    """A right is given or taken by what stands last."""
    words = facts["users"]["mastodon"].split()
    again = (
        set(words[words.index(taken) :]) - {taken, "-@dangerous", "-@admin", "+info", "+keys"}
        if taken in words
        else {"all"}
    )
    holds(evidence, not again, facts["users"]["mastodon"], f"{taken}, then +info +keys", "ACL LIST")


@pytest.mark.control("MFG-RED-02")
def test_the_audit_sees_no_data(facts: Facts, evidence: Evidence) -> None:
    given = {word for word in facts["users"]["audit"].split() if word.startswith(("+", "-@", "~", "&", "allkeys"))}
    none(evidence, sorted(given - AUDIT), "ACL LIST")


@pytest.mark.control("MFG-RED-03")
@pytest.mark.parametrize(("setting", "value"), [("maxmemory-policy", "noeviction"), ("appendonly", "yes")])
def test_no_job_is_thrown_away(setting: str, value: str, facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["settings"][setting], value, f"CONFIG GET {setting}")
