"""What each S3 key may do, and may not: found by trying, with objects under a probe prefix that are removed again.

Requests that must be refused are made so that they change nothing where they are allowed by mistake: a policy that
is no policy, a version that does not exist.
"""

from __future__ import annotations

import secrets as random
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import md5
from typing import Any

from botocore.exceptions import ClientError

from mastodon_gov.errors import Refusal
from mastodon_gov.instance import Instance, Secrets
from mastodon_gov.storage.client import DENIED, code, connect, reached, sentences

PREFIX = "mfg-probe"
# A version that no object here has: with a real one, the lock would refuse what the policy allows by mistake.
NO_VERSION = "null"
KEYS = ("owner", "media", "backups")


@dataclass(frozen=True)
class Probe:
    """One attempt. `who` is a key of the secrets, or `anonymous`; `may` is what must be the outcome."""

    who: str
    may: bool
    what: str
    attempt: Callable[[], object]


@dataclass(frozen=True)
class Clients:
    """A client for each key, and one without; and the two buckets."""

    owner: Any
    media: Any
    backups: Any
    anonymous: Any
    media_bucket: str
    backup_bucket: str


def rights(instance: Instance, secrets: Secrets, unsettled: frozenset[str] = frozenset()) -> list[str]:
    """Sentences about every key that may too little or too much; none is good. Takes about two seconds.

    `unsettled` are buckets whose policy a deploy has yet to write: what the keys may there is not known before.
    """
    storage = instance.object_storage
    keys = {name: getattr(secrets.object_storage, name) for name in KEYS}
    with reached(instance) as bundle:
        made = {name: connect(instance, keys.get(name), bundle) for name in (*KEYS, "anonymous")}
        clients = Clients(**made, media_bucket=storage.media_bucket, backup_bucket=storage.backup_bucket)
        try:
            present, unknown = _known(instance, clients)
            if unknown:
                return unknown
            if not all(present):
                with sentences(instance, "owner", PREFIX):
                    _try_to_make(clients.owner, storage.region)
            with sentences(instance, "owner", storage.media_bucket):
                found = _media(clients) if present[0] and storage.media_bucket not in unsettled else []
            with sentences(instance, "owner", storage.backup_bucket):
                found += _backups(clients) if present[1] and storage.backup_bucket not in unsettled else []
        except Refusal as refusal:
            return [str(refusal)]
    return found


def _known(instance: Instance, at: Clients) -> tuple[list[bool], list[str]]:
    """Whether each bucket exists, and a sentence for each key that the service does not know. It looks at the key
    first, so that a key is known or not also where there is no bucket yet. Refusal: a service that is away."""
    present, unknown = [], []
    for bucket in (at.media_bucket, at.backup_bucket):
        answers = {name: _answer(instance, getattr(at, name), name, bucket) for name in KEYS}
        present.append("NoSuchBucket" not in {what for what, _ in answers.values()})
        unknown += [
            sentence
            for name, (what, sentence) in answers.items()
            if what not in ("OK", "NoSuchBucket") and (name == "owner" or what not in DENIED)
        ]
    return present, list(dict.fromkeys(unknown))


def _answer(instance: Instance, client: Any, name: str, bucket: str) -> tuple[str, str]:
    """The service's word about listing a bucket, and what it means for a person."""
    try:
        with sentences(instance, name, bucket):
            _list(client, bucket)
    except Refusal as refusal:
        if not isinstance(refusal.__context__, ClientError):
            raise
        return code(refusal.__context__), str(refusal)
    return "OK", ""


def _list(client: Any, bucket: str) -> object:
    return client.list_objects_v2(Bucket=bucket, Prefix=f"{PREFIX}/", MaxKeys=1)


def _try_to_make(owner: Any, region: str) -> None:
    """Make a bucket with object lock and remove it: the service must know the lock, the key must have the right."""
    name = f"{PREFIX}-{random.token_hex(8)}"
    place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    owner.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True, **place)
    owner.delete_bucket(Bucket=name)


def _media(at: Clients) -> list[str]:
    """The application writes and reads; the world reads objects by name and nothing else."""
    bucket, run = at.media_bucket, random.token_hex(8)
    shown, archive = f"{PREFIX}/{run}", f"backups/{PREFIX}/{run}"
    here, there = {"Bucket": bucket, "Key": shown}, {"Bucket": bucket, "Key": archive}
    with _cleaned(at.owner, bucket, (shown, archive)):
        return _run(
            bucket,
            [
                Probe("media", True, "write an object", lambda: at.media.put_object(**here, Body=b"probe")),
                Probe("media", True, "write an archive", lambda: at.media.put_object(**there, Body=b"probe")),
                Probe("media", True, "read an object", lambda: at.media.get_object(**here)),
                Probe("media", True, "list the bucket", lambda: _list(at.media, bucket)),
                Probe("media", False, "list the bucket of the backups", lambda: _list(at.media, at.backup_bucket)),
                Probe("media", False, "see all buckets", lambda: _sees(at.media)),
                Probe("media", False, "change the policy", lambda: _no_policy(at.media, bucket)),
                Probe("media", False, "destroy versions", lambda: at.media.delete_object(**here, VersionId=NO_VERSION)),
                Probe("anonymous", True, "read an object", lambda: at.anonymous.get_object(**here)),
                Probe("anonymous", False, "read an archive", lambda: at.anonymous.get_object(**there)),
                Probe("anonymous", False, "list the bucket", lambda: _list(at.anonymous, bucket)),
                Probe("anonymous", False, "write an object", lambda: at.anonymous.put_object(**here, Body=b"x")),
                Probe("anonymous", False, "delete an object", lambda: at.anonymous.delete_object(**here)),
                Probe("media", True, "delete many objects", lambda: _delete(at.media, bucket, [shown, archive])),
            ],
        )


def _backups(at: Clients) -> list[str]:
    """The host adds, reads and hides, but destroys nothing; nobody else sees anything.

    What a host puts here stays for the days of the lock. So writing is tried with an upload that is called off, and
    the object for the other attempts is the owner's, with a short lock of its own that the owner may lift.
    """
    bucket, key = at.backup_bucket, f"{PREFIX}/{random.token_hex(8)}"
    here = {"Bucket": bucket, "Key": key}
    with _cleaned(at.owner, bucket, (key,), locked=True):
        _put_briefly(at.owner, here)
        return _run(
            bucket,
            [
                Probe("backups", True, "write an object", lambda: _upload(at.backups, here)),
                Probe("backups", True, "read an object", lambda: at.backups.get_object(**here)),
                Probe("backups", True, "list the bucket", lambda: _list(at.backups, bucket)),
                Probe(
                    "backups", False, "destroy versions", lambda: at.backups.delete_object(**here, VersionId=NO_VERSION)
                ),
                Probe("backups", False, "change the policy", lambda: _no_policy(at.backups, bucket)),
                Probe("backups", False, "change the rules for old versions", lambda: _no_rules(at.backups, bucket)),
                Probe("backups", False, "see all buckets", lambda: _sees(at.backups)),
                Probe("backups", False, "list the bucket of the media", lambda: _list(at.backups, at.media_bucket)),
                Probe("media", False, "read an object", lambda: at.media.get_object(**here)),
                Probe("anonymous", False, "read an object", lambda: at.anonymous.get_object(**here)),
                Probe("anonymous", False, "list the bucket", lambda: _list(at.anonymous, bucket)),
                Probe("backups", True, "hide objects", lambda: _delete(at.backups, bucket, [key])),
            ],
        )


def _put_briefly(owner: Any, where: dict[str, str]) -> None:
    """An object whose lock the owner can lift, instead of the bucket's lock that nobody can."""
    body = b"probe"
    owner.put_object(
        **where,
        Body=body,
        ContentMD5=b64encode(md5(body, usedforsecurity=False).digest()).decode(),
        ObjectLockMode="GOVERNANCE",
        ObjectLockRetainUntilDate=datetime.now(UTC) + timedelta(hours=1),
    )


def _run(bucket: str, probes: list[Probe]) -> list[str]:
    """One sentence for each probe that did not end as it must."""
    found = []
    for probe in probes:
        answer = _outcome(probe.attempt)
        if (answer not in DENIED) != probe.may:
            found.append(_sentence(bucket, probe, answer))
    return found


def _outcome(attempt: Callable[[], object]) -> str:
    """The service's word: `OK`, or an error; any but a denial means that the right was there."""
    try:
        attempt()
    except ClientError as error:
        return code(error)
    return "OK"


def _sentence(bucket: str, probe: Probe, answer: str) -> str:
    who = "Anybody, without a key," if probe.who == "anonymous" else f"object_storage.{probe.who} in the secrets"
    if probe.may:
        remedy = (
            "Run deploy, which writes the bucket's policy; if that changes nothing, look at the user's own policies"
        )
        return f"{who} may not {probe.what} in bucket {bucket}, and must be able to (answer: {answer}). {remedy}."
    remedy = "Run deploy, which writes the bucket's policy; if it stays, take the right from the user at the service"
    return f"{who} can {probe.what} in bucket {bucket}, and must not (answer: {answer}). {remedy}."


def _sees(client: Any) -> None:
    """A service that answers with an empty list has shown nothing; radosgw does."""
    if not client.list_buckets().get("Buckets"):
        raise ClientError({"Error": {"Code": "AccessDenied"}}, "ListBuckets")


def _no_policy(client: Any, bucket: str) -> object:
    # Not even `{}`: radosgw takes that for a policy without statements, and every right is gone (seen).
    return client.put_bucket_policy(Bucket=bucket, Policy="no policy")


def _no_rules(client: Any, bucket: str) -> object:
    return client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": []})


def _upload(client: Any, where: dict[str, str]) -> None:
    begun = client.create_multipart_upload(**where)
    client.abort_multipart_upload(**where, UploadId=begun["UploadId"])


def _delete(client: Any, bucket: str, keys: list[str]) -> None:
    """Errors of single keys hide in an answer that says OK."""
    answer = client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys]})
    for error in answer.get("Errors", []):
        raise ClientError({"Error": {"Code": error.get("Code", "unknown")}}, "DeleteObjects")


@contextmanager
def _cleaned(owner: Any, bucket: str, keys: tuple[str, ...], *, locked: bool = False) -> Iterator[None]:
    """Remove every version and marker that the probes left."""
    try:
        yield
    finally:
        for key in keys:
            listed = owner.list_object_versions(Bucket=bucket, Prefix=key)
            for each in [*listed.get("Versions", []), *listed.get("DeleteMarkers", [])]:
                owner.delete_object(
                    Bucket=bucket, Key=each["Key"], VersionId=each["VersionId"], BypassGovernanceRetention=locked
                )
