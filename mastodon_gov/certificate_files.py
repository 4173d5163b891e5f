"""Certificates that lie in the instance directory, judged before any host hears of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from mastodon_gov.errors import WrongUsage
from mastodon_gov.instance import Instance
from mastodon_gov.instance.node import CertificateFiles
from mastodon_gov.secrets.age import decrypt


def certificate_files(directory: Path, instance: Instance, host: str, identity: Path) -> CertificateFiles:
    """What the instance directory holds for a host. Raises WrongUsage for a chain or key that nginx could not use."""
    given, ca = instance.certificates.files, instance.certificates.internal_ca
    if given:
        chain, key = _text(directory / given.chain), decrypt(directory, _there(directory / given.key), identity)
        _check(directory / given.chain, chain, instance.public_names)
        _check_key(directory / given.chain, chain, directory / given.key, key)
        return CertificateFiles.model_validate({"chain": chain, "key": key})
    if ca:
        signed = directory / ca.directory / f"{host}.pem"
        chain = _text(signed) if signed.exists() else ""
        if chain:
            _check(signed, chain, instance.public_names)
        return CertificateFiles(chain=chain, request=str(signed.with_suffix(".csr")))
    return CertificateFiles()


def _there(path: Path) -> Path:
    if not path.is_file():
        raise WrongUsage(f"{path} does not exist. Put it there, or correct certificates.files in instance.yaml.")
    return path


def _text(path: Path) -> str:
    try:
        return _there(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise WrongUsage(f"{path} cannot be read as text. Allowed: certificates in PEM form. Convert it.") from None


def _check(path: Path, chain: str, names: Sequence[str]) -> None:
    """The first certificate must carry the names and be in force; no key may lie in a file that everybody may read."""
    if "PRIVATE KEY" in chain:
        raise WrongUsage(
            f"{path} holds a private key. Allowed: certificates only. Take the key out and make a new one."
        )
    leaf = _leaf(path, chain)
    try:
        carried = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = set(carried.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        found = set()
    if missing := sorted(set(names) - found):
        told = ", ".join(sorted(found)) or "no name"
        raise WrongUsage(
            f"{path}: found a certificate for {told}. Allowed: one that carries {', '.join(names)}; {missing[0]} is "
            "missing. Put the server's certificate first in the file, or have one signed with all names."
        )
    if leaf.not_valid_after_utc <= datetime.now(UTC):
        raise WrongUsage(
            f"{path}: the certificate ran out on {leaf.not_valid_after_utc:%Y-%m-%d}. Put a new one there."
        )


def _check_key(chain_path: Path, chain: str, path: Path, key: str) -> None:
    try:
        public = load_pem_private_key(key.encode(), password=None).public_key()
    except (ValueError, TypeError):
        raise WrongUsage(
            f"{path} holds no private key that can be used. Allowed: a key in PEM form without a passphrase, encrypted "
            "with age to the people of recipients.txt. Encrypt it again."
        ) from None
    same = _bytes(_leaf(chain_path, chain).public_key()) == public.public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    if not same:
        raise WrongUsage(f"{path} is not the key of {chain_path}. Put the two files there that belong together.")


def _leaf(path: Path, chain: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(chain.encode())[0]
    except ValueError:
        raise WrongUsage(f"{path} holds no certificate. Allowed: certificates in PEM form. Convert it.") from None


def _bytes(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
