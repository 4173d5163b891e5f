"""Buckets: what is wanted, what differs, what is refused; no network."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from mastodon_gov.errors import Refusal
from mastodon_gov.storage.buckets import pending
from mastodon_gov.storage.client import sentences
from mastodon_gov.storage.rights import Probe, _run, rights
from mastodon_gov.storage.settings import (
    ACCESS_BLOCK,
    Found,
    Wanted,
    difference,
    lifecycle,
    policy,
    statements,
    wanted,
)
from tests.unit.storage_sample import OWNER_KEY, certificate, instance, secrets

MEDIA, BACKUP = wanted(instance())


def settled(bucket: Wanted) -> Found:
    """A bucket that has everything."""
    return Found(
        exists=True,
        lock_enabled=bucket.lock_days is not None,
        lock_mode="COMPLIANCE" if bucket.lock_days else "",
        lock_days=bucket.lock_days or 0,
        versioning="Enabled",
        lifecycle=(lifecycle(bucket),),
        access_block=dict(ACCESS_BLOCK),
        policy=policy(bucket),
    )


def changed(bucket: Wanted, **found: Any) -> list[str]:
    """Names of the settings that a deploy would change."""
    return [action.setting for action in difference(bucket, replace(settled(bucket), **found))]


@pytest.mark.parametrize("bucket", [MEDIA, BACKUP], ids=lambda bucket: bucket.role)
def test_a_settled_bucket_needs_nothing(bucket: Wanted) -> None:
    assert difference(bucket, settled(bucket)) == []


def test_new_buckets_get_rights_last() -> None:
    assert [a.setting for a in difference(MEDIA, Found())] == [
        "create",
        "versioning",
        "lifecycle",
        "access_block",
        "policy",
    ]
    new = difference(BACKUP, Found())
    assert [a.setting for a in new] == ["create", "lock", "lifecycle", "access_block", "policy"]
    assert new[0].value is True  # made with object lock: it cannot be added later


FOREIGN = {"Effect": "Allow", "Principal": "*", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::backups"}


@pytest.mark.parametrize(
    ("found", "setting"),
    [
        ({"versioning": "Suspended"}, "versioning"),
        ({"lifecycle": ()}, "lifecycle"),
        ({"lifecycle": ({**lifecycle(BACKUP), "Status": "Disabled"},)}, "lifecycle"),
        ({"lifecycle": ({**lifecycle(BACKUP), "Filter": {"Prefix": "cache/"}},)}, "lifecycle"),
        ({"lifecycle": ({**lifecycle(BACKUP), "Expiration": {"Days": 3}},)}, "lifecycle"),
        ({"lifecycle": (lifecycle(BACKUP), {"ID": "x", "Status": "Enabled", "Expiration": {"Days": 1}})}, "lifecycle"),
        ({"access_block": {}}, "access_block"),
        ({"access_block": {**ACCESS_BLOCK, "IgnorePublicAcls": False}}, "access_block"),
        ({"policy": {}}, "policy"),
        ({"policy": {"Statement": [*policy(BACKUP)["Statement"], FOREIGN]}}, "policy"),
        ({"policy": {"Statement": policy(BACKUP)["Statement"][:1]}}, "policy"),
        ({"lock_mode": "GOVERNANCE"}, "lock"),
        ({"lock_mode": "GOVERNANCE", "lock_days": 400}, "lock"),
        ({"lock_mode": "", "lock_days": 0}, "lock"),
        ({"lock_days": 13}, "lock"),
    ],
)
def test_each_drift_is_one_change(found: dict[str, Any], setting: str) -> None:
    assert changed(BACKUP, **found) == [setting]


def test_a_service_without_access_block_is_left_alone() -> None:
    assert changed(MEDIA, access_block=None) == []


def test_services_may_spell_the_same_in_their_own_way() -> None:
    rule = {key: value for key, value in lifecycle(MEDIA).items() if key != "Filter"}
    rule |= {"Prefix": "", "ID": "abc", "Expiration": {"ExpiredObjectDeleteMarker": True, "Days": 0}}
    respelled = [
        {**each, "Sid": f"s{number}", "Action": list(reversed(each["Action"])), "Resource": each["Resource"][0]}
        for number, each in enumerate(reversed(policy(MEDIA)["Statement"]))
    ]
    for each in respelled:
        if each.get("Principal") == "*":
            each["Principal"] = {"AWS": ["*"]}
    document = json.loads(json.dumps({"Version": "2012-10-17", "Statement": respelled}))
    assert changed(MEDIA, lifecycle=(rule,), policy=document) == []


def test_a_condition_or_a_wider_principal_is_another_policy() -> None:
    mine = policy(BACKUP)
    narrowed = [{**each, "Condition": {"Bool": {"aws:SecureTransport": "false"}}} for each in mine["Statement"]]
    widened = [{**each, "Principal": "*"} for each in mine["Statement"]]
    assert statements({"Statement": narrowed}) != statements(mine)
    assert statements({"Statement": widened}) != statements(mine)


def test_a_lock_is_never_weakened() -> None:
    with pytest.raises(Refusal, match=r"backup_lock_days is 14, but bucket backups locks objects for 30 days"):
        changed(BACKUP, lock_days=30)


def test_a_bucket_without_lock_is_refused() -> None:
    with pytest.raises(Refusal, match=r"Bucket backups .* made without object lock, which cannot be added later"):
        changed(BACKUP, lock_enabled=False, lock_mode="", lock_days=0)


def test_old_versions_outlive_their_lock_and_then_go() -> None:
    assert BACKUP.lock_days == 14
    assert BACKUP.noncurrent_days == 15


def allowed(bucket: Wanted, who: str) -> set[str]:
    """Actions that a policy gives to these people."""
    return {
        action
        for each in bucket.statements
        if each["Effect"] == "Allow" and json.dumps(each["Principal"]).find(who) > 0
        for action in each["Action"]
    }


def test_the_world_reads_objects_of_media_and_nothing_else() -> None:
    assert allowed(MEDIA, "*") == {"s3:GetObject"}
    assert allowed(BACKUP, "*") == set()
    denied = [each for each in MEDIA.statements if each["Effect"] == "Deny"]
    assert [each["Resource"] for each in denied] == [["arn:aws:s3:::media/backups/*"]]


def test_no_key_on_a_host_can_destroy_or_change_rules() -> None:
    for bucket in (MEDIA, BACKUP):
        given = allowed(bucket, "user/")
        assert given
        assert not {a for a in given if "DeleteObjectVersion" in a or ("Bucket" in a and a.startswith("s3:Put"))}
        assert not {a for a in given if "*" in a or "Lifecycle" in a or "Retention" in a or "Policy" in a}


@pytest.fixture
def deaf() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def refused(endpoint: str, *trusted: str) -> tuple[str, float]:
    at = instance(trusted_ca=trusted)
    # An address is no valid endpoint; here it saves a name server.
    at = at.model_copy(update={"object_storage": at.object_storage.model_copy(update={"endpoint": endpoint})})
    begun = time.monotonic()
    with pytest.raises(Refusal) as refusal:
        pending(at, secrets().object_storage.owner)
    return str(refusal.value), time.monotonic() - begun


def test_a_service_that_refuses_connections_is_a_sentence() -> None:
    sentence, seconds = refused("https://127.0.0.1:9")
    assert sentence.startswith("https://127.0.0.1:9 (object_storage.endpoint) does not answer")
    assert seconds < 15
    assert OWNER_KEY not in sentence


def test_a_service_that_says_nothing_is_a_sentence_in_time(deaf: int) -> None:
    sentence, seconds = refused(f"https://127.0.0.1:{deaf}")
    assert "does not answer" in sentence
    assert seconds < 15


def test_a_service_that_never_answers_a_request_is_a_sentence_in_time(tmp_path: Path) -> None:
    chain, trusted = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    with context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True) as server:
        kept: list[ssl.SSLSocket] = []
        threading.Thread(target=lambda: kept.append(server.accept()[0]), daemon=True).start()
        sentence, seconds = refused(f"https://127.0.0.1:{server.getsockname()[1]}", trusted)
    assert kept  # TLS was spoken
    assert "does not answer" in sentence
    assert 5 < seconds < 15


def test_a_certificate_that_nobody_trusts_is_a_sentence(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(tmp_path)[0])

    def shake() -> None:
        with contextlib.suppress(OSError):
            server.accept()

    with context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True) as server:
        threading.Thread(target=shake, daemon=True).start()
        sentence, _ = refused(f"https://127.0.0.1:{server.getsockname()[1]}")
    assert "its certificate is not trusted" in sentence


@pytest.mark.parametrize(
    ("code", "operation", "expected"),
    [
        ("AccessDenied", "PutBucketPolicy", "object_storage.owner in the secrets lacks the right s3:PutBucketPolicy"),
        ("AccessDenied", "GetObjectLockConfiguration", "s3:GetBucketObjectLockConfiguration on bucket media"),
        ("403", "HeadBucket", "lacks the right s3:ListBucket"),
        ("InvalidAccessKeyId", "CreateBucket", "does not know the access key of object_storage.owner"),
        ("SignatureDoesNotMatch", "CreateBucket", "refuses the secret key of object_storage.owner"),
        ("RequestTimeTooSkewed", "CreateBucket", "clock"),
        ("BucketAlreadyExists", "CreateBucket", "Bucket media belongs to somebody else"),
        ("TooManyBuckets", "CreateBucket", "refused CreateBucket on bucket media: TooManyBuckets"),
    ],
)
def test_errors_of_the_service_are_sentences(code: str, operation: str, expected: str) -> None:
    with pytest.raises(Refusal, match=r"\.$") as refusal, sentences(instance(), "owner", "media"):
        raise ClientError({"Error": {"Code": code, "Message": "because"}}, operation)
    assert expected in str(refusal.value)


def denied() -> None:
    raise ClientError({"Error": {"Code": "AccessDenied"}}, "GetObject")


def missing() -> None:
    raise ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")


@pytest.mark.parametrize(
    ("may", "attempt", "said"),
    [
        (True, denied, "may not read in bucket b, and must be able to (answer: AccessDenied)"),
        (False, missing, "can read in bucket b, and must not (answer: NoSuchKey)"),
        (True, missing, None),
        (False, denied, None),
    ],
)
def test_a_right_is_judged_by_denial_alone(may: bool, attempt: Any, said: str | None) -> None:
    found = _run("b", [Probe("media", may, "read", attempt)])
    assert [said in sentence for sentence in found if said] == ([True] if said else [])
    assert bool(found) == bool(said)


class Service:
    """Answers of a service to each key, by bucket; without one the request is granted. It remembers what it made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: str | dict[str, str]) -> None:
        self.answers, self.made = answers, list[str]()
        names = {"owner-access": "owner", "media-access": "media", "backups-access": "backups"}

        def client(_: object, key: Any, __: object) -> SimpleNamespace:
            who = names[key.access_key.get_secret_value()] if key else "anonymous"
            return SimpleNamespace(
                list_objects_v2=partial(self._list, who),
                create_bucket=lambda **named: self.made.append(named["Bucket"]),
                delete_bucket=lambda **named: self.made.append(named["Bucket"]),
            )

        monkeypatch.setattr("mastodon_gov.storage.rights.connect", client)
        for part in ("_media", "_backups"):
            monkeypatch.setattr(f"mastodon_gov.storage.rights.{part}", lambda _: [])

    def _list(self, who: str, Bucket: str, **_: object) -> None:
        told = self.answers.get(who, "NoSuchBucket")
        if what := told if isinstance(told, str) else told[Bucket]:
            raise ClientError({"Error": {"Code": what}}, "ListObjectsV2")


UNKNOWN, UNPROVED = "InvalidAccessKeyId", "SignatureDoesNotMatch"


@pytest.mark.parametrize("wrong", [{"media": UNKNOWN}, {"backups": UNPROVED}, {"media": UNPROVED, "backups": UNKNOWN}])
def test_a_key_that_the_service_does_not_know_is_named_before_there_is_a_bucket(
    monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str]
) -> None:
    service = Service(monkeypatch, **wrong)
    found = rights(instance(), secrets())
    assert ["does not know the access key" in sentence for sentence in found] == [w == UNKNOWN for w in wrong.values()]
    assert all(f"object_storage.{name} " in sentence for name, sentence in zip(wrong, found, strict=True))
    assert service.made == []


def test_known_keys_without_buckets_are_good_and_one_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(monkeypatch)
    assert rights(instance(), secrets()) == []
    assert len(service.made) == 2
    assert len(set(service.made)) == 1


def test_a_key_may_be_denied_where_the_owner_s_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"media": "", "backups": ""}
    Service(monkeypatch, owner=there, media=there | {"backups": "AccessDenied"}, backups="AccessDenied")
    assert rights(instance(), secrets()) == []
    Service(monkeypatch, owner="AccessDenied", media=there, backups=there)
    assert all("object_storage.owner in the secrets lacks the right" in each for each in rights(instance(), secrets()))
