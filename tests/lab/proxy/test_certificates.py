"""Every way a certificate reaches nginx, and from each to the next; what is shown is asked from outside."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from mastodon_gov.lab.world.authority import Authority, authority, leaf
from tests.lab.deployed import wait_for
from tests.lab.proxy.place import CA, MEDIA, OTHER_MEDIA, WEB, Place

NAMES = {WEB, MEDIA}
LIVE = f"/etc/letsencrypt/live/{WEB}"
TLS = "/etc/mastodon-gov/tls"
FILES = {"files": {"chain": "tls/chain.pem", "key": "tls/key.age"}}
INTERNAL = {"internal_ca": {"directory": "tls"}}
RENEW = "REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt certbot renew --no-random-sleep-on-renew"


def acme(directory: str) -> dict[str, Any]:
    return {"acme": {"directory": directory, "contact": "it@agency.test"}}


@pytest.fixture(autouse=True)
def back_to_acme(place: Place) -> Iterator[None]:
    """Whatever a test did, the next one finds the certificate by ACME; deploying is the way back."""
    yield
    place.settled()


@pytest.fixture(scope="module")
def ca(place: Place) -> Authority:
    """A ministry's own authority; the stranger trusts it too."""
    own = authority(place.told.parent, "The ministry's own CA")
    place.outside.ssh(f"cat >> {CA}", stdin=own.pem)
    return own


def shown(place: Place) -> x509.Certificate:
    """The certificate that a stranger gets."""
    ask = f"openssl s_client -connect {WEB}:443 -servername {WEB} </dev/null 2>/dev/null | openssl x509"
    return x509.load_pem_x509_certificate(place.outside.ssh(ask).stdout.encode())


def names(certificate: x509.Certificate) -> set[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(found.get_values_for_type(x509.DNSName))


def issuer(certificate: x509.Certificate) -> str:
    return str(certificate.issuer.rfc4514_string())


def trusted(place: Place) -> bool:
    """Whether both names verify against what the stranger trusts."""
    return all(place.get(f"https://{name}/x.txt").status for name in (WEB, MEDIA))


def exists(place: Place, path: str) -> bool:
    return place.host.ssh(f"ls -d {path}", check=False).returncode == 0


def failed(place: Place, **changes: Any) -> str:
    """The log of a deploy that must fail."""
    report, log = place.deploy(**changes)
    # pyinfra reports nothing when its last host has failed.
    assert report is None or report["results"]["failed_hosts"], log
    return log


def test_a_second_deploy_changes_nothing_and_a_plan_writes_nothing(place: Place) -> None:
    assert place.settled() == []
    list_all = "find /etc /usr/local /var/lib/acme-challenge -xdev -printf '%p %T@ %m %u\\n' | sort | sha256sum"
    before = place.host.ssh(list_all).stdout
    place.deploy("--dry", **{"certificates": FILES, "certificate": {"chain": "x", "key": "y"}, "trusted_ca": ()})
    assert place.host.ssh(list_all).stdout == before


def test_the_certificate_by_acme(place: Place) -> None:
    certificate = shown(place)
    assert names(certificate) == NAMES
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.key_size == 384
    assert "Pebble" in issuer(certificate)
    assert trusted(place)
    assert place.host.ssh(f"stat -Lc %a:%U {TLS}/current/privkey.pem").stdout.strip() == "600:root"
    assert place.host.ssh("stat -c %a /var/log/letsencrypt/letsencrypt.log").stdout.strip() == "640"


def test_a_renewal_reaches_nginx_by_itself(place: Place) -> None:
    before = shown(place).serial_number
    place.host.ssh(f"{RENEW} -q --force-renewal")
    # A reload returns before the old workers have stopped answering.
    wait_for(lambda: shown(place).serial_number != before or None, 20, "nginx shows the renewed certificate")
    assert trusted(place)
    assert place.settled() == []


def test_the_timer_runs_and_its_renewal_can_be_tried(place: Place) -> None:
    assert place.host.ssh("systemctl is-active certbot.timer").stdout.strip() == "active"
    place.host.ssh("systemctl start certbot.service")
    tried = place.host.ssh(f"{RENEW} --dry-run --server {place.world.acme_directory}").stdout
    assert "all simulated renewals succeeded" in tried


def test_other_names_and_another_server_are_another_certificate(place: Place) -> None:
    other = place.world.acme_directory.replace("acme.", "ns.")
    domain = {"handle": "agency.test", "web": WEB, "media": OTHER_MEDIA}
    addresses = {name: [place.world.address4] for name in ("s3.world.test", "mail.world.test", "ns.world.test")}
    assert place.settled(domain=domain, certificates=acme(other), addresses=addresses)
    assert names(shown(place)) == {WEB, OTHER_MEDIA}
    assert place.host.ssh(f"grep ^server /etc/letsencrypt/renewal/{WEB}.conf").stdout.strip() == f"server = {other}"
    assert place.get(f"https://{MEDIA}/x.txt", verify=False).status == 0
    assert place.settled()
    assert names(shown(place)) == NAMES


def test_a_server_that_is_away_is_a_sentence_and_changes_nothing(place: Place) -> None:
    before = shown(place).serial_number
    log = failed(place, certificates=acme("https://acme.world.test:14001/dir"))
    assert "https://acme.world.test:14001/dir gave no certificate" in log
    assert "nginx goes on with the certificate it had" in log
    assert shown(place).serial_number == before


def test_without_any_certificate_nginx_starts_and_answers_the_acme_server(place: Place) -> None:
    place.host.ssh(f"systemctl stop nginx; rm -rf /etc/letsencrypt {TLS}")
    failed(place, certificates=acme("https://acme.world.test:14001/dir"))
    assert names(shown(place)) == {"placeholder.invalid"}
    assert place.get(f"http://{WEB}/.well-known/acme-challenge/none").status == 404
    place.settled()
    assert names(shown(place)) == NAMES
    assert trusted(place)


def test_given_files_take_the_place_of_acme(place: Place, ca: Authority) -> None:
    chain, key = leaf(ca, [WEB, MEDIA])
    report, log = place.deploy("-y", "-vvv", certificates=FILES, certificate={"chain": chain, "key": key})
    assert report["results"]["failed_hosts"] == [], log
    assert shown(place) == x509.load_pem_x509_certificate(chain.encode())
    assert trusted(place)
    assert not exists(place, LIVE)
    assert not exists(place, "/etc/letsencrypt/renewal-hooks/deploy/60-mfg-nginx")
    timer = place.host.ssh("systemctl is-enabled certbot.timer; systemctl is-active certbot.timer", check=False)
    assert timer.stdout.split() == ["disabled", "inactive"]
    assert key.splitlines()[1] not in log
    assert place.host.ssh(f"stat -Lc %a {TLS}/current/privkey.pem").stdout.strip() == "600"
    assert place.settled(certificates=FILES, certificate={"chain": chain, "key": key}) == []
    chain, key = leaf(ca, [WEB, MEDIA], days=30)
    assert place.settled(certificates=FILES, certificate={"chain": chain, "key": key})
    assert shown(place) == x509.load_pem_x509_certificate(chain.encode())
    assert place.host.ssh(f"ls -d {TLS}/given-*").stdout.count("\n") == 1


def signed(ca: Authority, request: Path, names: list[str]) -> str:
    """What the ministry's CA makes of a request."""
    asked = x509.load_pem_x509_csr(request.read_bytes())
    assert asked.is_signature_valid
    carried = asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert carried.get_values_for_type(x509.DNSName) == names
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(asked.subject).issuer_name(ca.certificate.subject)
    builder = builder.public_key(asked.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=2)).not_valid_after(now + timedelta(days=90))
    ours = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    builder = builder.add_extension(carried, False).add_extension(ours, False)
    pem = builder.sign(ca.key, hashes.SHA256()).public_bytes(Encoding.PEM)
    return pem.decode()


def test_an_internal_ca_signs_a_key_that_never_leaves_the_host(place: Place, ca: Authority, tmp_path: Path) -> None:
    request = tmp_path / "tls/social.csr"
    waiting = {"certificates": INTERNAL, "certificate": {"request": str(request)}}
    report, log = place.deploy(**waiting)
    assert report["results"]["failed_hosts"] == []
    assert f"Have {request} signed for {WEB}, {MEDIA}, save it with its chain as {request.with_suffix('.pem')}" in log
    assert names(shown(place)) == NAMES
    assert trusted(place)
    key = place.host.ssh(f"cat {TLS}/request/privkey.pem").stdout
    assert key.splitlines()[1] not in log
    chain = signed(ca, request, [WEB, MEDIA])
    have = {"certificates": INTERNAL, "certificate": {"request": str(request), "chain": chain}}
    assert place.settled(**have)
    assert issuer(shown(place)) == ca.certificate.subject.rfc4514_string()
    assert trusted(place)
    assert place.settled(**have) == []
    other = leaf(ca, [WEB, MEDIA])[0]
    _, log = place.deploy(**{**have, "certificate": {"request": str(request), "chain": other}})
    assert "it does not fit the request" in log
    assert shown(place) == x509.load_pem_x509_certificate(chain.encode())


def test_a_lost_request_is_fetched_again_and_other_names_keep_the_key(place: Place, tmp_path: Path) -> None:
    request = tmp_path / "tls/social.csr"
    have: dict[str, Any] = {"certificates": INTERNAL, "certificate": {"request": str(request)}}
    place.settled(**have)
    before = x509.load_pem_x509_csr(request.read_bytes())
    request.unlink()
    domain = {"handle": "agency.test", "web": WEB, "media": OTHER_MEDIA}
    place.settled(**have, domain=domain)
    after = x509.load_pem_x509_csr(request.read_bytes())
    assert after.public_key() == before.public_key()
    assert after != before


def test_an_authority_that_is_not_trusted_any_more_is_gone(place: Place, ca: Authority) -> None:
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    texts = (place.world.bundle.read_text(), ca.pem)
    body = "".join(ca.pem.splitlines()[1:3])
    have = f"tr -d '\\n' < {bundle} | grep -c {body}"
    place.settled(trusted_ca=texts)
    assert place.host.ssh(have).stdout.strip() == "1"
    # As if a run had been killed between the file and the bundle.
    place.host.ssh(f"sed -i '1,/BEGIN/d' {bundle}; touch -d '1 hour ago' {bundle}")
    assert "Certificates | Trust authorities" in place.settled(trusted_ca=texts)
    assert place.host.ssh(have).stdout.strip() == "1"
    assert "Certificates | Trust authorities" in place.settled()
    assert place.host.ssh(have, check=False).stdout.strip() == "0"


def test_media_from_a_storage_we_do_not_trust_are_not_shown(place: Place) -> None:
    # New at each run: what was read once is in nginx's cache.
    before, after = (f"{name}-{uuid4().hex}.txt" for name in ("before", "after"))
    with place.storage() as client:
        client.create_bucket(Bucket="media")
        for key in (before, after):
            client.put_object(Bucket="media", Key=key, Body=b"x", ACL="public-read")
    assert place.get(f"https://{MEDIA}/{before}").status == 200
    place.settled(trusted_ca=())
    assert place.get(f"https://{MEDIA}/{after}").status == 502
    place.settled()
    assert place.get(f"https://{MEDIA}/{after}").status == 200
