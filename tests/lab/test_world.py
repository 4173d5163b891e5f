"""The outside world answers truthfully: asked from another machine of the lab, over verified TLS."""

from __future__ import annotations

import json
import smtplib
import socket
import ssl
import textwrap
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from email.message import EmailMessage
from typing import Any

import boto3
import pytest
from botocore.client import Config
from botocore.exceptions import ClientError
from click.testing import CliRunner

from mastodon_gov.instance.secret_model import AccessKey
from mastodon_gov.lab.lab import Lab
from mastodon_gov.lab.machine import Machine
from mastodon_gov.lab.state import MachineSpec
from mastodon_gov.lab.world import WORLD_PACKAGES, WorldFacts, build_world, load_world, services
from mastodon_gov.lab.world.build import apply, prepare
from mastodon_gov.lab.world.mail import read_mail, set_mode
from mastodon_gov.lab.world_cli import mail as mail_verb
from tests.lab.labs import MakeLab

CLIENT_PACKAGES = ("bind9-dnsutils", "curl", "lego", "openssl")
BUNDLE = "/root/lab-ca.pem"
LIFE = timedelta(days=7)


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    """The world, and a machine that asks it."""
    world = MachineSpec("world", layer_packages=WORLD_PACKAGES)
    outside = MachineSpec("outside", layer_packages=CLIENT_PACKAGES, dns=("world",))
    return make_lab("world", [world, outside])


@pytest.fixture(scope="module")
def world(lab: Lab) -> WorldFacts:
    """What a client needs to know."""
    facts = build_world(lab, acme_life=LIFE, say=print)
    give_bundle(lab, facts)
    return facts


@pytest.fixture(scope="module")
def outside(lab: Lab, world: WorldFacts) -> Machine:
    """The machine that asks; it trusts the lab's bundle only where it says so."""
    return lab.machine("outside")


@pytest.fixture
def names(world: WorldFacts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's own resolver does not know world.test; the certificate is still checked against the name."""
    real = socket.getaddrinfo

    def known(name: Any, *rest: Any, **options: Any) -> Any:
        return real(world.address4 if str(name).endswith(".world.test") else name, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", known)


def give_bundle(lab: Lab, facts: WorldFacts) -> None:
    lab.machine("outside").ssh(f"cat > {BUNDLE}", stdin=facts.bundle.read_text())


def wait_for(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """The first true answer; fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"nothing within {seconds} s"
        time.sleep(0.1)
    return answer


# --- S3 ---------------------------------------------------------------------------------------------------------


def s3(world: WorldFacts, uid: str, secret: str | None = None) -> Any:
    key = world.keys[uid]
    return boto3.client(
        "s3",
        endpoint_url=world.endpoint,
        region_name="us-east-1",
        verify=str(world.bundle),
        aws_access_key_id=key.access_key.get_secret_value(),
        aws_secret_access_key=secret or key.secret_key.get_secret_value(),
        config=Config(retries={"max_attempts": 1}),
    )


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    return str(caught.value.response["Error"]["Code"])


@pytest.fixture(scope="module")
def bucket() -> str:
    return f"probe-{uuid.uuid4().hex[:12]}"


@pytest.mark.usefixtures("names")
def test_owner_keeps_objects(world: WorldFacts, bucket: str) -> None:
    owner = s3(world, "owner")
    owner.create_bucket(Bucket=bucket)
    owner.put_object(Bucket=bucket, Key="größe/1", Body=b"kept")
    assert owner.get_object(Bucket=bucket, Key="größe/1")["Body"].read() == b"kept"


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("uid", ["media", "backups"])
def test_writers_own_no_bucket_and_see_no_other(world: WorldFacts, bucket: str, uid: str) -> None:
    test_owner_keeps_objects(world, bucket)
    writer = s3(world, uid)
    assert refused(lambda: writer.create_bucket(Bucket=f"mine-{uuid.uuid4().hex[:8]}")) == "AccessDenied"
    assert refused(lambda: writer.get_object(Bucket=bucket, Key="größe/1")) == "AccessDenied"
    assert refused(lambda: writer.put_object(Bucket=bucket, Key="x", Body=b"")) == "AccessDenied"


@pytest.mark.usefixtures("names")
def test_wrong_secret_is_refused(world: WorldFacts) -> None:
    assert refused(s3(world, "owner", "0" * 40).list_buckets) == "SignatureDoesNotMatch"


@pytest.mark.usefixtures("names")
def test_users_are_what_is_declared(lab: Lab, world: WorldFacts, bucket: str) -> None:
    """A right that somebody gave by hand is taken back, and a user that nobody declared cannot sign requests."""
    machine = lab.machine("world")
    machine.ssh(["radosgw-admin", "user", "modify", "--uid=media", "--max-buckets=5"])
    made = machine.ssh(["radosgw-admin", "user", "create", "--uid=undeclared", "--display-name=undeclared"]).stdout
    keys = {"undeclared": {name: json.loads(made)["keys"][0][name] for name in ("access_key", "secret_key")}}
    undeclared = s3(world.model_copy(update={"keys": {u: AccessKey(**k) for u, k in keys.items()}}), "undeclared")
    undeclared.list_buckets()
    assert apply(lab, prepare(lab, services.NAMES, LIFE)) == 1
    assert refused(undeclared.list_buckets) == "UserSuspended"
    assert refused(lambda: s3(world, "media").create_bucket(Bucket=f"mine-{bucket}")) == "AccessDenied"


@pytest.mark.usefixtures("names")
def test_small_requests_do_not_wait_for_a_delayed_acknowledgement(world: WorldFacts) -> None:
    """It would cost every request 40 ms, however idle the machine; so the fastest one tells."""
    owner = s3(world, "owner")

    def seconds() -> float:
        begin = time.monotonic()
        owner.list_buckets()
        return time.monotonic() - begin

    assert min(seconds() for _ in range(20)) < 0.035


def test_ceph_listens_on_loopback_only(lab: Lab, world: WorldFacts) -> None:
    listening = lab.machine("world").ssh("ss -ltnpH").stdout.splitlines()
    ceph = [line for line in listening if "ceph-" in line or "notif-worker" in line]
    assert len(ceph) > 5
    assert [line for line in ceph if "127.0.0.1:" not in line.split()[3]] == []


# --- DNS --------------------------------------------------------------------------------------------------------


def dig(outside: Machine, name: str, kind: str) -> list[str]:
    return outside.ssh(["dig", "+short", name, kind]).stdout.split()


def test_names_point_to_their_machines(lab: Lab, outside: Machine, world: WorldFacts) -> None:
    for name in ("s3.world.test", "acme.world.test", "agency.test", "a-bucket.s3.world.test"):
        assert dig(outside, name, "A") == [world.address4]
        assert dig(outside, name, "AAAA") == [world.address6]
    for name in ("social.agency.test", "files.social.agency.test"):
        assert dig(outside, name, "A") == [world.address4.rsplit(".", 1)[0] + ".11"]
    assert dig(outside, "outside.test", "A") == [lab.machine("outside").address4]


@pytest.mark.parametrize("domain", ["agency.test", "council.test", "outside.test"])
def test_domains_have_a_mail_exchanger_and_an_authority(outside: Machine, domain: str) -> None:
    assert dig(outside, domain, "MX") == ["10", "mail.world.test."]
    assert dig(outside, domain, "SOA")[0] == "ns.world.test."


def test_unknown_names_do_not_exist(outside: Machine) -> None:
    answer = outside.ssh(["dig", "nobody.agency.test", "A"]).stdout
    assert "status: NXDOMAIN" in answer
    assert "ANSWER: 0" in answer


# --- ACME -------------------------------------------------------------------------------------------------------


def issue(outside: Machine) -> None:
    """A certificate for outside.test, validated over port 80 of that machine."""
    options = f"--server {services.ACME_DIRECTORY} --path /root/lego --email it@agency.test --accept-tos"
    ask = f"rm -rf /root/lego; LEGO_CA_CERTIFICATES={BUNDLE} lego {options} --http --domains outside.test run"
    outside.ssh(ask, timeout=60)


def verify(outside: Machine, bundle: str) -> str:
    chain = "/root/lego/certificates/outside.test"
    strict = f"openssl verify -x509_strict -purpose sslserver -verify_hostname outside.test -CAfile {bundle}"
    return outside.ssh(f"{strict} -untrusted {chain}.issuer.crt {chain}.crt 2>&1", check=False).stdout


def test_certificate_is_issued_and_chains_to_the_bundle(outside: Machine) -> None:
    issue(outside)
    assert verify(outside, BUNDLE).endswith("outside.test.crt: OK\n")
    assert "unable to get local issuer" in verify(outside, "/etc/ssl/certs/ca-certificates.crt")
    dates = outside.ssh("openssl x509 -in /root/lego/certificates/outside.test.crt -noout -enddate").stdout
    left = ssl.cert_time_to_seconds(dates.strip().removeprefix("notAfter=")) - time.time()
    assert abs(left - LIFE.total_seconds()) < 300


def test_name_that_is_not_ours_gets_no_certificate(outside: Machine) -> None:
    ask = "--path /root/lego2 --email it@agency.test --accept-tos --http --domains council.test run"
    command = f"LEGO_CA_CERTIFICATES={BUNDLE} lego --server {services.ACME_DIRECTORY} {ask} 2>&1"
    done = outside.ssh(command, check=False, timeout=120)
    assert done.returncode != 0
    assert "council.test" in done.stdout


def test_bundle_survives_a_new_root(lab: Lab, outside: Machine) -> None:
    """Pebble forgets its root when it starts again; certificates of before and after are both trusted."""
    issue(outside)
    lab.machine("world").ssh(["systemctl", "restart", "mfg-pebble"])
    facts = build_world(lab, acme_life=LIFE)
    assert facts.bundle.read_text().count("BEGIN CERTIFICATE") == 3
    give_bundle(lab, facts)
    assert verify(outside, BUNDLE).endswith("OK\n")
    issue(outside)
    assert verify(outside, BUNDLE).endswith("OK\n")


# --- Mail -------------------------------------------------------------------------------------------------------


def submit(world: WorldFacts, to: str, *, login: bool = True, password: str | None = None) -> str:
    """Send a message as Mastodon would; returns its subject."""
    subject = f"probe {uuid.uuid4().hex}"
    with smtplib.SMTP("mail.world.test", 587, timeout=20) as relay:
        relay.starttls(context=ssl.create_default_context(cafile=str(world.bundle)))
        if login:
            relay.login(world.mail.login.get_secret_value(), password or world.mail.password.get_secret_value())
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = "social@agency.test", to, subject
        message.set_content("Grüße")
        relay.send_message(message)
    return subject


def arrived(lab: Lab, subject: str) -> Any:
    return wait_for(lambda: next((m for m in read_mail(lab) if m["Subject"] == subject), None))


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("to", ["anna@agency.test", "bob@elsewhere.test"])
def test_mail_of_a_known_sender_arrives(lab: Lab, world: WorldFacts, to: str) -> None:
    message = arrived(lab, submit(world, to))
    assert message["To"] == to
    assert "Grüße" in message.get_content()


@pytest.mark.usefixtures("names")
def test_relay_refuses_strangers(world: WorldFacts) -> None:
    with pytest.raises(smtplib.SMTPSenderRefused) as nobody:
        submit(world, "anna@agency.test", login=False)
    assert nobody.value.smtp_code == 530
    with pytest.raises(smtplib.SMTPAuthenticationError):
        submit(world, "anna@agency.test", password="wrong")
    with smtplib.SMTP("mail.world.test", 587, timeout=20) as relay:
        relay.ehlo()
        assert relay.docmd("MAIL FROM:<social@agency.test>")[0] == 530  # STARTTLS first


@pytest.mark.usefixtures("names")
def test_exchanger_takes_mail_for_its_domains_only(lab: Lab, world: WorldFacts) -> None:
    subject = f"delivery {uuid.uuid4().hex}"
    with smtplib.SMTP("mail.world.test", 25, timeout=20) as exchanger:
        exchanger.sendmail("x@outside.test", ["anna@council.test"], f"Subject: {subject}\r\n\r\nhello\r\n")
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            exchanger.sendmail("x@outside.test", ["bob@elsewhere.test"], "Subject: relay\r\n\r\nno\r\n")
    arrived(lab, subject)


@pytest.mark.usefixtures("names")
def test_relay_can_be_made_to_refuse(lab: Lab, world: WorldFacts) -> None:
    set_mode(lab, "refuse")
    try:
        with pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
            submit(world, "anna@agency.test")
        assert caught.value.recipients["anna@agency.test"][0] == 550
    finally:
        set_mode(lab, "accept")
    arrived(lab, submit(world, "anna@agency.test"))


@pytest.mark.usefixtures("names")
def test_verb_shows_mail(lab: Lab, world: WorldFacts) -> None:
    subject = submit(world, "anna@agency.test")
    arrived(lab, subject)
    where = ["--lab", lab.name, "--state-dir", str(lab.places.state_dir)]
    assert subject in CliRunner().invoke(mail_verb, where).output
    newest = CliRunner().invoke(mail_verb, ["--newest", *where]).output
    assert f"Subject: {subject}" in newest
    assert "Grüße" in newest


# --- The apex, and the whole ------------------------------------------------------------------------------------


def test_apex_sends_other_servers_on(outside: Machine) -> None:
    path = "/.well-known/webfinger?resource=acct:press@agency.test"
    answer = outside.ssh(f"curl -s --cacert {BUNDLE} -D - 'https://agency.test{path}'").stdout
    assert answer.startswith("HTTP/1.1 301")
    assert f"Location: https://social.agency.test{path}\n" in answer


def test_second_build_changes_nothing(lab: Lab, world: WorldFacts) -> None:
    before = load_world(lab)
    assert apply(lab, prepare(lab, services.NAMES, LIFE)) == 0
    build_world(lab, acme_life=LIFE)
    assert load_world(lab) == before


def test_secrets_are_only_where_they_belong(lab: Lab, world: WorldFacts) -> None:
    """Not in the journal, not in world-readable files, not in anybody's arguments."""
    machine = lab.machine("world")
    seen = [world.mail.password.get_secret_value(), *(k.secret_key.get_secret_value() for k in world.keys.values())]
    script = textwrap.dedent("""\
        cat > /root/seen; chmod 600 /root/seen
        journalctl --no-pager -o cat | grep -cFf /root/seen
        cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -cFf /root/seen
        find /etc /var/lib /var/log /tmp /usr/local -xdev -type f -perm /o=r -print0 | xargs -0 grep -lFf /root/seen
        rm /root/seen""")
    assert machine.ssh(script, stdin="\n".join(seen) + "\n", check=False).stdout.split() == ["0", "0"]
    for path in (lab.places.root / "world").glob("*.json"):
        assert path.stat().st_mode & 0o777 == 0o600


def test_world_survives_a_reboot(lab: Lab, world: WorldFacts, outside: Machine) -> None:
    machine = lab.machine("world")
    machine.stop()
    machine.start()
    answers = f"curl -sf --cacert {BUNDLE} https://s3.world.test/ {services.ACME_DIRECTORY} -o /dev/null -o /dev/null"
    wait_for(lambda: outside.ssh(answers, check=False).returncode == 0, 60)
    # A gateway that was killed would be listed still, and changes wait for it.
    assert machine.ssh("rados -p default.rgw.control listwatchers notify.0").stdout.count("watcher=") == 1
    failed = machine.ssh("systemctl is-system-running --wait", check=False).stdout.strip()
    assert failed == "running"
    assert apply(lab, prepare(lab, services.NAMES, LIFE)) == 0
