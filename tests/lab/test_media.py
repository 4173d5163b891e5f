"""A picture that is uploaded lies in S3: everybody may read it who knows its address, and nobody may do more."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from mastodon_gov.instance.load import load
from mastodon_gov.lab.world.services import S3
from tests.lab.deployed import MEDIA, Deployed
from tests.lab.people import CURL, PICTURE, Browser, upload

# An S3 service does not know POST to an object.
REFUSED = {"PUT": (403,), "DELETE": (403,), "POST": (400, 403, 405, 412)}


@dataclass(frozen=True)
class Picture:
    """Where an uploaded picture lies: its key in the bucket, and its address for readers."""

    key: str
    url: str
    bucket: str

    @property
    def direct(self) -> str:
        """Its address at the storage service itself."""
        return f"https://{S3}/{self.bucket}/{self.key}"


@pytest.fixture(scope="module")
def picture(instance: Deployed, owner: Browser) -> Iterator[Picture]:
    """Uploaded by the owner's telephone, with a token that the owner allowed on a page."""
    token = owner.token(owner.application("read write:media"))
    told = upload(instance, token)
    address = urlsplit(told["url"])
    assert address.netloc == MEDIA
    bucket = load(instance.directory).object_storage.media_bucket
    yield Picture(address.path.lstrip("/"), told["url"], bucket)
    instance.sql(f"DELETE FROM media_attachments WHERE id = {int(told['id'])}")  # noqa: S608 - a number


def _ask(instance: Deployed, url: str, *options: str) -> tuple[int, bytes]:
    """Status and body of a stranger's request; the body travels as base64."""
    words = " ".join([*CURL, "-o", "/root/body", "-w", "'%{http_code}'", *options, f"'{url}'"])
    done = instance.machine("outside").exec(f"rm -f /root/body; {words}; echo; base64 -w0 /root/body", check=False)
    status, _, body = str(done.stdout).partition("\n")
    return int(status or 0), base64.b64decode(body)


def test_a_stranger_sees_the_picture_through_the_media_host_and_at_the_storage(
    instance: Deployed, picture: Picture
) -> None:
    """The same bytes both ways, without any key."""
    assert _ask(instance, picture.url) == (200, PICTURE)
    assert _ask(instance, picture.direct) == (200, PICTURE)


@pytest.mark.parametrize("query", ["", "?list-type=2", "?versions", "?uploads", "?policy", "?acl", "?location"])
def test_nobody_lists_the_bucket_or_reads_its_settings(instance: Deployed, picture: Picture, query: str) -> None:
    """Neither through the media host nor at the storage."""
    through = _ask(instance, f"https://{MEDIA}/{query}")
    direct = _ask(instance, f"https://{S3}/{picture.bucket}{query}")
    assert (through[0], direct[0]) == (404, 403)
    assert picture.key.encode() not in through[1] + direct[1]


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_nobody_writes_or_deletes(instance: Deployed, picture: Picture, method: str) -> None:
    """Not a new object, and not this one; the picture stays what it was."""
    for host in (f"https://{MEDIA}", f"https://{S3}/{picture.bucket}"):
        for key in (picture.key, "media_attachments/own.png"):
            body = [] if method == "DELETE" else ["--data-binary", "own"]
            status, said = _ask(instance, f"{host}/{key}", "-X", method, *body)
            assert status in REFUSED[method], (host, key, said)
    assert _ask(instance, picture.direct) == (200, PICTURE)
    assert _ask(instance, f"https://{S3}/{picture.bucket}/media_attachments/own.png")[0] in (403, 404)


def test_the_closed_bucket_shows_nothing(instance: Deployed) -> None:
    """The backups lie in the same storage."""
    bucket = load(instance.directory).object_storage.backup_bucket
    assert _ask(instance, f"https://{S3}/{bucket}/?list-type=2")[0] == 403
    assert _ask(instance, f"https://{MEDIA}/../{bucket}/", "--path-as-is")[0] in (400, 404)
