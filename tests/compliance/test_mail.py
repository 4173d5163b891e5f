"""Mail: always to the relay, always encrypted, and nothing listens."""

from __future__ import annotations

import pytest

from mastodon_gov.audit.facts import Facts
from mastodon_gov.instance import Instance
from tests.compliance.conftest import Evidence
from tests.compliance.expect import none, same

HOST = {"tls": "on", "tls_starttls": "on", "tls_certcheck": "on"}
APPLICATION = {"SMTP_ENABLE_STARTTLS": "always", "SMTP_OPENSSL_VERIFY_MODE": "peer"}


@pytest.mark.control("MFG-MAIL-01")
@pytest.mark.parametrize("setting", HOST)
def test_mail_of_the_host_is_encrypted(setting: str, facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["host"].get(setting), HOST[setting], "msmtp --pretend")


@pytest.mark.control("MFG-MAIL-01")
@pytest.mark.parametrize("setting", APPLICATION)
def test_mail_of_the_application_is_encrypted(setting: str, facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["application"].get(setting), APPLICATION[setting], "/proc/PID/environ")


@pytest.mark.control("MFG-MAIL-01")
def test_mail_goes_to_the_relay(facts: Facts, evidence: Evidence, instance: Instance) -> None:
    observed = {facts["host"]["host"], facts["application"]["SMTP_SERVER"]}
    same(evidence, sorted(observed), [instance.mail.relay], "msmtp --pretend, /proc/PID/environ")


@pytest.mark.control("MFG-MAIL-01")
def test_nothing_takes_mail(facts: Facts, evidence: Evidence) -> None:
    none(evidence, facts["listening"], "ss -Hltn")


@pytest.mark.control("MFG-MAIL-01")
def test_the_relay_s_password_is_root_s(facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["secret"], "root 0600", "stat /etc/msmtprc")
