"""Which pair nginx shall use, what is asked of the ACME server, and what a wrong file in the directory is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mastodon_gov.certificate_files import certificate_files
from mastodon_gov.errors import Refusal
from mastodon_gov.instance import Node
from mastodon_gov.instance.node import CertificateFiles
from mastodon_gov.lab.world.authority import Authority, authority, leaf
from mastodon_gov.secrets.age import encrypt, new_identity
from roles.certificates.authorities import LOCAL, Store, TrustStore, authorities, trusted_authorities
from roles.certificates.pairs import PLACEHOLDER, Pair, Pairs, Seen, given, in_force
from roles.certificates.role import certbot, environment, files, issued, renewal_units, usable_pair
from roles.lib.files import Absent, ManagedFile
from roles.lib.units import Unit
from tests.unit.locally import commands
from tests.unit.storage_sample import instance, node

WEB, MEDIA = "social.agency.test", "files.social.agency.test"
NAMES = frozenset({WEB, MEDIA})
SERVER = "https://acme.world.test/dir"
LIVE = f"/etc/letsencrypt/live/{WEB}"
GOOD = Pair(NAMES, fits=True, expired=False, server=SERVER)
GIVEN = {"files": {"chain": "tls/chain.pem", "key": "tls/key.age"}}
INTERNAL = {"internal_ca": {"directory": "tls"}}


def proxy(certificate: CertificateFiles | None = None, **changes: Any) -> Node:
    update = {"groups": frozenset({"proxy"}), "certificate": certificate or CertificateFiles()}
    return node(**changes).model_copy(update=update)


def given_node(chain: str = "a chain") -> Node:
    certificate = CertificateFiles.model_validate({"chain": chain, "key": "a key"})
    return proxy(certificate, certificates=GIVEN)


def run(work: Any, seen: Seen) -> list[str]:
    return [command.get_raw_value() for command in commands(work, {Pairs: seen})]


# What the host prints: two pairs, of which one has another certificate's key, and a request.
PRINTED = f"""\
=pair /etc/mastodon-gov/tls/given-12345678
X509v3 Subject Alternative Name:
    DNS:old.agency.test
=lives
=pair {LIVE}
X509v3 Subject Alternative Name: critical
    DNS:{WEB}, DNS:{MEDIA}
=fits
=lives
=server {SERVER}
=current {LIVE}
=request
-----BEGIN CERTIFICATE REQUEST-----
abc
-----END CERTIFICATE REQUEST-----
                DNS:{WEB}, DNS:{MEDIA}"""


def test_what_the_host_prints_is_understood() -> None:
    seen = Pairs().process(PRINTED.splitlines())
    assert seen.pairs == {
        "/etc/mastodon-gov/tls/given-12345678": Pair(frozenset({"old.agency.test"}), False, False, ""),
        LIVE: GOOD,
    }
    assert (seen.current, seen.request_names) == (LIVE, NAMES)
    assert seen.given == {"/etc/mastodon-gov/tls/given-12345678"}
    assert seen.request.splitlines()[1] == "abc"


def test_a_bare_host_has_nothing() -> None:
    seen = Pairs().process(["=current ", "=request"])
    assert seen == Seen()
    assert in_force(proxy(), seen) == PLACEHOLDER


@pytest.mark.parametrize(
    ("pair", "used"),
    [
        (GOOD, LIVE),
        (Pair(NAMES, fits=False, expired=False, server=SERVER), "/old"),
        (Pair(NAMES, fits=True, expired=True, server=SERVER), "/old"),
        (Pair(NAMES, fits=True, expired=False, server="https://other.test/dir"), "/old"),
        (Pair(NAMES | {"third.agency.test"}, fits=True, expired=False, server=SERVER), "/old"),
        (Pair(frozenset({WEB}), fits=True, expired=False, server=SERVER), "/old"),
    ],
)
def test_a_pair_is_used_only_when_everything_about_it_is_right(pair: Pair, used: str) -> None:
    old = Pair(frozenset(), fits=True, expired=True)
    assert in_force(proxy(), Seen({LIVE: pair, "/old": old}, current="/old")) == used


def test_a_pair_in_use_that_is_broken_gives_way_to_the_placeholder() -> None:
    assert in_force(proxy(), Seen({"/old": Pair(NAMES, fits=False)}, current="/old")) == PLACEHOLDER


def test_a_settled_host_is_left_alone() -> None:
    seen = Seen({LIVE: GOOD}, current=LIVE)
    assert run(lambda: usable_pair(node=proxy()), seen) == []
    assert run(lambda: issued(node=proxy()), seen) == []


def test_a_bare_host_gets_a_placeholder_then_a_certificate_then_the_link() -> None:
    made, linked = run(lambda: usable_pair(node=proxy()), Seen())
    assert "openssl req -x509" in made
    assert "placeholder" in linked
    asked, linked = run(lambda: issued(node=proxy()), Seen())
    assert "certbot certonly" in asked
    assert LIVE in linked


def test_certbot_is_asked_for_all_names_of_the_chosen_server() -> None:
    command = certbot(proxy()).get_raw_value()
    for part in (
        f"--server {SERVER}",
        f"-d {WEB} -d {MEDIA}",
        "--key-type ecdsa --elliptic-curve secp384r1",
        "--webroot -w /var/lib/acme-challenge",
        "-m it@agency.test",
    ):
        assert part in command


@pytest.mark.parametrize(("listed", "proxied"), [(False, True), (True, False)])
def test_the_web_proxy_is_for_servers_outside(listed: bool, proxied: bool) -> None:
    network = {"resolvers": ["192.0.2.1"], "time_servers": ["t.agency.test"], "http_proxy": "http://proxy.test:3128"}
    addresses = {"acme.world.test": ["192.0.2.2"]} if listed else {}
    found = environment(proxy(network=network, addresses=addresses))
    assert ("HTTPS_PROXY" in found) == proxied


def test_another_issuer_takes_the_place_of_acme_and_leaves_nothing_of_it() -> None:
    at, old = given_node(), "/etc/mastodon-gov/tls/given-00000000"
    seen = Seen({LIVE: GOOD, given(at): GOOD, old: GOOD}, current=LIVE, given=frozenset({given(at), old}))
    assert [given(at) in command for command in run(lambda: usable_pair(node=at), seen)] == [True]
    assert run(lambda: issued(node=at), seen) == [f"rm -rf -- {old}", f"certbot delete -n --cert-name {WEB}"]
    gone = {entry.path for entry in files(at) if isinstance(entry, Absent)}
    assert "/etc/letsencrypt/renewal-hooks/deploy/60-mfg-nginx" in gone
    assert renewal_units(at) == [Unit("certbot.timer", gone=True), Unit("certbot.service", gone=True)]
    assert renewal_units(proxy()) == [Unit("certbot.timer")]


def test_acme_stays_until_the_other_issuer_s_pair_is_there() -> None:
    at = proxy(certificates=INTERNAL)
    assert run(lambda: issued(node=at), Seen({LIVE: GOOD}, current=LIVE)) == []


def test_a_given_key_is_born_narrow_and_beside_its_own_chain() -> None:
    written = {entry.path: entry for entry in files(given_node()) if isinstance(entry, ManagedFile)}
    key = written[f"{given(given_node())}/privkey.pem"]
    assert (key.content, key.mode) == ("a key", 0o600)
    assert given(given_node("another chain")) != given(given_node())


PEM = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"


def test_each_authority_is_one_file() -> None:
    texts = ["# ours\n" + PEM.format("one") + PEM.format("two"), PEM.format("one")]
    assert [(file.path, file.content) for file in authorities(texts)] == [
        (f"{LOCAL}/mfg-1.crt", PEM.format("one")),
        (f"{LOCAL}/mfg-2.crt", PEM.format("two")),
    ]


def trust(texts: list[str], store: Store) -> list[str]:
    return [c.get_raw_value() for c in commands(lambda: trusted_authorities(texts=texts), {TrustStore: store})]


def test_authorities_settle_retire_and_heal() -> None:
    one = authorities([PEM.format("one")])[0]
    settled = {one.path: one.state[-1]}
    assert trust([one.content], Store(settled)) == []
    assert trust([], Store()) == []
    assert ["update-ca" in command for command in trust([one.content], Store())] == [False, True]
    assert ["update-ca" in command for command in trust([], Store(settled))] == [False, True]
    assert ["update-ca" in command for command in trust([one.content], Store(settled, stale=True))] == [True]


# --- files of the instance directory --------------------------------------------------------------------------


@pytest.fixture
def ca(tmp_path: Path) -> Authority:
    return authority(tmp_path, "A ministry's CA")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "instance"
    (made / "tls").mkdir(parents=True)
    (made / "recipients.txt").write_text(f"# me\n{new_identity(made / 'identity.txt')}\n")
    return made


def put(directory: Path, chain: str, key: str) -> None:
    (directory / "tls/chain.pem").write_text(chain)
    (directory / "tls/key.age").write_bytes(encrypt(directory, key))


def read(directory: Path, certificates: dict[str, Any]) -> CertificateFiles:
    at = instance(certificates=certificates)
    return certificate_files(directory, at, "social", directory / "identity.txt")


def test_a_good_pair_is_read(directory: Path, ca: Authority) -> None:
    chain, key = leaf(ca, [WEB, MEDIA])
    put(directory, chain + ca.pem, key)
    found = read(directory, GIVEN)
    assert (found.chain, found.key.get_secret_value()) == (chain + ca.pem, key)
    assert key.splitlines()[1] not in repr(found)


def test_wrong_pairs_are_told_what_is_wrong(directory: Path, ca: Authority) -> None:
    chain, key = leaf(ca, [WEB, MEDIA])
    other_key = leaf(ca, [WEB, MEDIA])[1]
    expired, expired_key = leaf(ca, [WEB, MEDIA], days=0)
    short, short_key = leaf(ca, [WEB])
    for given_chain, given_key, said in (
        (chain, other_key, "key.age is not the key of"),
        (chain, "nonsense", "key.age holds no private key"),
        (chain, "", "key.age holds no private key"),
        ("nonsense", key, "chain.pem holds no certificate"),
        (chain + key, key, "chain.pem holds a private key"),
        (expired, expired_key, r"ran out on \d{4}-\d\d-\d\d"),
        (short, short_key, f"found a certificate for {WEB}.*{MEDIA} is missing"),
        (ca.pem + chain, key, "found a certificate for no name.*Put the server's certificate first"),
    ):
        put(directory, given_chain, given_key)
        with pytest.raises(Refusal, match=said) as refusal:
            read(directory, GIVEN)
        assert key.splitlines()[1] not in str(refusal.value)


@pytest.mark.parametrize("missing", ["tls/chain.pem", "tls/key.age"])
def test_a_missing_file_is_named(directory: Path, ca: Authority, missing: str) -> None:
    put(directory, *leaf(ca, [WEB, MEDIA]))
    (directory / missing).unlink()
    with pytest.raises(Refusal, match=f"{missing} does not exist.*certificates.files"):
        read(directory, GIVEN)


def test_an_internal_ca_has_time(directory: Path, ca: Authority) -> None:
    waiting = read(directory, INTERNAL)
    assert (waiting.chain, waiting.request) == ("", str(directory / "tls/social.csr"))
    (directory / "tls/social.pem").write_text(leaf(ca, [WEB, MEDIA])[0])
    assert read(directory, INTERNAL).chain
    (directory / "tls/social.pem").write_text(leaf(ca, [WEB])[0])
    with pytest.raises(Refusal, match=r"social\.pem: found a certificate for"):
        read(directory, INTERNAL)


def test_acme_needs_no_file(directory: Path) -> None:
    acme = {"acme": {"directory": SERVER, "contact": "it@agency.test"}}
    assert read(directory, acme) == CertificateFiles()
