"""Restores that must not succeed: other secrets, a hole in the WAL; one around a damaged backup; a drill that meets a
backup."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from mastodon_gov.instance.load import load
from tests.lab.backups.place import BUCKET, bucket, flipped, largest, put, status, unreachable
from tests.lab.deployed import LIB, Deployed, wait_for
from tests.lab.restore.people import Staff, post, reads, staff, this_second

pytestmark = pytest.mark.long
ENVIRONMENT = "/etc/mastodon/mastodon.env"
KEY = "ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY"


@pytest.fixture(scope="module")
def known(doomed: Deployed) -> Staff:
    """The owner, with a second factor."""
    return staff(doomed)[0]


def test_other_secrets_are_refused(doomed: Deployed, known: Staff) -> None:
    """Both ways of seeing it: the fingerprints of the manifest, and a second factor that does not open."""
    doomed.root("systemctl start mfg-backup-incr.service")
    kept = doomed.root(f"cat {ENVIRONMENT}")
    try:
        doomed.root(f"sed -i 's/^{KEY}=.*/{KEY}={'x' * 32}/' {ENVIRONMENT}")
        done = doomed.cli("restore", "--to", "latest", "--switch", check=False, timeout=1500)
    finally:
        doomed.root(f"cat > {ENVIRONMENT}", stdin=kept)
    assert done.returncode == 1
    assert "No second factor in the copy can be opened" in done.stderr
    assert f"mastodon.{KEY.lower()}" in done.stderr
    doomed.cli("restore", "--drop-beside")


def test_a_hole_in_the_wal_is_a_sentence(doomed: Deployed, known: Staff) -> None:
    """The server answers first and dies seconds later; nothing of the copy stays, and the instance serves."""
    post(doomed, known, "before the hole")
    hole = json.loads(doomed.root(f"{LIB}/restore-point hole"))["wal"]
    number = post(doomed, known, "after the hole")
    second = this_second(doomed)
    post(doomed, known, "later")
    doomed.root(f"{LIB}/restore-point beyond")
    stanza = f"pg/archive/{load(doomed.directory).backups.stanza}/"
    with bucket(doomed) as writer:
        listed = writer.list_objects_v2(Bucket=BUCKET, Prefix=stanza)["Contents"]
        (key,) = [each["Key"] for each in listed if hole in each["Key"]]
        good = writer.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        writer.delete_object(Bucket=BUCKET, Key=key)
    refused(doomed, second, "The backups do not reach time")
    # PostgreSQL itself takes the hole for the end of all WAL, and starts.
    refused(doomed, "latest", "The backups do not reach the newest moment", "the next one is missing")
    # One bit may come through decryption and decompression, and is then found by PostgreSQL; rubbish does not.
    for bad in (flipped(good), b"pay"):
        with bucket(doomed) as writer:
            put(writer, key, bad)
        refused(doomed, "latest", f"WAL {hole} of the backup repository cannot be read", "some minutes before")
    assert number in doomed.sql("select id from statuses")
    doomed.root("systemctl start mfg-backup.service")


def refused(doomed: Deployed, to: str, *says: str) -> None:
    """A restore that is refused after it was begun leaves nothing of its copy."""
    done = doomed.cli("restore", "--to", to, check=False, timeout=1500)
    assert done.returncode == 1
    assert [words for words in says if words not in done.stderr] == []
    assert doomed.root("ls /var/lib/postgresql/17").split() == ["main"]


def test_a_damaged_backup_is_got_around(doomed: Deployed, known: Staff) -> None:
    """One bit of the newest full backup is another: the one before it and all WAL since lead to the same state."""
    before = post(doomed, known, "before the damaged backup")
    doomed.root("systemctl start mfg-backup.service")
    after = post(doomed, known, "after the damaged backup")
    label = status(doomed)["label"]
    with bucket(doomed) as writer:
        key = largest(writer, label)
        put(writer, key, flipped(writer.get_object(Bucket=BUCKET, Key=key)["Body"].read()))
    done = doomed.cli("restore", "--to", "latest", "--json", timeout=1500)
    told = json.loads(done.stdout)
    assert f"The backup {label} cannot be restored" in done.stderr
    assert (told["damaged"], told["label"] < label) == ([label], True)
    assert told["done"]["verify"]["result"]["counts"]["statuses"] == int(doomed.sql("select count(*) from statuses"))
    assert {before, after} <= set(doomed.sql("select id from statuses").split())
    doomed.cli("restore", "--drop-beside")
    doomed.root("systemctl start mfg-backup.service")


def test_the_whole_wal_of_a_dead_database_is_in_the_copy(doomed: Deployed, known: Staff) -> None:
    """It died while the store was away: what it had put by to be archived lies on its disk alone."""
    unit = "postgresql@17-main.service"
    with unreachable(doomed):
        post(doomed, known, "while the store was away")
        counted = int(doomed.sql("select count(*) from statuses; select from pg_switch_wal()").split()[0])
        doomed.root(f"systemctl kill --signal=KILL {unit}; systemctl stop {unit}")
    try:
        told = json.loads(doomed.cli("restore", "--to", "latest", "--json", timeout=1500).stdout)
        assert told["done"]["archive"]["result"] == 0
        assert told["done"]["verify"]["result"]["counts"]["statuses"] == counted
        doomed.cli("restore", "--drop-beside")
    finally:
        doomed.root(f"systemctl reset-failed {unit}; systemctl start {unit}")


def test_a_store_that_is_away_at_the_switch(doomed: Deployed, known: Staff) -> None:
    """Nothing in the repository is touched, and the same command goes on when the store is back."""
    number = post(doomed, known, "before the switch")
    doomed.cli("restore", "--to", "latest", timeout=1500)
    later = post(doomed, known, "after the copy")
    old = doomed.cli("restore", "--to", "latest", "--switch", check=False, timeout=1500)
    assert (old.returncode, "the instance has written since" in old.stderr, reads(doomed, later)) == (1, True, 200)
    doomed.cli("restore", "--drop-beside")
    doomed.cli("restore", "--to", "latest", timeout=1500)
    before = hidden(doomed)
    with unreachable(doomed):
        done = doomed.cli("restore", "--switch", check=False, timeout=1500)
        assert done.returncode == 1
        assert "Nothing in the repository was touched" in done.stderr
    assert hidden(doomed) == before
    doomed.cli("restore", "--switch", timeout=1500)
    doomed.cli("restore", "--open")
    assert (reads(doomed, number), reads(doomed, later)) == (200, 200)
    doomed.cli("restore", "--sign-off")


def test_a_store_that_goes_away_in_the_middle_of_the_replay(doomed: Deployed, known: Staff) -> None:
    """To PostgreSQL, WAL that cannot be had is the end of all WAL; the copy waits for the store instead (pgBackRest
    gives up after ten minutes, and the restore ends with a sentence), and has everything when it is back."""
    doomed.root("systemctl start mfg-backup-incr.service")
    doomed.sql("select pg_logical_emit_message(true, 'a', 'x'); select pg_switch_wal(); " * 40)
    post(doomed, known, "after forty segments")
    counted = int(doomed.sql("select count(*) from statuses"))
    doomed.root(f"{LIB}/restore-point forty")
    replayed = "grep -c 'restored log file' /var/log/postgresql/mfg-beside.log || true"
    asking = "ss -Htnp state syn-sent | grep -c pgbackrest || true"
    with ThreadPoolExecutor(1) as pool:
        restoring = pool.submit(doomed.cli, "restore", "--to", "latest", "--json", timeout=1500)
        wait_for(lambda: int(doomed.root(replayed) or 0) > 3, 300, "the replay")
        with unreachable(doomed):
            wait_for(lambda: int(doomed.root(asking)), 120, "WAL is asked for in vain")
            assert not restoring.done()
        told = json.loads(restoring.result().stdout)
    assert told["done"]["verify"]["result"]["counts"]["statuses"] == counted
    doomed.cli("restore", "--drop-beside")


def hidden(doomed: Deployed) -> set[tuple[str, str]]:
    """Index files that somebody deleted: the markers."""
    with bucket(doomed, "owner") as owner:
        pages = owner.get_paginator("list_object_versions").paginate(Bucket=BUCKET, Prefix="pg/")
        markers = [each for page in pages for each in page.get("DeleteMarkers", [])]
    return {(each["Key"], each["VersionId"]) for each in markers if ".info" in each["Key"]}


def test_a_drill_while_a_backup_runs(doomed: Deployed) -> None:
    """Each has its own locks."""
    doomed.root("systemctl start --no-block mfg-backup.service")
    assert json.loads(doomed.cli("drill", "--json", timeout=1500).stdout)["rc"] == 0
    assert doomed.root("systemctl show -P Result mfg-backup.service").strip() == "success"
