"""Media as they were at a time: what was deleted or overwritten since is put back by copy; nothing is removed.

The bucket keeps old versions for object_storage.media_noncurrent_days.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mastodon_gov import secrets
from mastodon_gov.errors import Refusal
from mastodon_gov.instance import Instance, Secrets
from mastodon_gov.instance.load import load
from mastodon_gov.inventory import identity_path
from mastodon_gov.storage.client import connect, reached, sentences

# Copies of other servers' pictures; Mastodon fetches them again.
REGENERATED = ("cache/",)
TIME = "%Y-%m-%dT%H:%M:%SZ"


def lost(pages: Iterable[dict[str, Any]], when: datetime) -> tuple[list[tuple[str, str]], int]:
    """Key and version of each object that is not what it was at this time, and how many objects there were then.

    An object is what its newest version of that time says; a marker says that it was deleted.
    """
    history: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for page in pages:
        for each in page.get("Versions", []):
            history[each["Key"]].append(each)
        for each in page.get("DeleteMarkers", []):
            history[each["Key"]].append({**each, "marker": True})
    found, there = [], 0
    for key, versions in sorted(history.items()):
        then = [each for each in versions if each["LastModified"] <= when]
        wanted = max(then, key=lambda each: each["LastModified"], default=None)
        if wanted is None or wanted.get("marker") or key.startswith(REGENERATED):
            continue
        there += 1
        now = next((each for each in versions if each["IsLatest"]), wanted)
        if now.get("marker") or now.get("ETag") != wanted["ETag"]:
            found.append((key, str(wanted["VersionId"])))
    return found, there


def oldest(instance: Instance) -> datetime:
    """Back to when old versions are kept; a full hour, so that it can be given to --media-to."""
    kept = datetime.now(UTC) - timedelta(days=instance.object_storage.media_noncurrent_days)
    return kept.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)


def found_lost(instance: Instance, known: Secrets, when: datetime) -> tuple[list[tuple[str, str]], int]:
    """`lost` of the media bucket. Raises Refusal: the service."""
    bucket = instance.object_storage.media_bucket
    with reached(instance) as bundle, sentences(instance, "owner", bucket):
        owner = connect(instance, known.object_storage.owner, bundle)
        return lost(owner.get_paginator("list_object_versions").paginate(Bucket=bucket), when)


def put_back(directory: Path, when: datetime) -> dict[str, int]:
    """Copy what was lost over what is there now. Raises Refusal: the service, and a time of which nothing is kept."""
    instance, known = load(directory), secrets.read(directory, identity_path(directory))
    bucket, first = instance.object_storage.media_bucket, oldest(instance)
    if when < first:
        raise Refusal(
            f"--media-to: found {when:{TIME}}. Deleted and overwritten pictures are kept "
            f"{instance.object_storage.media_noncurrent_days} days (object_storage.media_noncurrent_days), so what was "
            f"lost before {first:{TIME}} is gone. `--media-to {first:{TIME}}` puts back the rest. Nothing was changed."
        )
    found, there = found_lost(instance, known, when)
    with reached(instance) as bundle, sentences(instance, "media", bucket):
        writer = connect(instance, known.object_storage.media, bundle)
        for key, version in found:
            source = {"Bucket": bucket, "Key": key, "VersionId": version}
            writer.copy_object(Bucket=bucket, Key=key, CopySource=source, MetadataDirective="COPY")
    return {"objects": there, "put_back": len(found)}


def advice(directory: Path, when: datetime) -> str:
    """What a database of this time misses in the media bucket, and what to do about it."""
    instance, known = load(directory), secrets.read(directory, identity_path(directory))
    first, then = oldest(instance), when.replace(microsecond=0)
    try:
        found, there = found_lost(instance, known, then)
    except Refusal as refusal:
        return f"pictures: what is missing is not known. {refusal}"
    gone = f"; what was deleted or overwritten before {first:{TIME}} is gone for good" if then < first else ""
    if not found:
        return f"pictures: the {there} of that moment that are kept are in their place; nothing needed{gone}"
    return (
        f"pictures: {len(found)} of {there} were deleted or overwritten since. `mastodon-gov restore --media-to "
        f"{max(then, first):{TIME}}` puts them back{gone}"
    )
