"""Certificates and configuration of the lab's outside world, without a machine."""

from __future__ import annotations

import json
import ssl
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from mastodon_gov.lab.world import authority as ca
from mastodon_gov.lab.world import services
from mastodon_gov.lab.world.services import World

NAMES, ADDRESSES = ["s3.world.test", "*.s3.world.test"], ["10.89.7.12", "fd89:7::12"]
WORLD = World(
    hosts={"world": ("10.89.7.12", "fd89:7::12"), "social": ("10.89.7.11", "fd89:7::11")},
    names={"world": ("agency.test",), "social": ("social.agency.test",), "nowhere": ("gone.agency.test",)},
    resolvers=["192.0.2.53"],
    certificate="",
    key="",
    authority="",
    credentials="",
    acme_seconds=600,
)


@pytest.fixture
def authority(tmp_path: Path) -> ca.Authority:
    return ca.authority(tmp_path, "CA of a test")


def verified(authority: ca.Authority, certificate: str, where: Path, name: str) -> bool:
    (where / "root.pem").write_text(authority.pem)
    (where / "leaf.pem").write_text(certificate)
    strict = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", str(where / "root.pem")]
    asked = ["-verify_ip", name] if ":" in name or name[0].isdigit() else ["-verify_hostname", name]
    return subprocess.run([*strict, *asked, str(where / "leaf.pem")], capture_output=True, check=False).returncode == 0


def test_authority_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    first = ca.authority(tmp_path, "CA")
    assert ca.authority(tmp_path, "CA").pem == first.pem
    assert (tmp_path / "ca.pem").stat().st_mode & 0o777 == 0o600


def test_leaf_satisfies_a_strict_verifier_for_its_names_only(authority: ca.Authority, tmp_path: Path) -> None:
    certificate, _ = ca.leaf(authority, NAMES, ADDRESSES)
    for name in ("s3.world.test", "bucket.s3.world.test", "10.89.7.12", "fd89:7::12"):
        assert verified(authority, certificate, tmp_path, name), name
    for name in ("mail.world.test", "10.89.7.13"):
        assert not verified(authority, certificate, tmp_path, name), name


def test_leaf_of_another_authority_is_refused(authority: ca.Authority, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    certificate, _ = ca.leaf(ca.authority(tmp_path / "other", "CA of a test"), NAMES, ADDRESSES)
    assert not verified(authority, certificate, tmp_path, NAMES[0])
    assert not ca.good(certificate, authority, NAMES, ADDRESSES)


def test_key_fits_its_certificate(authority: ca.Authority, tmp_path: Path) -> None:
    certificate, key = ca.leaf(authority, NAMES)
    (tmp_path / "both.pem").write_text(certificate + key)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "both.pem")


def test_leaf_is_made_anew_when_something_differs_or_time_runs_out(authority: ca.Authority) -> None:
    certificate, _ = ca.leaf(authority, NAMES, ADDRESSES)
    assert ca.good(certificate, authority, NAMES, ADDRESSES)
    assert not ca.good(certificate, authority, NAMES, ADDRESSES[:1])
    assert not ca.good(certificate, authority, NAMES[:1], ADDRESSES)
    short, _ = ca.leaf(authority, NAMES, ADDRESSES, days=ca.LEFT_DAYS)
    assert not ca.good(short, authority, NAMES, ADDRESSES)


def test_leaf_begins_in_the_past(authority: ca.Authority) -> None:
    certificate, _ = ca.leaf(authority, NAMES)
    made = x509.load_pem_x509_certificate(certificate.encode())
    assert (made.not_valid_after_utc - made.not_valid_before_utc).days == ca.LEAF_DAYS


def test_zones_hold_addresses_of_machines_that_have_some() -> None:
    lines = services.unbound(WORLD).splitlines()
    data = [line.split('"')[1].split() for line in lines if "local-data" in line]
    found = {(name, kind): value for name, _, _, kind, *rest in data for value in [" ".join(rest)]}
    assert found["social.agency.test.", "A"] == "10.89.7.11"
    assert found["social.agency.test.", "AAAA"] == "fd89:7::11"
    assert found["world.test.", "A"] == "10.89.7.12"
    assert found["outside.test.", "MX"] == "10 mail.world.test."
    assert ("gone.agency.test.", "A") not in found
    assert "    forward-addr: 192.0.2.53" in lines


def test_life_of_issued_certificates_is_a_setting() -> None:
    pebble = json.loads(services.pebble(replace(WORLD, acme_seconds=42)))["pebble"]
    assert pebble["certificateValidityPeriod"] == 42
