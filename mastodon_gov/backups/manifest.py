"""Manifests of backups: how they are sealed, how a secret is fingerprinted, and reading them from the bucket.

The form is docs/decisions/backup-set.md. The host writes them (roles/backups/files/backup_manifest.py).
"""

from __future__ import annotations

import hmac
import json
from datetime import datetime
from hashlib import sha256
from typing import Any

from botocore.exceptions import ClientError

from mastodon_gov.errors import Refusal
from mastodon_gov.instance import Instance, Secrets
from mastodon_gov.storage.client import code, connect, reached, sentences

PREFIX = "manifests/"
Manifest = dict[str, Any]


def _mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), sha256).digest()


def seal(manifest: Manifest, cipher_pass: str) -> str:
    """The seal that this manifest must carry."""
    bare = {key: value for key, value in manifest.items() if key != "seal"}
    text = json.dumps(bare, sort_keys=True, separators=(",", ":"))
    return _mac(_mac(cipher_pass.encode(), "manifest"), text).hex()


def fingerprint(label: str, name: str, value: str, cipher_pass: str) -> str:
    """Of a secret by its dotted name, for the manifest of this backup."""
    return _mac(_mac(cipher_pass.encode(), f"fingerprint {label}"), f"{name}\0{value}").hex()


def is_sealed(manifest: Manifest, cipher_pass: str) -> bool:
    """Whether a host that knew the cipher pass wrote it, and nobody changed it since."""
    return hmac.compare_digest(str(manifest.get("seal")), seal(manifest, cipher_pass))


def differing(manifest: Manifest, secrets: Secrets) -> list[str]:
    """Names of secrets whose fingerprint is not that of this backup; values are looked up, never shown."""
    cipher_pass = secrets.backups.cipher_pass.get_secret_value()
    return [
        name
        for name, known in manifest["fingerprints"].items()
        if not hmac.compare_digest(known, fingerprint(manifest["label"], name, _value(secrets, name), cipher_pass))
    ]


def _value(secrets: Secrets, name: str) -> str:
    found: Any = secrets
    for part in name.split("."):
        found = getattr(found, part)
    return str(found.get_secret_value())


def read_manifests(instance: Instance, secrets: Secrets, as_of: datetime | None = None) -> list[Manifest]:
    """Sealed manifests, oldest first, as they lie in the bucket or lay there at a time; what has no right seal is left
    out. Raises Refusal: the service."""
    bucket = instance.object_storage.backup_bucket
    cipher_pass = secrets.backups.cipher_pass.get_secret_value()
    with reached(instance) as bundle, sentences(instance, "backups", bucket):
        client = connect(instance, secrets.object_storage.backups, bundle)
        then = as_it_lay(client, bucket, PREFIX, as_of) if as_of else dict.fromkeys(names(client, bucket, PREFIX), "")
        wanted = [{"Key": key} | ({"VersionId": version} if version else {}) for key, version in sorted(then.items())]
        texts = [client.get_object(Bucket=bucket, **each)["Body"].read() for each in wanted]
    found = [manifest for text in texts if (manifest := _parsed(text)) and is_sealed(manifest, cipher_pass)]
    return sorted(found, key=lambda manifest: int(manifest["stop"]))


def _parsed(text: bytes) -> Manifest | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def names(client: Any, bucket: str, prefix: str) -> list[str]:
    """Keys below a prefix, in order; none where the bucket does not exist."""
    try:
        pages = list(client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix))
    except ClientError as error:
        if code(error) == "NoSuchBucket":
            return []
        raise
    return sorted(each["Key"] for page in pages for each in page.get("Contents", []))


def as_it_lay(client: Any, bucket: str, prefix: str, when: datetime) -> dict[str, str]:
    """Version of each object that lay below a prefix at this time, also of those hidden or written over since."""
    pages = client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix)
    versions = [each for page in pages for each in page.get("Versions", []) if each["LastModified"] <= when]
    return {each["Key"]: each["VersionId"] for each in sorted(versions, key=lambda each: each["LastModified"])}


def applying(manifests: list[Manifest], target: float) -> Manifest:
    """The newest manifest that describes a moment not after the target (seconds since 1970)."""
    fitting = [manifest for manifest in manifests if manifest["observed"]["at"] <= target]
    if not fitting:
        raise Refusal(
            f"No manifest in the backup bucket describes the time {target:.0f} or an earlier one. "
            "`mastodon-gov restore --list` shows the backups there are."
        )
    return fitting[-1]
