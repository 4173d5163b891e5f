"""The backup bucket as its owner sees it: whether it still locks, and how full it is. Reads only."""

from __future__ import annotations

from typing import Any

from mastodon_gov.errors import Refusal
from mastodon_gov.instance import Instance, Secrets
from mastodon_gov.storage.buckets import read
from mastodon_gov.storage.client import connect, reached, sentences
from mastodon_gov.storage.settings import difference, wanted

FULL_PERCENT = 80


def look(instance: Instance, secrets: Secrets) -> dict[str, Any]:
    """`lock_days`, `bytes` held by all versions (None where no limit is set), and `problems` as sentences."""
    storage = instance.object_storage
    seen: dict[str, Any] = {"bucket": storage.backup_bucket, "lock_days": 0, "bytes": None}
    try:
        with reached(instance) as bundle, sentences(instance, "owner", storage.backup_bucket):
            client = connect(instance, secrets.object_storage.owner, bundle)
            found = read(client, storage.backup_bucket)
            seen["lock_days"] = found.lock_days if found.lock_mode == "COMPLIANCE" else 0
            # What no deploy can mend is refused there; here it is one more sentence.
            wrong = [action.why for action in difference(wanted(instance)[1], found)]
            if storage.backup_gib:
                seen["bytes"] = held(client, storage.backup_bucket)
    except Refusal as refusal:
        return {**seen, "problems": [str(refusal)]}
    return {**seen, "problems": [*map(_setting, wrong), *_size(seen, storage.backup_gib)]}


def held(client: Any, bucket: str) -> int:
    """Bytes of all versions: what is hidden is paid for until its lock is over."""
    pages = client.get_paginator("list_object_versions").paginate(Bucket=bucket)
    return sum(version["Size"] for page in pages for version in page.get("Versions", []))


def _setting(why: str) -> str:
    return f"The backups are not protected as they should be: {why}. Run deploy, and ask who changed it."


def _size(seen: dict[str, Any], limit: int | None) -> list[str]:
    if not limit or 100 * seen["bytes"] <= FULL_PERCENT * (limit << 30):
        return []
    return [
        f"Bucket {seen['bucket']} holds {seen['bytes'] / (1 << 30):.1f} of {limit} GiB (object_storage.backup_gib). "
        "When it is full no change leaves the host any more. Ask the S3 service for more, or shorten "
        "backups.keep_full: what the lock still holds goes only with time."
    ]
