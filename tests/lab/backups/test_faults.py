"""Bad days of the backups: each is named by a sentence within its time, nothing acknowledged is lost, and it heals."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mastodon_gov.backups.manifest import read_manifests
from tests.lab.backups.place import (
    BUCKET,
    PGBACKREST,
    backup,
    bucket,
    flipped,
    known,
    largest,
    put,
    said,
    set_secret,
    settled,
    status,
    unreachable,
)
from tests.lab.deployed import Deployed, wait_for
from tests.lab.edits import edited


@pytest.fixture(autouse=True)
def _whole(instance: Deployed) -> Iterator[None]:
    """Begin and end with backups in order."""
    settled(instance)
    yield
    settled(instance)


def psql(at: Deployed, sql: str) -> str:
    """SQL in the database postgres, which Mastodon does not know."""
    return at.root("runuser -u postgres -- psql -XqAt -v ON_ERROR_STOP=1 -d postgres -f - 2>&1", stdin=sql)


def rows(at: Deployed) -> None:
    """Commit ten rows that must not be lost, and close the WAL segment they are in."""
    psql(
        at,
        "create table if not exists mfg.probe (id serial primary key);"
        "insert into mfg.probe select from generate_series(1, 10); select from pg_switch_wal();",
    )


def count(at: Deployed) -> int:
    """Rows that are there."""
    return int(psql(at, "select count(*) from mfg.probe"))


@pytest.fixture(autouse=True)
def _no_probe(instance: Deployed) -> Iterator[None]:
    yield
    psql(instance, "drop table if exists mfg.probe")


def test_a_killed_backup_is_made_up_for(instance: Deployed) -> None:
    """Killed in the middle, and before its manifest: the next one converges, and no label is without a manifest."""
    instance.root("systemctl start --no-block mfg-backup.service")
    log = "journalctl -u mfg-backup.service --since=-20s -o cat | grep -c 'backup start archive' || true"
    wait_for(lambda: int(instance.root(log)), 60, "a backup at work")
    instance.root("systemctl kill --signal=KILL mfg-backup.service")
    wait_for(lambda: "failed" in instance.root("systemctl is-failed mfg-backup.service || true"), 30, "its end")
    instance.root("systemctl reset-failed")
    backup(instance)
    at, values = known(instance)
    labels = {manifest["label"] for manifest in read_manifests(at, values)}
    with bucket(instance) as client:
        client.delete_object(Bucket=BUCKET, Key=f"manifests/{status(instance)['label']}.json")
    instance.root("systemctl start mfg-backup-manifest.service")
    assert {manifest["label"] for manifest in read_manifests(at, values)} == labels
    assert instance.root(f"{PGBACKREST} --output=text --verbose verify").count("status: valid") == len(labels)


@pytest.mark.long
def test_a_black_hole_is_named_and_drains(instance: Deployed) -> None:
    with unreachable(instance):
        for _ in range(14):
            rows(instance)
        wait_for(lambda: said(instance, "WAL files wait for the backup store"), 120, "the alarm")
        assert said(instance, "The backup repository is not in order: no answer within 25 s")
    assert count(instance) == 140
    wait_for(lambda: status(instance)["archiver"]["ready"] == 0, 300, "drained")
    assert status(instance)["dropped_wal"] == []


def test_a_clock_jump_injected_as_a_heartbeat_of_the_future_is_named(instance: Deployed) -> None:
    """A lab machine cannot set its clock, so what a wrong clock would have written is put there. Monitoring and the
    audit must not take it for fresh."""
    psql(instance, "insert into mfg.heartbeat values (now() + interval '59 minutes', pg_current_wal_insert_lsn())")
    try:
        assert said(instance, "Times lie in the future: the last heartbeat 35")
        assert failed(instance, "MFG-BAK-01") == ["test_the_host_sees_nothing_wrong"]
    finally:
        psql(instance, "delete from mfg.heartbeat where at > now()")


def test_a_lock_that_the_owner_s_key_weakened_is_seen_without_that_key(instance: Deployed) -> None:
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    with bucket(instance, "owner") as owner:
        lock = {"ObjectLockEnabled": "Enabled", "Rule": rule}
        owner.put_object_lock_configuration(Bucket=BUCKET, ObjectLockConfiguration=lock)
    try:
        assert said(instance, "the bucket's lock is 1 days GOVERNANCE, wanted 1 days COMPLIANCE")
        assert failed(instance, "MFG-BAK-02") == ["test_nobody_can_remove_them"]
    finally:
        instance.deploy()
    assert status(instance)["lock"] == {"mode": "COMPLIANCE", "days": 1}
    assert failed(instance, "MFG-BAK-02") == []


def failed(at: Deployed, control: str) -> list[str]:
    """Checks of a control that the auditor sees fail."""
    told = json.loads(at.cli("audit", "--json", "--as-auditor", "--control", control, check=False).stdout)
    (seen,) = told["controls"]
    assert seen["state"] == ("failed" if any(each["state"] == "failed" for each in seen["checks"]) else "passed")
    return [each["name"].split("[")[0] for each in seen["checks"] if each["state"] == "failed"]


@contextmanager
def other_lines(at: Deployed, path: str, script: str) -> Iterator[None]:
    """Change a file on the host with sed, and put it back as it was."""
    at.root(f"cp -p {path} {path}.kept && sed -i {script} {path}")
    try:
        yield
    finally:
        at.root(f"mv {path}.kept {path}")


@pytest.mark.long
def test_wal_that_was_thrown_away_is_named_and_the_next_backup_closes_the_hole(instance: Deployed) -> None:
    """Longer away than the queue holds: PostgreSQL believes that all is archived, only our monitor does not."""
    small = "'s/^archive-push-queue-max=.*/archive-push-queue-max=48MiB/'"
    with other_lines(instance, "/etc/pgbackrest.conf", small):
        with unreachable(instance):
            for _ in range(8):
                rows(instance)
        # It is thrown away when the store is back: only a new archiver process looks at the queue.
        wait_for(lambda: status(instance)["dropped_wal"], 420, "dropped WAL")
    wait_for(lambda: status(instance)["archiver"]["ready"] == 0, 300, "drained")
    rows(instance)
    wait_for(lambda: said(instance, "WAL files were thrown away since the last backup"), 60, "the sentence")
    wait_for(lambda: (status(instance)["wal"] or {}).get("holes"), 60, "the hole itself")
    backup(instance)
    assert status(instance)["wal"]["holes"] == 0
    assert count(instance) == 90
    # Nobody can restore a moment in the hole, until nothing is left that leads into it.
    verify = instance.machine().exec(["systemctl", "start", "mfg-backup-verify.service"], check=False)
    assert verify.returncode != 0
    assert said(instance, "WAL files are missing between the oldest and the newest backup")
    instance.root("systemctl reset-failed; systemctl start mfg-backup-verify.service")  # mailed once
    backup(instance, "")
    instance.root(f"{PGBACKREST} --repo1-retention-full=1 expire && systemctl start mfg-backup-verify.service")


@pytest.mark.long
def test_a_flipped_byte_is_found(instance: Deployed) -> None:
    backup(instance, "")
    label = status(instance)["label"]
    with bucket(instance) as client:
        key = largest(client, label)
        good = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        put(client, key, flipped(good))
    try:
        done = instance.machine().exec(["systemctl", "start", "mfg-backup-verify.service"], check=False)
        assert done.returncode != 0
        assert said(instance, "The backups do not verify: ")
        assert status(instance)["repository"]["code"] == 0  # pgBackRest's own `info` sees nothing
    finally:
        with bucket(instance) as client:
            put(client, key, good)
        instance.root("systemctl start mfg-backup-verify.service")


@pytest.mark.long
def test_backups_that_have_gone_are_not_begun_anew(instance: Deployed) -> None:
    """A stolen key hides everything. A deploy must not write over the ruins, and the host must say what happened."""
    with bucket(instance) as client:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="pg/")
        keys = [each["Key"] for page in pages for each in page["Contents"]]
        markers = [(key, client.delete_object(Bucket=BUCKET, Key=key)["VersionId"]) for key in keys]
    try:
        assert said(instance, "The backups have gone: this host made ")
        done = instance.cli("deploy", check=False)
        assert done.returncode == 1
        assert "The backups have gone from bucket social-backups" in done.stderr
        verify = instance.machine().exec(["systemctl", "start", "mfg-backup-verify.service"], check=False)
        assert verify.returncode != 0
    finally:
        with bucket(instance, "owner") as owner:
            for key, marker in markers:
                owner.delete_object(Bucket=BUCKET, Key=key, VersionId=marker)
        instance.root("systemctl start mfg-backup-verify.service")


@pytest.mark.long
def test_a_rotated_key_is_named_and_a_deploy_brings_the_new_one(instance: Deployed) -> None:
    """The S3 service forgets the host's key. Commits go on, and with the new key everything arrives."""
    world, admin = instance.machine("world"), "radosgw-admin --uid=backups"
    old = known(instance)[1].object_storage.backups
    made = world.exec(["sh", "-c", f"{admin} key create --key-type=s3 --gen-access-key --gen-secret"]).stdout
    gone = old.access_key.get_secret_value()
    new = next(key for key in json.loads(made)["keys"] if key["access_key"] != gone)
    world.exec(["sh", "-c", f"{admin} key rm --key-type=s3 --access-key={gone}"])
    rows(instance)
    assert said(instance, "The backup repository is not in order: ")
    told = instance.cli("deploy", check=False)
    assert told.returncode == 1
    assert "(InvalidAccessKeyId). Check object_storage, the key object_storage.backups in the secrets" in told.stderr
    for part in ("access_key", "secret_key"):
        set_secret(instance, f"object_storage.backups.{part}", new[part])
    instance.deploy()
    wait_for(lambda: status(instance)["archiver"]["ready"] == 0, 120, "drained")
    assert count(instance) == 10


@pytest.mark.long
def test_a_full_disk_of_the_wal_is_named_before_it_stops_postgresql(instance: Deployed) -> None:
    """pg_wal on a small disk, the store away: the alarm comes first; with more room PostgreSQL starts by itself and
    every acknowledged row is there."""
    wal = "/var/lib/postgresql/17/main/pg_wal"
    instance.root(
        f"systemctl stop postgresql@17-main && mv {wal} {wal}.kept && mkdir {wal} && "
        f"size=$(( $(du -sm {wal}.kept | cut -f1) + 400 )) && "
        f"mount -t tmpfs -o size=${{size}}m,mode=700,uid=postgres,gid=postgres tmpfs {wal} && "
        f"cp -a {wal}.kept/. {wal}/ && systemctl start postgresql@17-main"
    )
    try:
        with unreachable(instance):
            acknowledged, warned = _fill(instance)
            instance.root(f"mount -o remount,size=4g {wal}")
            wait_for(lambda: "error" not in status(instance)["archiver"], 120, "PostgreSQL again")
        assert warned
        assert count(instance) >= acknowledged > 0
        wait_for(lambda: status(instance)["archiver"]["ready"] == 0, 300, "drained")
    finally:
        instance.root(
            f"systemctl stop postgresql@17-main; cp -a {wal} {wal}.new && umount {wal} && rmdir {wal} && "
            f"mv {wal}.new {wal} && rm -rf {wal}.kept; systemctl start postgresql@17-main"
        )


def _fill(at: Deployed) -> tuple[int, bool]:
    """Write until PostgreSQL takes no more: rows it acknowledged, and whether there was a warning before."""
    acknowledged, warned = 0, False
    for turn in range(80):
        try:
            rows(at)
        except subprocess.CalledProcessError:
            return acknowledged, warned
        acknowledged += 10
        if turn % 3 == 2:  # looking takes half a minute while nothing answers
            warned = warned or said(at, "PostgreSQL stops when it is full")
    pytest.fail("PostgreSQL took everything")


KILLS = 10


@pytest.mark.long
def test_what_a_lost_host_loses(instance: Deployed) -> None:
    """PostgreSQL is killed ten times at odd moments while a row is written each second. What has left the host at the
    moment of the kill is all that a lost host would leave behind: never older than twice archive_timeout."""
    with edited(instance, "  keep_full: 2", "  keep_full: 2\n  archive_timeout: 30"):
        instance.deploy()
        beat = "while :; do psql -XAtqd postgres -f /usr/local/lib/mastodon-gov/heartbeat.sql; sleep 1; done"
        instance.root(f"systemd-run --unit=mfg-probe --property=User=postgres sh -c '{beat}'")
        lost: list[int] = []
        try:
            # It begins when a row of this writer has left the host: what was there before came every few minutes.
            wait_for(lambda: _age(instance) <= 45, 120, "a row of the probe in the repository")
            for number in range(KILLS):
                settle = time.monotonic() + 12 + 17 * number % 41
                while time.monotonic() < settle:
                    time.sleep(1)
                lost.append(_age(instance))
                instance.root("systemctl kill --signal=KILL --kill-whom=main postgresql@17-main")
                wait_for(lambda: "error" not in status(instance)["archiver"], 90, "PostgreSQL again")
        finally:
            instance.root("systemctl stop mfg-probe.service")
    print("lost seconds:", lost)
    assert max(lost) <= 60
    instance.deploy()


def _age(at: Deployed) -> int:
    """Age of the newest row in the repository (s), right now."""
    found: dict[str, Any] = status(at)["wal"]["heartbeat"]
    return int(found["repository_age"])
