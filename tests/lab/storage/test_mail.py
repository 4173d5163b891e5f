"""The host's mail and the probe of the relay, against OpenSMTPD."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mastodon_gov.instance import Secrets
from mastodon_gov.lab.world.mail import read_mail, set_mode, text_of
from mastodon_gov.relay import relay_findings
from tests.lab.storage.place import Place, stopped, until


def from_host(at: Place) -> Callable[[Sequence[str], str], str]:
    """Run the probe on the host."""
    return lambda command, given: at.host.ssh(list(command), stdin=given).stdout


def findings(at: Place, *, send: bool = False, secrets: Secrets | None = None, **changes: Any) -> list[str]:
    """What `check` says, seen from the host."""
    return relay_findings(at.instance(**changes), secrets or at.secrets(), send=send, run=from_host(at))


def test_the_relay_is_tried_and_a_message_arrives_only_when_asked(place: Place) -> None:
    before = len(read_mail(place.lab))
    assert findings(place) == []
    assert len(read_mail(place.lab)) == before
    assert findings(place, send=True) == []
    message = until(lambda: read_mail(place.lab)[before:], 20)[0]
    assert message["To"] == "owner@agency.test"


def test_what_a_relay_refuses_is_named(place: Place) -> None:
    wrong = {"login": "social", "password": "wrong-0815"}
    (sentence,) = findings(place, secrets=place.secrets(mail=wrong))
    assert "refuses to sign us in: 535" in sentence
    assert "wrong-0815" not in sentence
    other = {"relay": "council.test", "from_address": "social@agency.test"}
    (sentence,) = findings(place, mail=other)
    assert "council.test port 587 (mail.relay) shows a certificate that is not trusted: Hostname mismatch" in sentence
    set_mode(place.lab, "refuse")
    try:
        refused = "refuses mail to owner@agency.test (owner.address): 550"
        until(lambda: [sentence for sentence in findings(place) if refused in sentence], 10)
    finally:
        set_mode(place.lab, "accept")


def test_a_relay_that_is_away_is_named(place: Place) -> None:
    with stopped(place.lab.machine("world"), "opensmtpd"):
        (sentence,) = findings(place)
    assert "mail.world.test port 587 (mail.relay) cannot be reached: Connection refused" in sentence


def test_root_s_mail_reaches_the_owner_from_the_right_sender(place: Place) -> None:
    before = len(read_mail(place.lab))
    place.host.ssh("printf 'Subject: disk full\\n\\nhelp\\n' | /usr/sbin/sendmail root")
    message = until(lambda: read_mail(place.lab)[before:], 20)[0]
    assert "social@agency.test" in message["From"]
    assert "help" in text_of(message)
    assert "owner@agency.test" in str(message["X-Original-To"] or message["Delivered-To"] or message.as_string())


def test_a_failed_backup_tells_the_owner(place: Place) -> None:
    before = len(read_mail(place.lab))
    with stopped(place.host, "postgresql@17-main.service"):
        place.host.ssh("systemctl start mfg-backup.service", check=False)
        message = until(lambda: read_mail(place.lab)[before:], 20)[0]
    assert message["Subject"] == "[social.agency.test] mfg-backup.service has failed"


def test_nothing_listens_for_mail_and_the_password_is_root_s_own(place: Place) -> None:
    assert ":25 " not in place.host.ssh("ss -ltnH").stdout
    assert place.host.ssh("stat -c '%U %G %a' /etc/msmtprc").stdout.split() == ["root", "root", "600"]
    assert place.host.ssh("runuser -u postgres -- cat /etc/msmtprc", check=False).returncode != 0


def test_mail_to_a_relay_that_nobody_vouches_for_is_not_sent(place: Place) -> None:
    before = len(read_mail(place.lab))
    trust = "/etc/ssl/certs/ca-certificates.crt"
    other = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=other -keyout /dev/null"
    place.host.ssh(f"cp -p {trust} {trust}.kept && {other} -out {trust}")
    try:
        sent = place.host.ssh("printf 'Subject: no\\n\\nno\\n' | /usr/sbin/sendmail root", check=False)
    finally:
        place.host.ssh(f"mv {trust}.kept {trust}")
    assert sent.returncode != 0
    assert "certificate" in sent.stderr
    assert len(read_mail(place.lab)) == before
