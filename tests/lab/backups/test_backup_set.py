"""The set in the bucket: whole, sealed, readable with what the envelope holds; and the way out to another operator."""

from __future__ import annotations

import json
import tarfile
from base64 import b64encode
from io import BytesIO
from pathlib import Path

import pyrage

from mastodon_gov.backups.manifest import differing, read_manifests
from mastodon_gov.secrets.age import new_identity
from tests.lab.backups.place import BUCKET, backup, bucket, known, put, status
from tests.lab.deployed import Deployed, wait_for

READABLE = "/var/lib/mastodon-gov/backup-status.json"


def test_every_backup_has_a_manifest_that_says_what_the_database_says(instance: Deployed) -> None:
    at, values = known(instance)
    backup(instance)
    manifests = read_manifests(at, values)
    newest = manifests[-1]
    assert len(manifests) == status(instance)["backups"]
    assert newest["label"] == status(instance)["label"]
    assert differing(newest, values) == []
    assert newest["domain"] == {"handle": at.domain.handle, "web": at.domain.web}
    assert newest["release"]["name"] == instance.root("readlink -f /opt/mastodon/current").strip().rpartition("/")[2]
    assert newest["schema"] == instance.sql("select max(version) from schema_migrations").strip()
    assert newest["observed"]["max_ids"]["users"] <= int(instance.sql("select max(id) from users"))
    assert newest["observed"]["counts"]["users"] >= 1
    assert newest["system_id"] == instance.sql("select system_identifier from pg_control_system()").strip()


def test_the_newest_manifest_leads_to_the_configuration(instance: Deployed) -> None:
    at, values = known(instance)
    key = read_manifests(at, values)[-1]["configuration"]
    with bucket(instance) as client:
        body = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    identity = next(line for line in (instance.directory / "identity.txt").read_text().splitlines() if "SECRET" in line)
    text = pyrage.decrypt(body, [pyrage.x25519.Identity.from_str(identity)])
    with tarfile.open(fileobj=BytesIO(text)) as tar:
        files = {entry.name: entry for entry in tar}
        assert {"instance.yaml", "organisations.yaml", "inventory.py", "secrets.age", "recipients.txt"} <= set(files)
        assert "identity.txt" not in files
        kept = tar.extractfile("instance.yaml")
        assert kept
        assert kept.read() == (instance.directory / "instance.yaml").read_bytes()


def test_the_writer_cannot_make_a_manifest_that_counts(instance: Deployed) -> None:
    at, values = known(instance)
    before = read_manifests(at, values)
    forged = {**before[-1], "label": "20991231-000000F", "stop": 4_000_000_000}
    with bucket(instance) as client:
        put(client, "manifests/20991231-000000F.json", json.dumps(forged).encode())
    try:
        assert read_manifests(at, values) == before
    finally:
        with bucket(instance) as client:
            client.delete_object(Bucket=BUCKET, Key="manifests/20991231-000000F.json")


def test_the_heartbeat_arrives_in_the_repository(instance: Deployed) -> None:
    beat = wait_for(lambda: (status(instance)["wal"] or {}).get("heartbeat"), 150, "a heartbeat")
    assert beat["written_age"] < 75
    wait_for(lambda: (status(instance)["wal"]["heartbeat"]["repository_age"] or 999) < 240, 200, "a heartbeat outside")


def test_monitoring_reads_a_file_without_rights_and_without_secrets(instance: Deployed) -> None:
    instance.root("systemctl start mfg-backup-status.service")
    text = instance.root(f"runuser -u nobody -- cat {READABLE}")
    assert json.loads(text)["label"] == status(instance)["label"]
    values = known(instance)[1]
    for secret in (values.backups.cipher_pass, values.object_storage.backups.secret_key):
        assert secret.get_secret_value() not in text


def test_the_envelope_is_proved_and_a_wrong_one_is_refused(instance: Deployed, tmp_path: Path) -> None:
    done = instance.cli("escrow", "check", str(instance.directory / "identity.txt"))
    assert done.stdout.count("ok  ") == 4
    told = json.loads(instance.cli("audit", "--json", "--control", "MFG-BAK-04", "--as-auditor").stdout)
    assert "the same" in told["controls"][0]["checks"][0]["observed"]
    new_identity(tmp_path / "stranger.txt")
    done = instance.cli("escrow", "check", str(tmp_path / "stranger.txt"), check=False)
    assert done.returncode == 1
    assert "cannot be decrypted with this age identity" in done.stderr
    sheet = tmp_path / "sheet.txt"
    page = instance.cli("escrow", "--secrets-to", str(sheet)).stdout
    cipher_pass = known(instance)[1].backups.cipher_pass.get_secret_value()
    assert cipher_pass in sheet.read_text()
    assert cipher_pass not in page
    assert sheet.stat().st_mode & 0o077 == 0
    assert "found no terminal" in instance.cli("escrow", "--secrets-to", "-", check=False).stderr


def test_an_export_becomes_a_database_elsewhere(instance: Deployed, tmp_path: Path) -> None:
    """As the other operator restores it: no role of ours, no lock, every row."""
    public = new_identity(tmp_path / "other.txt")
    instance.cli("export", str(tmp_path / "out"), "--to", public)
    told = json.loads((tmp_path / "out/export.json").read_text())
    for name in ("database.dump", "database.list"):
        content = (tmp_path / "out" / name).read_bytes()
        instance.machine().exec(["sh", "-c", f"base64 -d > /tmp/{name}"], stdin=b64encode(content).decode())
    restore = "pg_restore --no-owner --no-privileges --exit-on-error -L /tmp/database.list -d other /tmp/database.dump"
    try:
        made = f'createdb other && psql -qd other -c "drop schema public" && {restore}'
        instance.root(f"cd /tmp && runuser -u postgres -- sh -c '{made}'")
        count = "runuser -u postgres -- psql -XAtqd other -c 'select count(*) from users'"
        assert int(instance.root(count)) == told["observed"]["counts"]["users"]
    finally:
        instance.root("rm -f /tmp/database.*; runuser -u postgres -- dropdb --if-exists other")
    identity = pyrage.x25519.Identity.from_str((tmp_path / "other.txt").read_text().split()[-1])
    secrets = pyrage.decrypt((tmp_path / "out/secrets.env.age").read_bytes(), [identity]).decode()
    assert known(instance)[1].mastodon.secret_key_base.get_secret_value() in secrets
    again = instance.cli("export", str(tmp_path / "out"), check=False)
    assert "an export replaces nothing" in again.stderr
