"""The backup bucket as its owner sees it: whether it still locks, how full it is and will be. Reads only."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from mastodon_gov.errors import Refusal
from mastodon_gov.instance import Instance, Secrets
from mastodon_gov.storage.buckets import read
from mastodon_gov.storage.client import connect, reached, sentences
from mastodon_gov.storage.settings import difference, wanted

FULL_PERCENT = 80
DAY, WEEK = 86400, 7
FULL = re.compile(r"pg/backup/[^/]+/(\d{8}-\d{6}F)/")
KEPT = re.compile(r"pg/(backup/[^/]+/\d{8}-\d{6}F_|archive/)")


def look(instance: Instance, secrets: Secrets) -> dict[str, Any]:
    """`lock_days`, `bytes` held by all versions and `expected` in time (None where no limit is set), and `problems`."""
    storage = instance.object_storage
    seen: dict[str, Any] = {"bucket": storage.backup_bucket, "lock_days": 0, "bytes": None, "expected": None}
    try:
        with reached(instance) as bundle, sentences(instance, "owner", storage.backup_bucket):
            client = connect(instance, secrets.object_storage.owner, bundle)
            found = read(client, storage.backup_bucket)
            seen["lock_days"] = found.lock_days if found.lock_mode == "COMPLIANCE" else 0
            # What no deploy can mend is refused there; here it is one more sentence.
            wrong = [action.why for action in difference(wanted(instance)[1], found)]
            if storage.backup_gib:
                now = held(client, storage.backup_bucket, datetime.now(UTC))
                seen |= {**asdict(now), "expected": expected(instance, now)}
    except Refusal as refusal:
        return {**seen, "problems": [str(refusal)]}
    return {**seen, "problems": [*map(_setting, wrong), *size_problems(seen, storage.backup_gib)]}


@dataclass(frozen=True)
class Held:
    """Bytes of all versions, of the newest full backup, and of what a day adds besides."""

    bytes: int = 0
    full: int = 0
    daily: int = 0


def held(client: Any, bucket: str, now: datetime) -> Held:
    """What the bucket holds, hidden versions too: they are paid for until their lock is over."""
    total = recent = 0
    fulls: dict[str, int] = {}
    oldest = now
    pages = client.get_paginator("list_object_versions").paginate(Bucket=bucket)
    for version in (version for page in pages for version in page.get("Versions", [])):
        total += version["Size"]
        oldest = min(oldest, version["LastModified"])
        if label := FULL.match(version["Key"]):
            fulls[label[1]] = fulls.get(label[1], 0) + version["Size"]
        elif KEPT.match(version["Key"]) and now - version["LastModified"] < timedelta(days=WEEK):
            recent += version["Size"]
    # The first day says nothing of the others.
    days = min(max((now - oldest).total_seconds() / DAY, 1), WEEK)
    # The newest one may be under way.
    full = max((fulls[label] for label in sorted(fulls)[-2:]), default=0)
    return Held(total, full, int(recent / days))


def expected(instance: Instance, now: Held) -> int:
    """Bytes when everything is kept for its time: as long as wanted, and then hidden until its lock is over."""
    backups, hidden = instance.backups, instance.object_storage.backup_lock_days + 1
    fulls = backups.keep_full + math.ceil(hidden / backups.full_days)
    return now.full * fulls + now.daily * (backups.keep_full * backups.full_days + hidden)


def _setting(why: str) -> str:
    return f"The backups are not protected as they should be: {why}. Run deploy, and ask who changed it."


def size_problems(seen: dict[str, Any], limit: int | None) -> list[str]:
    """Whether the bucket is full soon, or will be at this rate; `limit` in GiB."""
    if not limit or max(seen["bytes"] * 100 / FULL_PERCENT, seen["expected"]) <= limit << 30:
        return []
    gib = {name: f"{seen[name] / (1 << 30):.1f}" for name in ("bytes", "expected", "full", "daily")}
    told = f"holds {gib['bytes']}"
    if seen["bytes"] * 100 <= FULL_PERCENT * (limit << 30):
        told = (
            f"will hold about {gib['expected']} (a full backup is {gib['full']}, a day adds {gib['daily']}; now "
            f"{gib['bytes']})"
        )
    return [
        f"Bucket {seen['bucket']} {told} of {limit} GiB (object_storage.backup_gib). "
        "When it is full no change leaves the host any more. Ask the S3 service for more, or shorten "
        "backups.keep_full: what the lock still holds goes only with time."
    ]
