"""OpenSSH as it runs: `sshd -T`, never the file; what a Match block gives somebody stands among the values."""

from __future__ import annotations

import hashlib

import pytest

from mastodon_gov.audit.facts import Facts
from mastodon_gov.instance import Instance
from tests.compliance.conftest import Evidence
from tests.compliance.expect import holds, same

SSHD = "sshd -T, and -C for each account"


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


ALGORITHMS = {
    "kexalgorithms": "mlkem768x25519-sha256,sntrup761x25519-sha512,sntrup761x25519-sha512@openssh.com,"
    "curve25519-sha256,curve25519-sha256@libssh.org",
    "ciphers": "aes256-gcm@openssh.com,aes128-gcm@openssh.com",
    "macs": "hmac-sha2-512-etm@openssh.com,hmac-sha2-256-etm@openssh.com",
    "hostkeyalgorithms": "ssh-ed25519,ssh-ed25519-cert-v01@openssh.com",
    "requiredrsasize": "3072",
}
FORWARDING = {
    "disableforwarding": "yes",
    "allowtcpforwarding": "no",
    "allowagentforwarding": "no",
    "allowstreamlocalforwarding": "no",
    "x11forwarding": "no",
    "permittunnel": "no",
    "gatewayports": "no",
    "permituserrc": "no",
}
LIMITS = {
    "maxauthtries": "3",
    "maxsessions": "4",
    "maxstartups": "10:30:60",
    "logingracetime": "30",
    "clientaliveinterval": "300",
    "clientalivecountmax": "2",
}
RECORDS = {"banner": "/etc/issue.net", "loglevel": "VERBOSE", "usepam": "yes"}


def one(facts: Facts, evidence: Evidence, setting: str, value: str) -> None:
    """A setting with exactly this value."""
    same(evidence, facts["sshd"].get(setting), [value], SSHD)


@pytest.mark.control("MFG-SSH-05")
@pytest.mark.parametrize("setting", ALGORITHMS)
def test_only_strong_algorithms(setting: str, facts: Facts, evidence: Evidence) -> None:
    one(facts, evidence, setting, ALGORITHMS[setting])


@pytest.mark.control("MFG-SSH-06")
@pytest.mark.parametrize("setting", FORWARDING)
def test_nothing_is_forwarded(setting: str, facts: Facts, evidence: Evidence) -> None:
    one(facts, evidence, setting, FORWARDING[setting])


@pytest.mark.control("MFG-SSH-07")
@pytest.mark.parametrize("setting", LIMITS)
def test_tries_and_sessions_end(setting: str, facts: Facts, evidence: Evidence) -> None:
    one(facts, evidence, setting, LIMITS[setting])


@pytest.mark.control("MFG-SSH-08")
@pytest.mark.parametrize("setting", RECORDS)
def test_people_are_warned_and_recorded(setting: str, facts: Facts, evidence: Evidence) -> None:
    one(facts, evidence, setting, RECORDS[setting])


@pytest.mark.control("MFG-SSH-09")
def test_host_keys(facts: Facts, evidence: Evidence) -> None:
    """That it is the key of known_hosts was seen when this audit connected."""
    wrong = [path for path, seen in facts["host_keys"].items() if not _strong(seen)]
    observed = wrong or sorted(facts["host_keys"])
    holds(evidence, bool(facts["host_keys"]) and not wrong, observed, "Ed25519 or RSA 3072, 0600 root", SSHD)


def _strong(seen: Facts) -> bool:
    strong: bool = seen["type"] == "ED25519" or (seen["type"] == "RSA" and seen["bits"] >= 3072)
    return bool(strong and seen["mode"] == "0600" and seen["uid"] == 0)


# Other ways for a key, a certificate or a whole machine to be believed.
BELIEVED = {
    "authorizedkeysfile": "/etc/ssh/keys/%u",
    "authorizedkeyscommand": "none",
    "trustedusercakeys": "none",
    "authorizedprincipalsfile": "none",
    "authorizedprincipalscommand": "none",
    "hostbasedauthentication": "no",
}


@pytest.mark.control("MFG-SSH-10")
@pytest.mark.parametrize("setting", BELIEVED)
def test_sshd_reads_no_other_keys(setting: str, facts: Facts, evidence: Evidence) -> None:
    one(facts, evidence, setting, BELIEVED[setting])


@pytest.mark.control("MFG-SSH-10")
def test_keys_are_root_s_and_declared(facts: Facts, evidence: Evidence, instance: Instance) -> None:
    access = instance.access
    declared = {person.name: person.keys for person in access.administrators} | {"deploy": access.deploy_keys}
    if access.auditors:
        declared["auditor"] = tuple(key for person in access.auditors for key in person.keys)
    expected = {name: sorted(map(_digest, keys)) for name, keys in declared.items()}
    observed = {name: sorted(seen["keys"]) for name, seen in facts["keys"].items()}
    loose = [name for name, seen in facts["keys"].items() if seen["uid"] != 0 or seen["mode"] != "0644"]
    good = observed == expected and not loose
    holds(evidence, good, observed | {"not root's": loose}, f"{expected}, all root's", "/etc/ssh/keys")


def _digest(key: str) -> str:
    return hashlib.sha256(" ".join(key.split()[:2]).encode()).hexdigest()
