"""Buckets as they must be, as they are, and the difference: pure functions, no network.

The policies are those that were proved against radosgw (reference: storage-backup-ha §1).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from mastodon_gov.errors import Refusal
from mastodon_gov.instance import Instance

Json = dict[str, Any]

# An upload that was begun and never ended costs money and is seen by nobody (days).
ABORT_UPLOADS = 2

# An access list of an object opens nothing; only our policies give rights. The other three switches stay off, as
# radosgw 18.2.7 then refuses what is right (seen): with BlockPublicAcls every upload by a key that does not own the
# bucket, with BlockPublicPolicy every policy.
ACCESS_BLOCK: Json = {
    "BlockPublicAcls": False,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": False,
    "RestrictPublicBuckets": False,
}


@dataclass(frozen=True)
class Wanted:
    """A bucket as the instance describes it. `lock_days` None is no object lock."""

    name: str
    role: str
    lock_days: int | None
    noncurrent_days: int
    statements: tuple[Json, ...]


@dataclass(frozen=True)
class Found:
    """A bucket as the service shows it. `access_block` None: the service knows no such setting."""

    exists: bool = False
    lock_enabled: bool = False
    lock_mode: str = ""
    lock_days: int = 0
    versioning: str = ""
    lifecycle: tuple[Json, ...] = ()
    access_block: Json | None = field(default_factory=dict)
    policy: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Action:
    """One request that brings a bucket nearer to what is wanted. `why` is for the person who reads the plan."""

    bucket: str
    setting: str
    value: Any
    why: str


def wanted(instance: Instance) -> tuple[Wanted, Wanted]:
    """The two buckets: media (anyone may read an object by its name) and backups (locked, nobody from outside)."""
    storage = instance.object_storage
    media, backup = storage.media_bucket, storage.backup_bucket
    return (
        Wanted(media, "media", None, storage.media_noncurrent_days, media_policy(media, storage.media_user)),
        Wanted(
            backup,
            "backup",
            storage.backup_lock_days,
            # One day later than the lock: lifecycle must never try what the lock refuses.
            storage.backup_lock_days + 1,
            backup_policy(backup, storage.backup_user),
        ),
    )


def _allow(principal: Any, actions: list[str], resource: str) -> Json:
    return {"Effect": "Allow", "Principal": principal, "Action": actions, "Resource": [resource]}


def media_policy(bucket: str, user: str) -> tuple[Json, ...]:
    """Anyone reads objects by name but not Mastodon's archives of accounts; only the application's user writes."""
    arn, me = f"arn:aws:s3:::{bucket}", {"AWS": [user]}
    # GetObjectVersion: what was deleted or overwritten is put back with this key (restore --media-to).
    objects = ["GetObject", "GetObjectVersion", "PutObject", "PutObjectAcl", "GetObjectAcl", "DeleteObject"]
    uploads = ["AbortMultipartUpload", "ListMultipartUploadParts"]
    archives = {
        "Effect": "Deny",
        "NotPrincipal": me,
        "Action": ["s3:GetObject"],
        "Resource": [f"{arn}/backups/*"],
    }
    return (
        _allow("*", ["s3:GetObject"], f"{arn}/*"),
        archives,
        _allow(me, [f"s3:{name}" for name in objects + uploads], f"{arn}/*"),
        # DeleteObject on the bucket itself: radosgw asks for it when many objects are deleted in one request.
        _allow(me, ["s3:ListBucket", "s3:DeleteObject", "s3:GetBucketLocation"], arn),
    )


def backup_policy(bucket: str, user: str) -> tuple[Json, ...]:
    """The host writes, reads and hides; it can destroy no version, and change no setting."""
    arn, me = f"arn:aws:s3:::{bucket}", {"AWS": [user]}
    objects = ["GetObject", "GetObjectVersion", "PutObject", "DeleteObject"]
    uploads = ["AbortMultipartUpload", "ListMultipartUploadParts"]
    whole = ["ListBucket", "ListBucketVersions", "DeleteObject", "GetBucketObjectLockConfiguration"]
    return (
        # ListBucketVersions: pgBackRest reads the bucket as it was before somebody destroyed it (restore --as-of).
        # GetBucketObjectLockConfiguration: the host sees whether what it writes is locked (backup-status).
        _allow(me, [f"s3:{name}" for name in whole], arn),
        _allow(me, [f"s3:{name}" for name in objects + uploads], f"{arn}/*"),
    )


def lifecycle(bucket: Wanted) -> Json:
    """The only rule: old versions go when their time is over; what is current stays for ever."""
    return {
        "ID": "mastodon-gov",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "NoncurrentVersionExpiration": {"NoncurrentDays": bucket.noncurrent_days},
        "Expiration": {"ExpiredObjectDeleteMarker": True},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": ABORT_UPLOADS},
    }


def policy(bucket: Wanted) -> Json:
    """The bucket's whole policy; statements of others do not stay."""
    return {"Version": "2012-10-17", "Statement": list(bucket.statements)}


def difference(bucket: Wanted, found: Found) -> list[Action]:
    """Requests that settle the bucket, in their order: rights are given last. A lock is never weakened."""
    actions = []
    if not found.exists:
        actions.append(_action(bucket, "create", bucket.lock_days is not None, "does not exist"))
    else:
        _refuse_lock(bucket, found)
    if bucket.lock_days and (found.lock_mode, found.lock_days) != ("COMPLIANCE", bucket.lock_days):
        now = f"{found.lock_days} days {found.lock_mode}" if found.lock_mode else "no default lock"
        actions.append(_action(bucket, "lock", bucket.lock_days, f"has {now}, wanted {bucket.lock_days} COMPLIANCE"))
    if found.versioning != "Enabled" and not (bucket.lock_days and not found.exists):
        actions.append(_action(bucket, "versioning", "Enabled", "does not keep old versions"))
    if [_rule(rule) for rule in found.lifecycle] != [_rule(lifecycle(bucket))]:
        why = "has other rules for old versions" if found.lifecycle else "has no rule for old versions"
        actions.append(_action(bucket, "lifecycle", lifecycle(bucket), why))
    if found.access_block is not None and found.access_block != ACCESS_BLOCK:
        actions.append(_action(bucket, "access_block", ACCESS_BLOCK, "lets access lists of objects open them"))
    if statements(found.policy) != statements(policy(bucket)):
        why = "has another policy" if found.policy else "has no policy"
        actions.append(_action(bucket, "policy", policy(bucket), why))
    return actions


def _action(bucket: Wanted, setting: str, value: Any, why: str) -> Action:
    return Action(bucket.name, setting, value, f"bucket {bucket.name} {why}")


def _refuse_lock(bucket: Wanted, found: Found) -> None:
    """What cannot be repaired, or must not be: a bucket made without lock, and a lock that would get shorter."""
    if bucket.lock_days is None:
        return
    if not found.lock_enabled:
        raise Refusal(
            f"Bucket {bucket.name} (object_storage.backup_bucket) exists and was made without object lock, which "
            "cannot be added later. Nothing was changed. Name a bucket that does not exist yet; it will be made."
        )
    if found.lock_mode == "COMPLIANCE" and found.lock_days > bucket.lock_days:
        raise Refusal(
            f"object_storage.backup_lock_days is {bucket.lock_days}, but bucket {bucket.name} locks objects for "
            f"{found.lock_days} days; a lock is never shortened. Write at least {found.lock_days}. "
            "Nothing was changed."
        )


def _rule(rule: Json) -> tuple[object, ...]:
    """A lifecycle rule by its meaning; services move the prefix and choose names and defaults of their own."""
    where = rule.get("Filter") or {}
    known = {"ID", "Status", "Filter", "Prefix", "NoncurrentVersionExpiration", "Expiration"}
    other = {key: value for key, value in rule.items() if key not in {*known, "AbortIncompleteMultipartUpload"}}
    return (
        rule.get("Status"),
        where.get("Prefix", rule.get("Prefix", "")),
        json.dumps({key: value for key, value in where.items() if key != "Prefix"}, sort_keys=True),
        rule.get("NoncurrentVersionExpiration", {}).get("NoncurrentDays"),
        json.dumps({key: value for key, value in rule.get("Expiration", {}).items() if value}, sort_keys=True),
        rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation"),
        json.dumps(other, sort_keys=True, default=str),
    )


def _set(value: Any) -> frozenset[str]:
    return frozenset([value] if isinstance(value, str) else value or ())


def _who(value: Any) -> frozenset[tuple[str, str]]:
    """`"*"` and `{"AWS": "*"}` are the same people."""
    by_kind = {"AWS": value} if isinstance(value, str) else value or {}
    return frozenset((kind, name) for kind, names in by_kind.items() for name in _set(names))


def statements(document: Json) -> frozenset[tuple[object, ...]]:
    """A policy by its meaning: order, names of statements and lists of one do not count; conditions do."""
    listed = document.get("Statement", [])
    return frozenset(_statement(each) for each in ([listed] if isinstance(listed, dict) else listed))


def _statement(one: Json) -> tuple[object, ...]:
    people = (_who(one.get(key)) for key in ("Principal", "NotPrincipal"))
    things = (_set(one.get(key)) for key in ("Action", "NotAction", "Resource", "NotResource"))
    return (one.get("Effect"), *people, *things, json.dumps(one.get("Condition") or {}, sort_keys=True))
