"""pgBackRest to radosgw, under systemd; the last test gives the host another database."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from mastodon_gov.errors import Refusal
from mastodon_gov.storage import buckets as s3
from mastodon_gov.storage.client import reached
from mastodon_gov.storage.rights import rights
from tests.lab.roles_alone import changed
from tests.lab.storage.place import REPOSITORY, Place, run_roles, stopped, until
from tests.unit.storage_sample import CIPHER

STATUS, POINT = (f"/usr/local/lib/mastodon-gov/{name}" for name in ("backup-status", "restore-point"))


def status(at: Place) -> dict[str, Any]:
    """What the host says of its backups."""
    said: dict[str, Any] = json.loads(at.host.ssh([STATUS]).stdout)
    return said


def test_the_first_day_has_a_full_backup(place: Place) -> None:
    said = status(place)
    assert said["problems"] == []
    assert (said["backups"], said["repository"]["code"], said["archiver"]["mode"]) == (1, 0, "on")
    assert 0 <= said["last_full_age"] < 3600


def test_what_lies_in_the_bucket_is_encrypted(place: Place) -> None:
    with reached(place.instance()):
        writer = place.client("backups")  # the owner of the bucket may not read what others put there
        listed = [each["Key"] for each in writer.list_objects_v2(Bucket="backups", Prefix="pg/")["Contents"]]
        bodies = {key: writer.get_object(Bucket="backups", Key=key)["Body"].read() for key in listed}
    assert {body[:8] for key, body in bodies.items() if key.endswith(".info")} == {b"Salted__"}
    zstd, names = b"\x28\xb5\x2f\xfd", (b"PG_VERSION", b"backrest-version", b"pg_catalog")
    assert [key for key, body in bodies.items() if body.startswith(zstd) or any(name in body for name in names)] == []


def test_the_passphrase_is_nowhere_but_in_its_file(place: Place) -> None:
    found = place.host.ssh(
        "cat > /run/known; grep -rlFf /run/known /etc /var/log /var/spool /run /tmp --exclude=known; true", stdin=CIPHER
    )
    assert found.stdout.split() == ["/etc/pgbackrest.conf"]
    shown = place.host.ssh("stat -c '%U %G %a' /etc/pgbackrest.conf; rm /run/known").stdout
    assert shown.split() == ["root", "postgres", "640"]


def test_a_restore_point_is_archived(place: Place) -> None:
    said = json.loads(place.host.ssh([POINT, "before_upgrade"]).stdout)
    assert said["name"] == "before_upgrade"
    assert said["archived"] is True
    listed = place.host.ssh(
        "runuser -u postgres -- pgbackrest --stanza=social --repo=1 repo-ls --recurse archive/social"
    ).stdout
    assert said["wal"] in listed
    wal = f"/tmp/{said['wal']}"
    dump = f"pgbackrest --stanza=social archive-get {said['wal']} {wal} && /usr/lib/postgresql/17/bin/pg_waldump {wal}"
    assert (
        "RESTORE_POINT before_upgrade"
        in place.host.ssh(f"cd / && runuser -u postgres -- sh -c '{dump}; rm {wal}'").stdout
    )


@pytest.mark.parametrize("name", ["", "a b", "x'); drop table users; --", "n" * 64])
def test_a_wrong_name_of_a_restore_point_is_refused(place: Place, name: str) -> None:
    said = place.host.ssh([POINT, name], check=False)
    assert said.returncode == 1
    assert "is no name for a restore point" in said.stderr


def test_the_nightly_unit_is_boxed_in(place: Place) -> None:
    score = place.host.ssh("systemd-analyze security mfg-backup.service --no-pager | tail -1").stdout
    assert float(score.split("level for mfg-backup.service:")[1].split()[0]) < 2
    assert "02:30:00 UTC" in place.host.ssh("systemctl show -p TimersCalendar mfg-backup.timer").stdout


def test_a_changed_unit_is_known_to_systemd_after_a_deploy(place: Place) -> None:
    place.host.ssh("echo '# changed' >> /etc/systemd/system/mfg-backup.service")
    assert changed(run_roles(place)[0])
    assert place.host.ssh("systemctl show -p NeedDaemonReload --value mfg-backup.service").stdout.strip() == "no"


def test_a_wrong_passphrase_is_refused_with_its_name(place: Place) -> None:
    _, log = run_roles(place, secret_changes={"backups": {"cipher_pass": "another"}})
    assert "cannot be read with backups.cipher_pass of the secrets" in log
    assert "another passphrase" in log
    assert changed(run_roles(place)[0]) == ["Backups | Write files"]
    assert status(place)["problems"] == []


def test_storage_that_is_away_is_a_sentence_everywhere(place: Place) -> None:
    with stopped(place.lab.machine("world"), "nginx"):
        begun = time.monotonic()
        with pytest.raises(Refusal, match=r"s3.world.test \(object_storage.endpoint\) does not answer"):
            s3.pending(place.instance(), place.secrets().object_storage.owner)
        (sentence,) = rights(place.instance(), place.secrets())
        assert time.monotonic() - begun < 30
        _, log = run_roles(place)
        assert "does not answer" in log
        assert status(place)["repository"]["code"] != 0
        place.host.ssh("cd / && runuser -u postgres -- psql -qXAt -c 'select pg_switch_wal()'")
        assert status(place)["archiver"]["ready"] > 0
    until(lambda: status(place)["archiver"]["ready"] == 0, 120)
    assert "does not answer" in sentence


def test_storage_that_hangs_is_a_sentence_in_time(place: Place) -> None:
    world = place.lab.machine("world")
    world.freeze()
    try:
        begun = time.monotonic()
        with pytest.raises(Refusal, match="does not answer"):
            s3.pending(place.instance(), place.secrets().object_storage.owner)
        assert time.monotonic() - begun < 15
    finally:
        world.thaw()


def test_another_database_does_not_touch_the_backups(place: Place) -> None:
    place.host.ssh("pg_dropcluster --stop 17 main")
    _, log = run_roles(place)
    assert "The stanza social in bucket backups at https://s3.world.test holds the backups of another database" in log
    assert status(place)["backups"] == 1
    report, log = run_roles(place, instance_changes={"backups": {"stanza": "anew"}})
    assert REPOSITORY in changed(report), log
    assert status(place)["problems"] == []
