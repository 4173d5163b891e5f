"""What a role sees of one host."""

from __future__ import annotations

from pydantic import SecretStr

from mastodon_gov.instance.model import Instance
from mastodon_gov.instance.secret_model import Secrets
from mastodon_gov.instance.types import Part


class ReleaseBundle(Part):
    """The signed release that this instance shall run: a file on the control node, and what it says of itself.

    `signature` and `signers` are the texts of the signature file and of the ministry's allowed_signers.
    """

    name: str
    version: str
    standin: bool
    archive: str
    signature: str
    signers: str
    packages: tuple[str, ...]


class CertificateFiles(Part):
    """What the instance directory holds for `certificates.files` and `certificates.internal_ca`; texts are PEM.

    `chain` is "" until it is there; `request` is where the host's request for a certificate is put.
    """

    chain: str = ""
    key: SecretStr = SecretStr("")
    request: str = ""


class Node(Part):
    """What a role sees: one host of one instance. `groups` are the inventory's groups the host is in."""

    name: str
    groups: frozenset[str]
    instance: Instance
    secrets: Secrets
    release: ReleaseBundle
    certificate: CertificateFiles = CertificateFiles()
