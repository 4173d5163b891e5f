"""A good instance directory for tests: the demo's files, and what the lab would generate beside them."""

from __future__ import annotations

import shutil
import socket
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa as rsa_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

DEMO = Path(__file__).resolve().parents[2] / "inventories" / "demo"
ADDRESSES = """control: [10.99.0.1, "fd00:99::1"]
social: [10.99.0.11, "fd00:99::11"]
ns.world.test: [10.99.0.12, "fd00:99::12"]
s3.world.test: [10.99.0.12]
acme.world.test: [10.99.0.12]
mail.world.test: [10.99.0.12]
"""
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nbm90IHJlYWQgaGVyZQ==\n-----END CERTIFICATE-----\n"


@cache
def ed25519() -> str:
    """A public SSH key as a line of a .pub file."""
    return _line(Ed25519PrivateKey.generate().public_key())


@cache
def rsa(bits: int) -> str:
    """As above, RSA with this many bits."""
    return _line(rsa_key.generate_private_key(65537, bits).public_key())


def _line(key: Ed25519PublicKey | RSAPublicKey) -> str:
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() + " test"


def forbid_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every attempt to reach anything fails the test."""

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a connection was opened")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)


def good_directory(place: Path) -> Path:
    """The demo as the lab completes it, without secrets."""
    place.mkdir()
    for name in ("instance.yaml", "organisations.yaml", "inventory.py"):
        shutil.copy(DEMO / name, place / name)
    shutil.copytree(DEMO / "server", place / "server")
    (place / "addresses.yaml").write_text(ADDRESSES)
    for name in ("deploy_key.pub", "auditor_key.pub"):
        (place / name).write_text(ed25519() + "\n")
    (place / "lab-ca.pem").write_text(CERTIFICATE)
    return place
