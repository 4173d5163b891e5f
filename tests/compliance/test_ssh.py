"""OpenSSH as it runs: `sshd -T`, never the file."""

from __future__ import annotations

import pytest

from mastodon_gov.audit.facts import Facts
from mastodon_gov.instance import Instance
from tests.compliance.conftest import Evidence

SSHD = "sshd -T"


@pytest.mark.control("MFG-SSH-01")
def test_root_cannot_sign_in(facts: Facts, evidence: Evidence) -> None:
    observed = facts["sshd"]["permitrootlogin"]
    evidence(observed=observed, expected=["no"], command=SSHD)
    assert observed == ["no"]


OFF = ["passwordauthentication", "kbdinteractiveauthentication", "permitemptypasswords"]


@pytest.mark.control("MFG-SSH-02")
@pytest.mark.parametrize("setting", OFF)
def test_no_passwords(setting: str, facts: Facts, evidence: Evidence) -> None:
    observed = facts["sshd"][setting]
    evidence(observed=observed, expected=["no"], command=SSHD)
    assert observed == ["no"]


@pytest.mark.control("MFG-SSH-02")
def test_keys_only(facts: Facts, evidence: Evidence) -> None:
    observed = facts["sshd"]["authenticationmethods"]
    evidence(observed=observed, expected=["publickey"], command=SSHD)
    assert observed == ["publickey"]


@pytest.mark.control("MFG-SSH-03")
def test_only_our_groups(facts: Facts, evidence: Evidence) -> None:
    expected = ["mfg-admin", "mfg-audit", "mfg-deploy"]
    observed = sorted(facts["sshd"]["allowgroups"])
    evidence(observed=observed, expected=expected, command=SSHD)
    assert observed == expected


@pytest.mark.control("MFG-SSH-10")
def test_accounts_with_keys_are_declared(facts: Facts, evidence: Evidence, instance: Instance) -> None:
    """Digests of keys are compared: the comment of a key is nobody's business."""
    access = instance.access
    auditor = {"auditor"} if access.auditors else set()
    expected = sorted({"deploy", *auditor, *(person.name for person in access.administrators)})
    observed = sorted(facts["keys"])
    evidence(observed=observed, expected=expected, command="ls /etc/ssh/keys")
    assert observed == expected
