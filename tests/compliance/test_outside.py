"""What a stranger sees: open ports, TLS, headers, and the doors that must be closed. Asked from `--from`."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from mastodon_gov.audit.facts import CouldNotLook, Facts, Foreseen
from mastodon_gov.audit.outside import HERE
from mastodon_gov.audit.stranger import NO_WAY, PROBE
from mastodon_gov.instance import Instance
from tests.compliance.conftest import Evidence

NOTHING = "/there-is-no-such-page-for-the-audit"
WEB = ["https://web/", "https://web/auth/sign_in", f"https://web{NOTHING}", "https://web/auth/sign_up"]
EVERY = [*WEB, f"https://media{NOTHING}", "https://web/api/v2/instance", "https://web/.well-known/security.txt"]
INSIDE = ["/metrics", "/sidekiq", "/pghero", "/.env", "/.git/config"]
TWO_YEARS = 63072000  # seconds
DAYS_LEFT = 21
CURVES = ("secp256r1", "secp384r1")


def header(facts: Facts, page: str, name: str) -> str:
    """All values of a header of this page in one line; a page that was not answered has none."""
    return ", ".join(facts["pages"][page]["headers"].get(name, []))


@pytest.mark.control("MFG-FW-02")
@pytest.mark.parametrize("version", [4, 6])
def test_only_the_web_answers(version: int, facts: Facts, evidence: Evidence) -> None:
    """From the control node, which is in an admin network, SSH answers too."""
    allowed = [22, 80, 443] if facts["from"] == HERE else [80, 443]
    known = {address for found in facts["addresses"].values() for address in found}
    expected = {address: allowed for address in known if ip_address(address).version == version}
    if not expected:
        raise Foreseen(f"The public names have no IPv{version} address.")
    observed = {address: facts["ports"][address] for address in expected}
    if NO_WAY in observed.values():
        raise Foreseen(f"This machine has no IPv{version}; ask --from one that has.")
    evidence(observed=observed, expected=expected, command=f"TCP connections to every IPv{version} address")
    assert observed == expected


@pytest.mark.control("MFG-WEB-01")
@pytest.mark.parametrize("version", ["1.0", "1.1", "without forward secrecy", "without AEAD"])
def test_weak_tls_is_refused(version: str, facts: Facts, evidence: Evidence) -> None:
    observed = facts["tls"][version]
    evidence(observed=observed, expected="refused", command=f"TLS handshake: {version}")
    assert observed == "refused"


@pytest.mark.control("MFG-WEB-01")
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_modern_tls_is_accepted(version: str, facts: Facts, evidence: Evidence) -> None:
    observed = facts["tls"][version]
    evidence(observed=observed, expected="accepted", command=f"TLS handshake: {version}")
    assert observed.startswith("accepted")


@pytest.mark.control("MFG-WEB-03")
@pytest.mark.parametrize("page", EVERY)
def test_browsers_always_use_https(page: str, facts: Facts, evidence: Evidence) -> None:
    observed = header(facts, page, "strict-transport-security")
    evidence(observed=observed, expected=f"max-age={TWO_YEARS} or more, once", command=f"GET {page}")
    assert observed.count("max-age=") == 1
    assert int(observed.partition("max-age=")[2].split(";")[0]) >= TWO_YEARS


@pytest.mark.control("MFG-WEB-04")
@pytest.mark.parametrize("page", EVERY)
def test_no_guessing_of_types(page: str, facts: Facts, evidence: Evidence) -> None:
    observed = header(facts, page, "x-content-type-options")
    evidence(observed=observed, expected="nosniff", command=f"GET {page}")
    assert observed == "nosniff"


@pytest.mark.control("MFG-WEB-04")
@pytest.mark.parametrize("page", WEB)
@pytest.mark.parametrize("name", ["referrer-policy", "permissions-policy"])
def test_policies_are_sent(name: str, page: str, facts: Facts, evidence: Evidence) -> None:
    observed = header(facts, page, name)
    evidence(observed=observed, expected="a policy", command=f"GET {page}: {name}")
    assert observed


@pytest.mark.control("MFG-WEB-04")
@pytest.mark.parametrize("page", WEB)
def test_no_frames(page: str, facts: Facts, evidence: Evidence) -> None:
    frame, policy = (header(facts, page, name) for name in ("x-frame-options", "content-security-policy"))
    evidence(observed=[frame, policy], expected="DENY, or frame-ancestors 'none'", command=f"GET {page}")
    assert frame == "DENY" or "frame-ancestors 'none'" in policy


@pytest.mark.control("MFG-WEB-04")
@pytest.mark.parametrize("page", WEB)
def test_no_inline_scripts(page: str, facts: Facts, evidence: Evidence) -> None:
    policy = header(facts, page, "content-security-policy")
    rules = {words[0]: words[1:] for rule in policy.split(";") if (words := rule.split())}
    scripts = rules.get("script-src", rules.get("default-src", ["'unsafe-inline'"]))
    evidence(observed=scripts, expected="a policy without 'unsafe-inline'", command=f"GET {page}")
    assert policy
    assert "'unsafe-inline'" not in scripts


@pytest.mark.control("MFG-WEB-05")
@pytest.mark.parametrize("name", ["web", "media"])
def test_http_leads_to_https(name: str, facts: Facts, evidence: Evidence, instance: Instance) -> None:
    answer = facts["pages"][f"http://{name}/"]
    observed = [answer["status"], ", ".join(answer["headers"].get("location", []))]
    expected = [301, f"https://{getattr(instance.domain, name)}/"]
    evidence(observed=observed, expected=expected, command=f"GET http://{name}/")
    assert observed == expected


@pytest.mark.control("MFG-WEB-05")
@pytest.mark.parametrize("page", ["http://unknown/", "https://web/ as unknown"])
def test_unknown_hosts_get_no_page(page: str, facts: Facts, evidence: Evidence) -> None:
    """nginx closes the connection (0), or says that the request was misdirected (421)."""
    observed = facts["pages"][page]["status"]
    evidence(observed=observed, expected="no answer, or 421", command=f"GET {page}")
    assert observed in (0, 421)


@pytest.mark.control("MFG-WEB-05")
def test_unknown_names_get_no_handshake(facts: Facts, evidence: Evidence) -> None:
    observed = facts["tls"]["unknown name"]
    evidence(observed=observed, expected="refused", command="TLS handshake with a name that nobody gave us")
    assert observed == "refused"


@pytest.mark.control("MFG-WEB-06")
@pytest.mark.parametrize("path", INSIDE)
def test_nothing_internal_is_public(path: str, facts: Facts, evidence: Evidence) -> None:
    """From an admin network the sign-in page may answer; elsewhere nothing does."""
    observed = facts["pages"][f"https://web{path}"]["status"]
    allowed = [302, 404] if facts["from"] == HERE else [404]
    evidence(observed=observed, expected=allowed, command=f"GET https://web{path}")
    assert observed in allowed


@pytest.mark.control("MFG-WEB-06")
@pytest.mark.parametrize("page", EVERY)
def test_no_versions(page: str, facts: Facts, evidence: Evidence) -> None:
    observed = [header(facts, page, name) for name in ("server", "x-powered-by", "x-runtime")]
    evidence(observed=observed, expected=["nginx", "", ""], command=f"GET {page}")
    assert observed == ["nginx", "", ""]


@pytest.mark.probe
@pytest.mark.control("MFG-WEB-07")
def test_guessing_is_slowed(facts: Facts, evidence: Evidence) -> None:
    observed = facts["sign_ins"]
    evidence(observed=observed, expected="429 among them", command="30 × POST https://web/auth/sign_in")
    assert 429 in observed


@pytest.mark.control("MFG-WEB-09")
def test_finders_know_whom_to_write_to(facts: Facts, evidence: Evidence) -> None:
    page = "https://web/.well-known/security.txt"
    lines = facts["pages"][page]["body"].splitlines()
    fields = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    evidence(observed=fields, expected="a contact, and a day ahead", command=f"GET {page}")
    assert {"contact", "expires"} <= fields.keys()
    assert fields["contact"].startswith(("mailto:", "https://"))
    assert _day(fields["expires"]) > datetime.now(UTC)


def _day(text: str) -> datetime:
    """RFC 9116 wants ISO 8601; older files have the form of mail."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return parsedate_to_datetime(text)


@pytest.mark.control("MFG-CRT-01")
@pytest.mark.parametrize("name", ["web", "media"])
def test_certificate_verifies(name: str, facts: Facts, evidence: Evidence, instance: Instance) -> None:
    observed = facts["certificates"][getattr(instance.domain, name)]["verifies"]
    evidence(observed=observed, expected="yes", command=f"TLS handshake with {name}, verified")
    assert observed == "yes"


@pytest.mark.control("MFG-CRT-01")
@pytest.mark.parametrize("name", ["web", "media"])
def test_certificate_is_strong_and_lasts(name: str, facts: Facts, evidence: Evidence, instance: Instance) -> None:
    shown = facts["certificates"][getattr(instance.domain, name)]["der"]
    certificate = x509.load_der_x509_certificate(base64.b64decode(shown))
    key = certificate.public_key()
    kind = key.curve.name if isinstance(key, EllipticCurvePublicKey) else type(key).__name__
    bits = key.key_size if isinstance(key, RSAPublicKey | EllipticCurvePublicKey) else 0
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    expected = f"P-256, P-384 or RSA of 3072 bits, more than {DAYS_LEFT} days left"
    observed = {"key": kind, "bits": bits, "not after": certificate.not_valid_after_utc.isoformat()}
    evidence(observed=observed, expected=expected, command=f"the certificate of {name}")
    assert kind in CURVES or (isinstance(key, RSAPublicKey) and bits >= 3072)
    assert left > timedelta(days=DAYS_LEFT)


@pytest.mark.control("MFG-APP-12")
@pytest.mark.parametrize("path", ["/", "/about", "/api/v2/instance", "/@"])
def test_citizens_can_read(path: str, facts: Facts, evidence: Evidence, instance: Instance) -> None:
    page = f"https://web{path}{instance.owner.username if path == '/@' else ''}"
    observed = facts["pages"][page]["status"]
    evidence(observed=observed, expected=200, command=f"GET {page}, signed out")
    assert observed == 200


@pytest.mark.control("MFG-APP-01")
def test_the_sign_up_page_leads_away(facts: Facts, evidence: Evidence) -> None:
    observed = facts["pages"]["https://web/auth/sign_up"]["status"]
    evidence(observed=observed, expected=302, command="GET https://web/auth/sign_up")
    assert observed == 302


@pytest.mark.control("MFG-APP-01")
def test_the_public_interface_says_closed(facts: Facts, evidence: Evidence) -> None:
    about = json.loads(facts["pages"]["https://web/api/v2/instance"]["body"])["registrations"]["enabled"]
    node = json.loads(facts["pages"]["https://web/nodeinfo/2.0"]["body"])["openRegistrations"]
    evidence(observed=[about, node], expected=[False, False], command="GET /api/v2/instance, /nodeinfo/2.0")
    assert [about, node] == [False, False]


@pytest.mark.control("MFG-S3-01")
@pytest.mark.parametrize("page", ["https://media/", "https://media/?list-type=2"])
def test_pictures_cannot_be_listed(page: str, facts: Facts, evidence: Evidence) -> None:
    observed = facts["pages"][page]
    evidence(observed=[observed["status"], observed["body"][:200]], expected="403 or 404", command=f"GET {page}")
    assert observed["status"] in (403, 404)
    assert "<Contents>" not in observed["body"]


CLOSED = (401, 403, 404)


def by_the_service(facts: Facts, instance: Instance, words: str) -> Facts:
    """What the S3 service answered without a key. One with a private address need not answer strangers at all."""
    try:
        answer: Facts = facts["storage"][words]
    except CouldNotLook as why:
        if urlsplit(instance.object_storage.endpoint).hostname in instance.addresses:
            raise Foreseen(
                f"The S3 service has a private address ({why}); ask --from a machine that reaches it."
            ) from None
        raise
    return answer


@pytest.mark.control("MFG-S3-01")
@pytest.mark.parametrize("bucket", ["media", "backup"])
def test_buckets_cannot_be_listed(bucket: str, facts: Facts, evidence: Evidence, instance: Instance) -> None:
    """Past the proxy, which answers 404 whatever the bucket's policy says."""
    words = f"GET /{getattr(instance.object_storage, f'{bucket}_bucket')}?list-type=2"
    observed = by_the_service(facts, instance, words)
    shown = [observed["status"], observed["body"][:200]]
    evidence(observed=shown, expected="401, 403 or 404", command=f"{words}, of the S3 service, without a key")
    assert observed["status"] in CLOSED
    assert "<Contents>" not in observed["body"]


@pytest.mark.probe
@pytest.mark.control("MFG-S3-01")
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("place", ["media_bucket", "backup_bucket", "media name"])
def test_nothing_is_put_or_deleted(
    place: str, method: str, facts: Facts, evidence: Evidence, instance: Instance
) -> None:
    bucket = getattr(instance.object_storage, place, None)
    words = f"{method} /{bucket}/{PROBE}" if bucket else f"{method} https://media/{PROBE}"
    observed = by_the_service(facts, instance, words)["status"]
    evidence(observed=observed, expected="401, 403 or 404", command=f"{words}, without a key")
    assert observed in CLOSED
