"""An instance and secrets for the tests of object storage, backups and mail."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mastodon_gov.instance import Instance, Node, Secrets
from mastodon_gov.instance.node import ReleaseBundle
from mastodon_gov.instance.secret_model import MastodonSecrets

CIPHER, WRITER, RELAY_PASSWORD, OWNER_KEY = "cipher-0815", "writer-4711", 'pass "word', "owner-key-never-on-a-host"


def instance(**changes: Any) -> Instance:
    """The demo's shape; `changes` replace whole parts."""
    parts: dict[str, Any] = {
        "format": 1,
        "lab": True,
        "release": "4.6.5",
        "domain": {"handle": "agency.test", "web": "social.agency.test", "media": "files.social.agency.test"},
        "owner": {"username": "owner", "address": "owner@agency.test"},
        "access": {"networks": ["10.90.0.1/32"], "deploy_keys": ["ssh-ed25519 AAAA"]},
        "network": {"resolvers": ["10.90.0.12"], "time_servers": ["time.agency.test"]},
        "certificates": {"acme": {"directory": "https://acme.world.test/dir", "contact": "it@agency.test"}},
        "object_storage": storage(),
        "mail": {"relay": "mail.world.test", "from_address": "social@agency.test"},
        "organisations": [{"id": "agency", "name": "The Agency", "domains": ["agency.test"]}],
        "addresses": {"s3.world.test": ["10.90.0.12"], "mail.world.test": ["10.90.0.12"]},
    }
    return Instance.model_validate({**parts, **changes})


def storage(**changes: Any) -> dict[str, Any]:
    """The part object_storage."""
    names = {"endpoint": "https://s3.world.test:8443", "media_bucket": "media", "backup_bucket": "backups"}
    return {**names, "backup_lock_days": 14, **changes}


def secret_values(**changes: Any) -> dict[str, Any]:
    """What the secrets file would hold; values that a test can find again where they must not be."""
    keys = {name: {"access_key": f"{name}-access", "secret_key": f"{name}-secret"} for name in ("owner", "media")}
    keys["owner"]["secret_key"] = OWNER_KEY
    parts: dict[str, Any] = {
        "format": 1,
        "mastodon": dict.fromkeys(MastodonSecrets.model_fields, "x"),
        "redis": {"password": "x"},
        "mail": {"login": "social", "password": RELAY_PASSWORD},
        "object_storage": {**keys, "backups": {"access_key": "backups-access", "secret_key": WRITER}},
        "backups": {"cipher_pass": CIPHER},
    }
    return {**parts, **changes}


def secrets(**changes: Any) -> Secrets:
    """The same, typed."""
    return Secrets.model_validate(secret_values(**changes))


def node(**changes: Any) -> Node:
    """The one host."""
    return node_of(instance(**changes), secrets())


def node_of(at: Instance, known: Secrets) -> Node:
    """A host of this instance; its release does not matter here."""
    texts = dict.fromkeys(("name", "version", "archive", "signature", "signers"), "x")
    release = ReleaseBundle(**texts, standin=True, packages=())
    return Node(name="h", groups=frozenset(), instance=at, secrets=known, release=release)


def certificate(directory: Path) -> tuple[Path, str]:
    """A self-signed certificate for 127.0.0.1 with its key in a file, and as the text that a client trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "relay")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    text = made.public_bytes(Encoding.PEM).decode()
    path = directory / "relay.pem"
    path.write_text(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode() + text)
    return path, text
