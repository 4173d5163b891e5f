"""The media host against real S3: it hands out objects, and nothing else of the bucket."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest

from tests.lab.proxy.place import MEDIA, WEB, Place, check_headers

BASE = f"https://{MEDIA}"
KEY, BODY = "media_attachments/files/1/original/picture.png", "not really a picture"
OBJECTS = {KEY: BODY, "backups/dumps/1/archive.tar.gz": "all of a person", "other.txt": "another", ".hidden": "hidden"}
# More than Mastodon's bucket allows: who lists here was not stopped by the storage.
OPEN = [
    {"Effect": "Allow", "Principal": "*", "Action": [action], "Resource": [f"arn:aws:s3:::media{suffix}"]}
    for action, suffix in (("s3:GetObject", "/*"), ("s3:PutObject", "/*"), ("s3:ListBucket", ""))
]


@pytest.fixture(scope="module", autouse=True)
def bucket(place: Place) -> None:
    """A bucket that everybody may read, write and list, and one beside it."""
    with place.storage() as client:
        for name in ("media", "closed"):
            with suppress(client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=name)
        policy = json.dumps({"Version": "2012-10-17", "Statement": OPEN})
        client.put_bucket_policy(Bucket="media", Policy=policy)
        client.put_bucket_policy(Bucket="closed", Policy=policy.replace(":::media", ":::closed"))
        client.put_object(Bucket="closed", Key="secret.txt", Body=b"secret")
        for key, body in OBJECTS.items():
            put(client, key, body)


def put(client: Any, key: str, body: str) -> None:
    """An object as Mastodon writes it."""
    more: Any = {"ContentType": "image/png", "CacheControl": "public, max-age=1", "Metadata": {"owner": "x"}}
    client.put_object(Bucket="media", Key=key, Body=body.encode(), **more)


def test_an_object_is_handed_out_with_our_headers_and_none_of_the_storage_s(place: Place) -> None:
    answer = place.get(f"{BASE}/{KEY}")
    assert (answer.status, answer.body.strip()) == (200, BODY)
    check_headers(answer)
    assert answer.header("content-security-policy").startswith("default-src 'none'")
    assert answer.header("access-control-allow-origin") == "*"
    assert answer.header("content-type") == "image/png"
    assert answer.header("cache-control") == "max-age=2419200"
    assert [name for name in answer.headers if name.startswith(("x-amz", "x-rgw", "set-cookie"))] in (
        [],
        ["x-amz-meta-owner"],
    )


def test_head_and_ranges(place: Place) -> None:
    assert place.get(f"{BASE}/{KEY}", "--head").header("content-length") == str(len(BODY))
    part = place.get(f"{BASE}/{KEY}", "-r", "0-2")
    assert (part.status, part.body.strip()) == (206, BODY[:3])


@pytest.mark.parametrize(
    "path",
    [
        "",
        "?list-type=2",
        "?policy",
        "media_attachments/",
        "media_attachments/?list-type=2&prefix=",
        "%3Flist-type=2",
        "media_attachments/../other.txt",
        "media_attachments/%2e%2e/other.txt",
        "/closed/secret.txt",
        "backups/dumps/1/archive.tar.gz",
        "%62ackups/dumps/1/archive.tar.gz",
        ".hidden",
        "no/such/key",
    ],
)
def test_nothing_but_objects(place: Place, path: str) -> None:
    answer = place.get(f"{BASE}/{path}")
    assert answer.status == 404
    assert "Page not found" in answer.body
    assert "<Error>" not in answer.body
    check_headers(answer)


@pytest.mark.parametrize(
    "path", ["../closed/secret.txt", "%2e%2e/closed/secret.txt", "x/..%2f..%2fclosed/secret.txt", "%zz"]
)
def test_no_way_out_of_the_bucket(place: Place, path: str) -> None:
    answer = place.get(f"{BASE}/{path}")
    assert answer.status == 400
    assert "secret" not in answer.body
    check_headers(answer)


def test_query_strings_are_dropped(place: Place) -> None:
    answer = place.get(f"{BASE}/{KEY}?acl&response-content-type=text/html&versionId=x")
    assert (answer.status, answer.body.strip(), answer.header("content-type")) == (200, BODY, "image/png")


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "OPTIONS", "PATCH"])
def test_readers_only_read(place: Place, method: str) -> None:
    answer = place.get(f"{BASE}/written.txt", "-X", method, "-d", "x")
    assert answer.status == 403
    check_headers(answer)
    assert place.get(f"{BASE}/written.txt").status == 404


def test_what_a_reader_sends_never_reaches_the_storage(place: Place) -> None:
    key = f"{uuid4().hex}.txt"  # nothing of it is in nginx's cache
    with place.storage() as client:
        put(client, key, "fresh")
    forged = ["-H", "Authorization: AWS nobody:bogus", "-H", "Cookie: a=b", "-H", "x-amz-security-token: bogus"]
    straight = place.get(f"{place.world.endpoint}/media/{key}", *forged)
    assert straight.status == 403  # the storage does look at them
    assert place.get(f"{BASE}/{key}", *forged).body.strip() == "fresh"


def test_what_was_read_once_is_there_while_the_storage_is_away(place: Place) -> None:
    assert place.get(f"{BASE}/{KEY}").status == 200
    world = place.lab.machine("world")
    world.ssh("systemctl stop ceph-radosgw@rgw.a")
    try:
        assert place.get(f"{BASE}/{KEY}").body.strip() == BODY
        missing = place.get(f"{BASE}/other.txt")
    finally:
        world.ssh("systemctl start ceph-radosgw@rgw.a")
        ready = "until : < /dev/tcp/127.0.0.1/7480; do sleep 0.2; done 2>/dev/null"
        world.ssh(["timeout", "60", "bash", "-c", ready])
    assert missing.status == 502
    assert "not available" in missing.body
    check_headers(missing)


def test_neither_host_serves_the_other_s_paths(place: Place) -> None:
    assert place.get(f"{BASE}/toy/200").status == 404
    assert place.get(f"https://{WEB}/{KEY}").body.startswith('{"port"')
