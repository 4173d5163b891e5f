"""An invitation by mail through the real relay: it arrives once, and a relay that is down loses nothing."""

from __future__ import annotations

import json
import secrets

from mastodon_gov.lab.world.mail import read_mail, text_of
from tests.lab.deployed import Deployed, wait_for
from tests.lab.officials import journal
from tests.lab.people import Browser


def _mails(instance: Deployed, address: str) -> list[str]:
    return [text_of(message) for message in read_mail(instance.demo.lab) if address in str(message["To"])]


def test_it_arrives_once_also_when_the_relay_was_down(instance: Deployed, owner: Browser) -> None:
    """The relay refuses connections; then it is back; then somebody asks a third time."""
    address = f"t{secrets.token_hex(5)}@agency.test"
    words = ("invite", address, "--organisation", "agency", "--why", "a lab test", "--by", "ana", "--mail")
    instance.root("cp -p /etc/msmtprc /root/msmtprc && sed -i 's/^port .*/port 9/' /etc/msmtprc")
    try:
        down = instance.cli(*words, check=False)
    finally:
        instance.root("mv /root/msmtprc /etc/msmtprc")
    try:
        assert down.returncode == 1
        assert "did not take the mail" in down.stderr
        link = down.stdout.strip()
        up, again = instance.cli(*words), instance.cli(*words)
        assert [up.stdout.strip(), again.stdout.strip()] == [link, link]
        assert "mailed already" in again.stderr
        wait_for(lambda: _mails(instance, address), 60, "the mail")
        (text,) = _mails(instance, address)
        assert link in text
        (entry,) = journal(instance, "invite", address)
        assert (entry["MFG_BY"], entry["MFG_WHY"]) == ("ana", "a lab test")
    finally:
        instance.cli("revoke", address)


def test_a_dry_run_makes_nothing(instance: Deployed, owner: Browser) -> None:
    """It says whether it would work, and why not."""
    count = "SELECT count(*) FROM gov.invitation"
    before = instance.sql(count)
    good = instance.cli("invite", "new77@agency.test", "--organisation", "agency", "--dry-run", "--json")
    assert json.loads(good.stdout) == {"address": "new77@agency.test", "would_make": True}
    other = instance.cli("invite", "new77@agency.test", "--organisation", "council", "--dry-run", check=False)
    assert other.returncode == 1
    assert 'belongs to the organisation "agency"' in other.stderr
    assert instance.sql(count) == before
