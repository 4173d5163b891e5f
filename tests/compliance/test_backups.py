"""Backups as pgBackRest and PostgreSQL see them."""

from __future__ import annotations

import pytest

from mastodon_gov.audit.facts import Facts
from tests.compliance.conftest import Evidence
from tests.compliance.expect import holds, none, same

INFO = "pgbackrest info --output=json"


@pytest.mark.control("MFG-BAK-01")
def test_the_repository_is_in_order(facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["repository"]["status"], "ok", INFO)


@pytest.mark.control("MFG-BAK-01")
def test_there_is_a_backup_of_last_night(facts: Facts, evidence: Evidence) -> None:
    age = facts["repository"]["age"]
    seen = "no full backup" if age is None else f"{age / 3600:.1f} hours"
    holds(evidence, age is not None and age < 26 * 3600, seen, "26 hours or less", INFO)


@pytest.mark.control("MFG-BAK-01")
def test_no_backup_is_damaged(facts: Facts, evidence: Evidence) -> None:
    none(evidence, facts["repository"]["damaged"], INFO)


@pytest.mark.control("MFG-BAK-01")
def test_the_log_follows(facts: Facts, evidence: Evidence) -> None:
    seen = facts["archiver"]
    good = seen["mode"] == "on" and seen["oldest"] < 300 and not (seen["failing"] and seen["waiting"])
    holds(evidence, good, dict(seen), "on, less than 300 s behind", "pg_stat_archiver")


@pytest.mark.control("MFG-BAK-01")
def test_the_next_one_is_planned(facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["timer"], "active", "systemctl is-active mfg-backup.timer")


@pytest.mark.control("MFG-BAK-02")
@pytest.mark.parametrize(("what", "value"), [("cipher", ["aes-256-cbc"]), ("type", "s3")])
def test_backups_are_encrypted_and_elsewhere(what: str, value: object, facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["repository"][what], value, INFO)


@pytest.mark.control("MFG-BAK-02")
def test_their_keys_are_private(facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["conf"], "root:postgres 0640", "stat /etc/pgbackrest.conf")
