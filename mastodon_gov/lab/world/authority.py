"""The lab's certificate authority: made once per lab, it signs what the outside world shows.

Python 3.13 and others refuse a CA without critical basicConstraints and keyUsage, and a leaf without
authorityKeyIdentifier; addresses count only as subjectAltName.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS = 3650
LEAF_DAYS = 90
LEFT_DAYS = 30  # a leaf with less than this left is made anew
BACKDATED = timedelta(hours=2)  # a machine whose clock is behind still accepts it


@dataclass(frozen=True)
class Authority:
    """A certificate and the key that signs for it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        """The certificate, as clients trust it."""
        return _text(self.certificate)


def authority(directory: Path, name: str) -> Authority:
    """The CA in this directory (`ca.pem`, one file with key and certificate, 0600); made where there is none."""
    path = directory / "ca.pem"
    if not path.exists():
        made = _make_authority(name)
        write_secret(path, _key_text(made.key) + made.pem)
    pem = path.read_bytes()
    key = load_pem_private_key(pem, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101 - we made it
    return Authority(x509.load_pem_x509_certificate(pem), key)


def _make_authority(name: str) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(subject, subject, key.public_key(), key.public_key(), CA_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(_usage(ca=True), critical=True)
    return Authority(builder.sign(key, hashes.SHA256()), key)


def leaf(ca: Authority, names: Sequence[str], addresses: Sequence[str] = (), days: int = LEAF_DAYS) -> tuple[str, str]:
    """A server certificate for these names and addresses, and its key, both as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    builder = _builder(subject, ca.certificate.subject, key.public_key(), ca.key.public_key(), days)
    builder = builder.add_extension(_alternatives(names, addresses), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(ca=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    return _text(builder.sign(ca.key, hashes.SHA256())), _key_text(key)


def good(pem: str, ca: Authority, names: Sequence[str], addresses: Sequence[str]) -> bool:
    """Whether a leaf is this CA's, carries exactly these names and addresses, and has time left."""
    certificate = x509.load_pem_x509_certificate(pem.encode())
    carried = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    authority_id = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    ours = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    return carried == _alternatives(names, addresses) and authority_id == ours and left > timedelta(days=LEFT_DAYS)


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner may read, in one step."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    new.write_text(text)
    new.rename(path)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePublicKey,
    days: int,
) -> x509.CertificateBuilder:
    begin = datetime.now(UTC) - BACKDATED
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(begin).not_valid_after(begin + timedelta(days=days))
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    return builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternatives(names: Sequence[str], addresses: Sequence[str]) -> x509.SubjectAlternativeName:
    listed: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
    return x509.SubjectAlternativeName([*listed, *(x509.IPAddress(ip_address(a)) for a in addresses)])


def _text(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _key_text(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
