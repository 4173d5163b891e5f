"""Backups: what is written on the host, and what is done about what the host says."""

from __future__ import annotations

import configparser
import copy
import time
from typing import Any

import pytest

from mastodon_gov.instance import Node
from roles.backups.files.backup_problems import problems
from roles.backups.files.backup_repository import holes, lsn_after, position, verified
from roles.backups.files.backup_status import dropped
from roles.backups.role import BackupState, WalDisk, files, queue, refusal, steps
from roles.backups.timers import wanted
from roles.lib.files import Absent, ManagedFile
from roles.postgresql.role import files as postgresql_files
from tests.unit.storage_sample import (
    CIPHER,
    OWNER_KEY,
    WRITER,
    instance,
    node,
    node_of,
    secret_values,
    secrets,
    storage,
)


def written(at: Node) -> dict[str, ManagedFile]:
    """Files by path."""
    return {entry.path: entry for entry in files(at, 4096) if isinstance(entry, ManagedFile)}


def conf(at: Node) -> configparser.ConfigParser:
    """pgbackrest.conf, read as pgBackRest does."""
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.read_string(written(at)["/etc/pgbackrest.conf"].content)
    return parsed


def test_the_configuration_names_this_instance() -> None:
    given = conf(node())["global"]
    assert given["repo1-s3-endpoint"] == "s3.world.test"
    assert given["repo1-storage-port"] == "8443"
    assert given["repo1-s3-bucket"] == "backups"
    assert (given["repo1-s3-key"], given["repo1-s3-key-secret"]) == ("backups-access", WRITER)
    assert given["repo1-cipher-pass"] == CIPHER
    assert conf(node()).sections() == ["global", "social"]


def test_a_service_on_the_usual_port() -> None:
    at = node(object_storage=storage(endpoint="https://s3.example.org"))
    assert conf(at)["global"]["repo1-storage-port"] == "443"


def test_secrets_stand_in_one_file_that_only_postgres_reads() -> None:
    for path, entry in written(node()).items():
        if path == "/etc/pgbackrest.conf":
            assert (entry.user, entry.group, entry.mode) == ("root", "postgres", 0o640)
        else:
            assert CIPHER not in entry.content
            assert WRITER not in entry.content
        assert OWNER_KEY not in entry.content


def test_the_nightly_unit_reaches_the_store_and_nothing_else() -> None:
    unit = written(node())["/etc/systemd/system/mfg-backup.service"].content.splitlines()
    assert "IPAddressDeny=any" in unit
    assert "IPAddressAllow=10.90.0.12/32" in unit
    assert "ProtectSystem=strict" in unit
    public = node(addresses={})
    assert "IPAddressDeny=any" not in written(public)["/etc/systemd/system/mfg-backup.service"].content


def test_the_timer_says_utc() -> None:
    timer = written(node(backups={"full_at": "23:05"}))["/etc/systemd/system/mfg-backup.timer"].content
    assert "OnCalendar=*-*-* 23:05:00 UTC" in timer.splitlines()


def calendar(name: str, **backups: Any) -> str:
    """When a timer runs."""
    lines = written(node(backups=backups))[f"/etc/systemd/system/{name}.timer"].content.splitlines()
    return next(line.removeprefix("OnCalendar=") for line in lines if line.startswith("OnCalendar="))


def test_each_kind_has_its_time_and_none_is_at_another_s() -> None:
    assert calendar("mfg-backup-diff") == "*-*-* 14:30:00 UTC"
    assert calendar("mfg-backup-incr", incr_every=4) == "*-*-* 00/4:50:00 UTC"
    assert calendar("mfg-backup-verify", full_at="22:10") == "*-*-* 01:10:00 UTC"
    assert calendar("mfg-backup", full_on="sun") == "sun *-*-* 02:30:00 UTC"
    assert calendar("mfg-backup-diff", full_on="sun") == "mon,tue,wed,thu,fri,sat *-*-* 02:30:00 UTC"


def test_the_second_repository_comes_and_goes() -> None:
    at = node(backups={"second": {"directory": "/srv/backups"}})
    assert conf(at)["global"]["repo2-path"] == "/srv/backups"
    unit = written(at)["/etc/systemd/system/mfg-backup-second.service"].content
    assert "--repo=2 " in unit
    assert "ReadWritePaths=/var/spool/pgbackrest /var/log/pgbackrest /srv/backups" in unit.splitlines()
    assert "AssertPathIsMountPoint=/srv/backups" in unit.splitlines()
    without = {entry.path for entry in files(node(), 4096) if isinstance(entry, Absent)}
    assert "/etc/systemd/system/mfg-backup-second.timer" in without
    assert {f"/etc/systemd/system/{unit.name}" for unit in wanted(node()) if unit.gone} == without
    assert not [unit for unit in wanted(at) if unit.gone]
    assert "repo2-path" not in conf(node())["global"]


def test_a_second_service_has_its_own_key_and_its_own_way_out() -> None:
    second = {"endpoint": "https://s3.elsewhere.test:9000", "bucket": "copies"}
    addresses = {"s3.world.test": ["10.90.0.12"], "s3.elsewhere.test": ["10.90.0.33"]}
    at = instance(backups={"second": second}, addresses=addresses)
    own = {**secret_values()["object_storage"], "second": {"access_key": "copy", "secret_key": "copy-secret"}}
    here = node_of(at, secrets(object_storage=own))
    given = conf(here)["global"]
    assert (given["repo2-s3-endpoint"], given["repo2-storage-port"]) == ("s3.elsewhere.test", "9000")
    assert (given["repo2-s3-key"], given["repo2-s3-key-secret"]) == ("copy", "copy-secret")
    unit = written(here)["/etc/systemd/system/mfg-backup-second.service"].content.splitlines()
    assert "IPAddressAllow=10.90.0.33/32" in unit


GOOD: dict[str, Any] = {
    "at": 1_000_000,
    "repository": {"code": 0, "message": "ok", "system_ids": ["71"]},
    "archiver": {
        "mode": "on",
        "ready": 0,
        "oldest_ready_age": None,
        "system_id": "71",
        "timeout": 60,
        "disk_percent": 20,
    },
    "label": "20261121-023000F",
    "damaged": False,
    "last": 996_000,
    "last_full": 996_400,
    "last_full_age": 3600,
    "full_every": 1,
    "dropped_wal": [],
    "queue_mib": 4096,
    "lock_days": 14,
    "lock": {"mode": "COMPLIANCE", "days": 14},
    "wal": {
        "base": "20261121-023000F",
        "holes": 0,
        "heartbeat": {"written_age": 20, "first_age": 80000, "repository_age": 70},
    },
    "verify": {"at": 990_000, "wrong": "", "holes": 0},
    "stanza": "social",
    "manifest": {"stanza": "social", "label": "20261121-023000F", "since": 500_000},
    "drill": {"rc": 0, "age": 70_000},
}
BEAT = GOOD["wal"]["heartbeat"]
SECOND = {"code": 0, "message": "ok", "last_age": 100}


def state(**changes: dict[str, Any] | Any) -> dict[str, Any]:
    """GOOD with parts of it changed."""
    found = copy.deepcopy(GOOD)
    for key, value in changes.items():
        found[key] = {**found.get(key, {}), **value} if isinstance(value, dict) else value
    return found


def words(found: dict[str, Any]) -> list[str]:
    """What would be done, in a word each."""
    known = ("stanza-create", "check", "systemctl start mfg-backup.service")
    return [next(word for word in known if f" {word}" in f" {step} ") for step in steps(found, "s")]


ALL = ["stanza-create", "check", "systemctl start mfg-backup.service"]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({}, ALL),
        (state(repository={"code": 1, "system_ids": []}), ALL),
        (state(repository={"code": 3, "system_ids": []}), ALL),
        (state(repository={"code": 2}), ALL[1:]),
        (GOOD, []),
    ],
    ids=["new host", "no stanza", "half a stanza", "no backup", "settled"],
)
def test_only_what_is_missing_is_done(found: dict[str, Any], expected: list[str]) -> None:
    assert words(found) == expected


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (None, ["stanza-create", "check", "mfg-backup-second"]),
        ({"code": 1}, ["stanza-create", "check", "mfg-backup-second"]),
        ({"code": 2}, ["mfg-backup-second"]),
        ({"code": 0}, []),
        ({"code": 99}, []),
    ],
)
def test_a_second_repository_gets_its_stanza_and_its_first_backup(told: Any, expected: list[str]) -> None:
    """Also where the first one is in order since long: without the stanza no WAL would leave the host any more."""
    found = steps(state(second={"last_age": None, **told}) if told else GOOD, "s", second=True)
    assert len(found) == len(expected)
    assert all(word in step for word, step in zip(expected, found, strict=True))
    assert steps(GOOD, "s") == []


def test_postgresql_may_write_to_the_second_directory() -> None:
    """The archiver runs inside its unit."""
    at = node(backups={"second": {"directory": "/srv/backups"}})
    place = "/etc/systemd/system/postgresql@.service.d/60-mfg.conf"
    (unit,) = [entry for entry in postgresql_files(at, 1000) if entry.path == place]
    assert isinstance(unit, ManagedFile)
    assert " -/srv/backups" in next(line for line in str(unit.content).splitlines() if "ReadWritePaths" in line)


def test_an_archiver_that_is_older_than_its_configuration_is_replaced() -> None:
    assert steps(state(stale_archiver=[12, 13]), "s") == ["kill 12 13 2>/dev/null; true"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"repository": {"code": 99, "message": "[FormatError] key/value found outside of section"}}, "cipher_pass"),
        ({"repository": {"code": -1, "message": "no answer within 25 s"}}, "no answer within 25 s"),
        ({"repository": {"code": 99, "message": "[ProtocolError] 403"}}, "object_storage.backups in the secrets"),
        ({"archiver": {"system_id": "99"}}, "holds the backups of another database (system id 71, this one is 99)"),
        ({"repository": {"code": 2, "message": "no valid backups"}}, "The backups have gone from bucket backups at"),
        ({"archiver": {"error": "no socket"}}, "PostgreSQL does not answer on the host: no socket"),
    ],
)
def test_what_cannot_be_used_is_refused(changes: dict[str, Any], expected: str) -> None:
    sentence = refusal(state(**changes), instance())
    assert sentence
    assert expected in sentence
    assert CIPHER not in sentence


def test_a_usable_repository_is_not_refused() -> None:
    assert refusal(GOOD, instance()) is None
    assert refusal(state(repository={"code": 1, "system_ids": []}, stanza="anew"), instance()) is None


def test_the_fact_reads_systemd_and_the_program() -> None:
    fact = BackupState()
    assert fact.process(['{"stanza": "social"}']) == {"stanza": "social"}
    assert fact.process([]) == {}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"repository": {"code": 99, "message": "no valid backups"}}, "not in order: no valid backups"),
        ({"repository": {"code": 1, "message": "missing stanza path"}}, "The backups have gone: this host made 2026"),
        ({"repository": {"code": 1, "message": "missing stanza path"}, "stanza": "anew"}, "missing stanza path"),
        ({"last_full_age": 27 * 3600}, "older than 26 hours"),
        ({"last_full_age": None}, "older than 26 hours"),
        ({"damaged": True}, "damaged pages"),
        ({"archiver": {"mode": "off"}}, "archive_mode is off"),
        ({"archiver": {"ready": 11}}, "11 WAL files wait"),
        ({"archiver": {"ready": 1, "oldest_ready_age": 301}}, "1 WAL files wait"),
        ({"archiver": {"system_id": "99"}}, "another database cluster"),
        ({"dropped_wal": ["0A", "0B"]}, "2 WAL files were thrown away"),
        ({"full_every": 7, "last_full_age": 171 * 3600}, "older than 170 hours"),
        ({"wal": {"holes": 2}}, "2 WAL files are missing from the repository"),
        ({"wal": {"heartbeat": {**BEAT, "repository_age": 400}}}, "the last 400 s would be lost with it"),
        ({"wal": {"heartbeat": {**BEAT, "repository_age": None}}}, "the last 80000 s would be lost with it"),
        ({"wal": {"heartbeat": {**BEAT, "written_age": 500}}}, "The last heartbeat was written 500 s ago"),
        ({"verify": {"wrong": "checksum invalid: 1"}}, "do not verify: checksum invalid: 1"),
        ({"verify": {"at": 500_000}}, "last verified more than 3 days ago"),
        ({"verify": None}, "The backups were never verified"),
        ({"verify": {"holes": 3}}, "3 WAL files are missing between the oldest and the newest backup"),
        ({"wal": {"error": "the history of timeline 2"}}, "What a lost host would lose is not known: the history of"),
        ({"wal": {"base": None, "heartbeat": None}}, "No backup leads to what is written now"),
        ({"wal": {"heartbeat": None}}, "No heartbeat was ever written"),
        ({"wal": {"heartbeat": {**BEAT, "written_age": -3600}}}, "in the future: the last heartbeat 3600 s."),
        ({"last_full_age": -61}, "in the future: the last full backup 61 s."),
        ({"verify": {"at": 1_000_100}}, "in the future: the last verification 100 s."),
        ({"drill": {"age": -4000}}, "in the future: the last drill 4000 s."),
        ({"lock": {"mode": "", "days": 0}}, "the bucket's lock is none, wanted 14 days COMPLIANCE"),
        ({"lock": {"days": 13}}, "the bucket's lock is 13 days COMPLIANCE, wanted 14"),
        ({"lock": {"mode": "GOVERNANCE"}}, "the bucket's lock is 14 days GOVERNANCE, wanted 14"),
        ({"lock": {"error": "403 AccessDenied"}}, "Whether the bucket still locks the backups is not known: 403"),
        ({"manifest": {"label": "20261120-023000F"}}, "Backup 20261121-023000F has no manifest"),
        ({"second": {**SECOND, "code": 99, "message": "no disk"}}, "second backup repository is not in order: no disk"),
        ({"second": {**SECOND, "last_age": None}}, "The second backup repository has no backup of the last 26 hours"),
    ],
)
def test_each_problem_has_its_sentence(changes: dict[str, Any], expected: str) -> None:
    found = problems(state(**changes))
    assert len(found) == 1
    assert expected in found[0]


def test_a_backup_without_any_manifest_is_a_problem() -> None:
    assert "has no manifest" in problems({**GOOD, "manifest": None})[0]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"verify": None, "manifest": {"since": 999_000}},
        {"wal": {"heartbeat": None}, "last": 999_900},
        {"wal": {"heartbeat": {**BEAT, "written_age": -30}}},
        {"lock": {"mode": "COMPLIANCE", "days": 30}},
        {"drill": {"rc": None, "age": None}},
    ],
    ids=["good", "a new host", "before the first heartbeat", "a clock that was set", "a longer lock", "no drill yet"],
)
def test_no_problem_no_sentence(changes: dict[str, Any]) -> None:
    assert problems(state(**changes)) == []


def test_dropped_wal_counts_until_the_next_backup() -> None:
    line = "2026-11-21 11:20:58.123 P00   WARN: dropped WAL file '0000000100000000000000C9' because archive queue"
    text = f"-------------------PROCESS START\n{line} exceeded 64MB\n"
    at = time.mktime((2026, 11, 21, 11, 20, 58, 0, 0, -1))
    assert dropped(text, at - 1) == ["0000000100000000000000C9"]
    assert dropped(text, at + 1) == []


def test_waiting_wal_names_the_disk_and_the_limit_before_either_is_reached() -> None:
    found = problems(state(archiver={"ready": 30, "disk_percent": 61}))
    assert "61 % full while WAL waits" in found[1]
    assert len(problems(state(archiver={"ready": 30, "disk_percent": 60}))) == 1
    assert len(problems(state(archiver={"ready": 66}))) == 1
    assert "That is 26 % of what may wait (4096 MiB, backups.queue_gib)" in problems(state(archiver={"ready": 67}))[1]


@pytest.mark.parametrize(
    ("mib", "own", "expected"),
    [
        (100 << 10, False, 24 << 10),
        (101 << 10, False, 24 << 10),
        (100 << 10, True, 48 << 10),
        (40 << 10, False, 8 << 10),
        (2 << 10, True, 1 << 10),
        (300, False, 1 << 10),
    ],
    ids=["shared", "a little larger", "its own", "forty", "two", "tiny"],
)
def test_how_much_may_wait_follows_the_disk(mib: int, own: bool, expected: int) -> None:
    assert queue((mib, own)) == expected


def test_the_disk_of_the_wal_is_known_by_its_device() -> None:
    assert WalDisk().process(["2560000 4096", "65026", "65025"]) == (10000, True)
    assert WalDisk().process(["2560000 4096", "65025", "65025"]) == (10000, False)
    assert written(node())["/etc/pgbackrest.conf"].content.count("archive-push-queue-max=4096MiB\n") == 1


@pytest.mark.parametrize(
    ("there", "waiting", "expected"),
    [
        ({5, 6, 7}, set(), ([], 7)),
        ({5, 7}, set(), ([6], 5)),
        ({5, 7}, {6}, ([], 5)),
        ({3, 4, 5}, set(), ([], 5)),
        ({6}, set(), ([5], 4)),
        (set(), set(), ([], 4)),
    ],
    ids=["whole", "a hole", "not sent yet", "older ones", "the first is missing", "nothing"],
)
def test_holes_in_the_wal(there: set[int], waiting: set[int], expected: tuple[list[int], int]) -> None:
    assert holes(there, 5, waiting) == expected


def test_positions_go_on_over_logs_and_timelines() -> None:
    last, first = "0000000100000002000000FF", "000000020000000300000000"
    assert position(first) == position(last) + 1 == 3 * 256
    assert lsn_after(position(last)) == "3/0"
    assert lsn_after(position("00000001000000000000000C")) == "0/D000000"


GOOD_VERIFY = """stanza: social
status: ok
  archiveId: 17-1, total WAL checked: 12, total valid WAL: 12
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
  backup: 20261121-172054F, status: valid, total files checked: 1261, total valid files: 1261
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
"""


@pytest.mark.parametrize(
    ("change", "good"),
    [
        (("", ""), True),
        (("status: ok", "status: error"), False),
        (("checksum invalid: 0, size", "checksum invalid: 1, size"), False),
        (("status: valid", "status: invalid"), False),
        (("  backup: 20261121-172054F, status: valid", "  nothing"), False),
        ((GOOD_VERIFY, ""), False),
    ],
)
def test_only_what_says_good_is_good(change: tuple[str, str], good: bool) -> None:
    assert verified(GOOD_VERIFY.replace(*change))[0] is good
