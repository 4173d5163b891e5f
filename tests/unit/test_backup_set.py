"""The backup set: what the host writes, the control node reads, and who can open what."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pyrage
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from mastodon_gov.backups import configuration, manifest
from mastodon_gov.backups.envelope import fingerprint, page, sheet
from mastodon_gov.backups.repository_file import decrypted, labels
from mastodon_gov.errors import Refusal
from roles.backups.files import backup_bucket, backup_manifest
from tests.unit.storage_sample import CIPHER, WRITER, instance, secret_values, secrets

LABEL = "20261121-023000F"


def written(**changes: object) -> manifest.Manifest:
    """A manifest as the host makes it, of the sample's secrets."""
    values = {f"mastodon.{name}": "x" for name in secret_values()["mastodon"]} | {"backups.cipher_pass": CIPHER}
    made = backup_manifest.fingerprints(LABEL, values, CIPHER)
    bare = {"label": LABEL, "fingerprints": made, "observed": {"at": 100}, **changes}
    return json.loads(json.dumps(backup_manifest.sealed(bare, CIPHER)))  # type: ignore[no-any-return]


def test_control_node_and_host_agree_on_seal_and_fingerprints() -> None:
    assert manifest.is_sealed(written(), CIPHER)
    assert manifest.differing(written(), secrets()) == []


def test_another_secret_is_named_and_not_shown() -> None:
    other = {**secret_values()["mastodon"], "secret_key_base": "y"}
    assert manifest.differing(written(), secrets(mastodon=other)) == ["mastodon.secret_key_base"]


@pytest.mark.parametrize("change", [{"label": "20261122-023000F"}, {"observed": {"at": 101}}, {"new": 1}])
def test_a_manifest_that_was_changed_is_not_sealed(change: dict[str, object]) -> None:
    assert not manifest.is_sealed({**written(), **change}, CIPHER)
    assert not manifest.is_sealed(written(), "another")


def test_fingerprints_do_not_show_that_a_secret_stayed_the_same() -> None:
    one = backup_manifest.fingerprints(LABEL, {"a": "x"}, CIPHER)
    assert one != backup_manifest.fingerprints("20261122-023000F", {"a": "x"}, CIPHER)
    assert one != backup_manifest.fingerprints(LABEL, {"a": "x"}, "another")


def test_the_manifest_for_a_time_is_the_newest_before_it() -> None:
    listed = [written(observed={"at": at}) for at in (100, 200, 300)]
    assert manifest.applying(listed, 250)["observed"]["at"] == 200
    with pytest.raises(Refusal, match="or an earlier one"):
        manifest.applying(listed, 99)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An instance directory with what must and must not be kept."""
    identity = pyrage.x25519.Identity.generate()
    (tmp_path / "recipients.txt").write_text(f"# one\n{identity.to_public()}\n")
    (tmp_path / "identity.txt").write_text(f"{identity}\n")
    (tmp_path / "instance.yaml").write_text("format: 1\n")
    (tmp_path / "ca").mkdir()
    (tmp_path / "ca/root.pem").write_text("PEM\n")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/config").write_text("x")
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit/report.json").write_text("{}")
    (tmp_path / "large").write_bytes(b"x" * (configuration.LARGEST + 1))
    return tmp_path


def test_the_configuration_holds_the_directory_and_no_identity(directory: Path) -> None:
    identity = pyrage.x25519.Identity.from_str((directory / "identity.txt").read_text().strip())
    packed = configuration.packed(directory)
    assert b"format: 1" not in packed
    found = configuration.unpacked(packed, [identity])
    assert sorted(found) == ["ca/root.pem", "instance.yaml", "recipients.txt"]
    assert found["ca/root.pem"] == b"PEM\n"


def test_a_stranger_s_identity_opens_no_configuration(directory: Path) -> None:
    with pytest.raises(Refusal, match=r"cannot be decrypted with this age identity"):
        configuration.unpacked(configuration.packed(directory), [pyrage.x25519.Identity.generate()])


def test_the_digest_follows_names_and_contents(directory: Path) -> None:
    before = configuration.digest(directory, CIPHER)
    (directory / "audit/report.json").write_text("[]")
    assert configuration.digest(directory, CIPHER) == before
    assert configuration.digest(directory, "another") != before
    (directory / "ca/root.pem").rename(directory / "ca/other.pem")
    moved = configuration.digest(directory, CIPHER)
    (directory / "instance.yaml").write_text("format: 2\n")
    assert len({before, moved, configuration.digest(directory, CIPHER)}) == 3


def test_requests_are_signed_as_boto_signs_them() -> None:
    conf = {
        "repo1-s3-endpoint": "s3.world.test",
        "repo1-storage-port": "8443",
        "repo1-s3-region": "eu-west-1",
        "repo1-s3-key": "AKIDEXAMPLE",
        "repo1-s3-key-secret": WRITER,
    }
    target, body = "/backups/manifests/a_b.json?list-type=2&prefix=a%2F", b'{"a": 1}'
    ours = backup_bucket.signed(conf, "PUT", target, body, 1795228200.0)
    given = {name: value for name, value in ours.items() if name != "authorization"}
    request = AWSRequest("PUT", f"https://s3.world.test:8443{target}", data=body, headers=given)
    request.context.update(timestamp=ours["x-amz-date"], payload_signing_enabled=True)
    boto = S3SigV4Auth(Credentials("AKIDEXAMPLE", WRITER), "s3", "eu-west-1")
    signature = boto.signature(boto.string_to_sign(request, boto.canonical_request(request)), request)
    assert ours["authorization"].endswith(f"Signature={signature}")


INFO = '[backrest]\nbackrest-version="2"\n\n[backup:current]\n20261121-023000F={"a":1}\n20261120-023000F={"a":1}\n'


def openssl(text: str) -> bytes:
    """Encrypted as pgBackRest does, by OpenSSL."""
    words = ["openssl", "enc", "-aes-256-cbc", "-md", "sha1", "-salt", "-pass", f"pass:{CIPHER}"]
    return subprocess.run(words, input=text.encode(), capture_output=True, check=True).stdout


def test_a_file_of_the_repository_opens_with_its_cipher_pass_alone() -> None:
    assert decrypted(openssl(INFO), CIPHER).decode() == INFO
    assert labels(openssl(INFO + '\n[backrest]\nbackrest-checksum="1"\n'), CIPHER) == [
        "20261120-023000F",
        "20261121-023000F",
    ]
    for content, key in ((openssl(INFO), "another"), (b"junk", CIPHER), (openssl(INFO)[:-1], CIPHER)):
        with pytest.raises(ValueError, match=r"."):
            labels(content, key)


@pytest.mark.parametrize("kind", ["txt", "html"])
def test_the_page_names_people_and_places_and_no_secret(kind: str) -> None:
    people = [("Jane & John", "age1qsfypkt4uv7vv7fyd323u9trgugy8lqgzflk2uwjnc0canrtcaxql0yfmm")]
    text = page(instance(), people, kind)
    for part in (people[0][1], fingerprint(people[0][1]), "backups", "https://s3.world.test:8443"):
        assert part in text
    assert ("Jane &amp; John" in text) == (kind == "html")
    for secret in (CIPHER, WRITER):
        assert secret not in text
        assert secret in sheet(instance(), secrets())
