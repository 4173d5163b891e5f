"""Buckets and the rights of each key, against radosgw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from botocore.exceptions import ClientError

from mastodon_gov.audit import facts, outside, stranger
from mastodon_gov.errors import Refusal
from mastodon_gov.storage import buckets as s3
from mastodon_gov.storage.client import connect, reached
from mastodon_gov.storage.rights import rights
from mastodon_gov.storage.settings import ACCESS_BLOCK, Action, lifecycle, policy, wanted
from tests.lab.storage.place import REPOSITORY, Deployed, Place
from tests.unit.storage_sample import instance, storage


def test_preflight_leaves_nothing_and_plan_writes_nothing(first: Deployed) -> None:
    assert first.rights_before == []
    assert {"Object storage | Settle buckets", REPOSITORY, "Mail | Write files"} <= set(first.planned)
    assert first.buckets_after_plan == []


def test_the_first_run_does_it_and_the_second_nothing(first: Deployed) -> None:
    assert {"Object storage | Settle buckets", REPOSITORY, "Mail | Write files"} <= set(first.first)
    assert first.second == []


BUCKETS = {bucket.name: bucket for bucket in wanted(instance(object_storage=storage(backup_lock_days=1)))}
USERS = {"media": instance().object_storage.media_user, "backups": instance().object_storage.backup_user}


def listed(bucket: str) -> Action:
    """A policy that shows everybody what is there."""
    arn = [f"arn:aws:s3:::{bucket}"]
    listing = {"Effect": "Allow", "Principal": "*", "Action": ["s3:ListBucket"], "Resource": arn}
    mine = BUCKETS[bucket].statements
    return Action(bucket, "policy", {"Version": "2012-10-17", "Statement": [*mine, listing]}, "")


@contextmanager
def broken(at: Place, *actions: Action) -> Iterator[None]:
    """Change settings with the owner's key; afterwards everything is settled again, and proved to be."""
    owner = at.secrets().object_storage.owner
    with reached(at.instance()):
        for action in actions:
            s3.apply(at.client("owner"), "us-east-1", action)
    try:
        yield
    finally:
        for bucket, left in s3.pending(at.instance(), owner):
            s3.settle(at.instance(), owner, bucket, left)
        assert s3.pending(at.instance(), owner) == []


NOT_BLOCKED = {**ACCESS_BLOCK, "IgnorePublicAcls": False}
SHORT = {**lifecycle(BUCKETS["backups"]), "NoncurrentVersionExpiration": {"NoncurrentDays": 1}}


@pytest.mark.parametrize(
    ("action", "setting"),
    [
        (Action("media", "versioning", "Suspended", ""), "versioning"),
        (listed("media"), "policy"),
        (Action("backups", "lifecycle", SHORT, ""), "lifecycle"),
        (listed("backups"), "policy"),
        (
            Action("media", "access_block", NOT_BLOCKED, ""),
            "access_block",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else value.bucket,
)
def test_each_drift_is_seen_and_mended(place: Place, action: Action, setting: str) -> None:
    with broken(place, action):
        plans = s3.pending(place.instance(), place.secrets().object_storage.owner)
        assert [(bucket.name, [a.setting for a in left]) for bucket, left in plans] == [(action.bucket, [setting])]


def test_the_audit_sees_a_bucket_that_anybody_may_list(place: Place) -> None:
    """Without a key, at the service itself: the media name answers 404 whatever the policy says."""
    asked = outside.questions(place.instance(), (), outside.HERE, False)

    def answers() -> list[int]:
        return [facts.seen(answer)["status"] for answer in stranger.storage(asked).values()]

    assert answers() == [403, 403]
    with broken(place, listed("media")):
        assert answers() == [200, 403]


def test_a_shorter_lock_is_refused_and_nothing_changes(place: Place) -> None:
    longer = Action("locked-longer", "lock", 3, "")
    with reached(place.instance()):
        owner = place.client("owner")
        s3.apply(owner, "us-east-1", Action("locked-longer", "create", True, ""))
        s3.apply(owner, "us-east-1", longer)
    at = place.instance(
        object_storage=storage(endpoint=place.world.endpoint, backup_lock_days=1, backup_bucket="locked-longer")
    )
    with pytest.raises(Refusal, match="locks objects for 3 days; a lock is never shortened"):
        s3.pending(at, place.secrets().object_storage.owner)
    with reached(place.instance()):
        assert s3.read(place.client("owner"), "locked-longer").lock_days == 3


def test_a_bucket_without_lock_is_refused(place: Place) -> None:
    with reached(place.instance()):
        s3.apply(place.client("owner"), "us-east-1", Action("no-lock", "create", False, ""))
    at = place.instance(object_storage=storage(endpoint=place.world.endpoint, backup_bucket="no-lock"))
    with pytest.raises(Refusal, match=r"Bucket no-lock .* was made without object lock"):
        s3.pending(at, place.secrets().object_storage.owner)


def test_a_service_that_forgets_what_it_took_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "SETTLE", 0.1)
    owner = place.secrets().object_storage.owner
    with broken(place, Action("media", "versioning", "Suspended", "")):
        ((bucket, actions),) = s3.pending(place.instance(), owner)
        with monkeypatch.context() as patch:
            patch.setattr(s3, "apply", lambda *_: None)
            with pytest.raises(Refusal, match="does not keep them: bucket media does not keep old versions"):
                s3.settle(place.instance(), owner, bucket, actions)


def test_a_key_without_rights_is_named_with_the_right(place: Place) -> None:
    with pytest.raises(Refusal) as refusal:
        s3.pending(place.instance(), place.secrets().object_storage.media)
    assert str(refusal.value).startswith("object_storage.owner in the secrets lacks the right s3:")
    assert place.secrets().object_storage.media.access_key.get_secret_value() not in str(refusal.value)


@pytest.mark.parametrize(
    ("part", "expected"),
    [("access_key", "does not know the access key of object_storage.media"), ("secret_key", "refuses the secret key")],
)
def test_a_wrong_key_is_named(place: Place, part: str, expected: str) -> None:
    keys = place.secret_values()["object_storage"]
    keys["media"] = {**keys["media"], part: "wrong0123456789"}
    (sentence,) = rights(place.instance(), place.secrets(object_storage=keys))
    assert expected in sentence
    assert "wrong0123456789" not in sentence


def granted(bucket: str, user: str, action: str) -> Action:
    """The right policy with one right too many."""
    both = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    extra = {"Effect": "Allow", "Principal": {"AWS": [user]}, "Action": [action], "Resource": both}
    return Action(bucket, "policy", {**policy(BUCKETS[bucket]), "Statement": [*BUCKETS[bucket].statements, extra]}, "")


def without(bucket: str, number: int) -> Action:
    """The right policy without one of its statements."""
    left = [each for at, each in enumerate(BUCKETS[bucket].statements) if at != number]
    return Action(bucket, "policy", {**policy(BUCKETS[bucket]), "Statement": left}, "")


ANYBODY, MEDIA_KEY, BACKUPS_KEY = "Anybody, without a key,", "object_storage.media", "object_storage.backups"
RIGHTS = [
    (listed("media"), {f"{ANYBODY} can list the bucket", f"{BACKUPS_KEY} in the secrets can list the bucket of the"}),
    (listed("backups"), {f"{ANYBODY} can list the bucket", f"{MEDIA_KEY} in the secrets can list the bucket of the"}),
    (without("media", 0), {f"{ANYBODY} may not read an object"}),
    (without("media", 1), {f"{ANYBODY} can read an archive"}),
    (granted("media", USERS["media"], "s3:DeleteObjectVersion"), {f"{MEDIA_KEY} in the secrets can destroy versions"}),
    (granted("media", USERS["media"], "s3:PutBucketPolicy"), {f"{MEDIA_KEY} in the secrets can change the policy"}),
    (granted("media", USERS["backups"], "s3:ListBucket"), {f"{BACKUPS_KEY} in the secrets can list the bucket of the"}),
    (granted("backups", USERS["backups"], "s3:DeleteObjectVersion"), {f"{BACKUPS_KEY} in the secrets can destroy"}),
    (granted("backups", USERS["backups"], "s3:PutLifecycleConfiguration"), {"can change the rules for old versions"}),
    (granted("backups", USERS["media"], "s3:ListBucket"), {f"{MEDIA_KEY} in the secrets can list the bucket of the"}),
    (without("backups", 0), {"may not list the bucket", "may not hide objects"}),
]


@pytest.mark.parametrize(("action", "expected"), RIGHTS)
def test_every_right_too_many_or_too_few_is_found(place: Place, action: Action, expected: set[str]) -> None:
    with broken(place, action):
        found = rights(place.instance(), place.secrets())
    assert {part for part in expected if any(part in sentence for sentence in found)} == expected, found
    assert len(found) == len(expected), found


def test_the_right_rights_are_right_and_the_probes_leave_nothing_behind(place: Place) -> None:
    assert rights(place.instance(), place.secrets()) == []
    with reached(place.instance()):
        owner = place.client("owner")
        assert not [each for each in owner.list_buckets()["Buckets"] if each["Name"].startswith("mfg-probe")]
        for bucket in ("media", "backups"):
            listed = owner.list_object_versions(Bucket=bucket)
            keys = {each["Key"] for kind in ("Versions", "DeleteMarkers") for each in listed.get(kind, [])}
            assert not [key for key in keys if "mfg-probe" in key]
            assert owner.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []


def test_access_lists_of_objects_open_nothing(place: Place) -> None:
    with reached(place.instance()):
        place.client("backups").put_object(Bucket="backups", Key="opened", Body=b"x", ACL="public-read")
        with pytest.raises(ClientError, match="AccessDenied"):
            connect(place.instance(), None, str(place.world.bundle)).get_object(Bucket="backups", Key="opened")


def test_not_even_the_owner_destroys_a_backup(place: Place) -> None:
    with reached(place.instance()):
        owner = place.client("owner")
        version = owner.list_object_versions(Bucket="backups", Prefix="pg/")["Versions"][0]
        with pytest.raises(ClientError, match="AccessDenied"):
            owner.delete_object(Bucket="backups", Key=version["Key"], VersionId=version["VersionId"])
