"""Media as they were at a time: what was deleted or overwritten since is put back by copy; nothing is removed.

The bucket keeps old versions for object_storage.media_noncurrent_days.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from mastodon_gov import secrets
from mastodon_gov.instance.load import load
from mastodon_gov.inventory import identity_path
from mastodon_gov.storage.client import connect, reached, sentences

# Copies of other servers' pictures; Mastodon fetches them again.
REGENERATED = ("cache/",)


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


def put_back(directory: Path, when: datetime) -> dict[str, int]:
    """Copy what was lost over what is there now. Raises Refusal: the service."""
    instance, known = load(directory), secrets.read(directory, identity_path(directory))
    bucket = instance.object_storage.media_bucket
    with reached(instance) as bundle:
        with sentences(instance, "owner", bucket):
            owner = connect(instance, known.object_storage.owner, bundle)
            pages = owner.get_paginator("list_object_versions").paginate(Bucket=bucket)
            found, there = lost(pages, when)
        with sentences(instance, "media", bucket):
            writer = connect(instance, known.object_storage.media, bundle)
            for key, version in found:
                source = {"Bucket": bucket, "Key": key, "VersionId": version}
                writer.copy_object(Bucket=bucket, Key=key, CopySource=source, MetadataDirective="COPY")
    return {"objects": there, "put_back": len(found)}
