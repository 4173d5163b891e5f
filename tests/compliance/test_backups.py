"""Backups as pgBackRest and PostgreSQL see them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mastodon_gov.audit.facts import Facts, Foreseen
from mastodon_gov.instance import Instance
from tests.compliance.conftest import Evidence
from tests.compliance.expect import holds, none, same

INFO, STATUS = "pgbackrest info --output=json", "/usr/local/lib/mastodon-gov/backup-status"
DRILLS, ESCROW = "/var/lib/mastodon-gov/drills", "/var/lib/mastodon-gov/escrow.json"
# A time further ahead (seconds) was written by a wrong clock.
DAY, AHEAD = 86400, 60


@pytest.mark.control("MFG-BAK-01")
def test_the_repository_is_in_order(facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["repository"]["status"], "ok", INFO)


@pytest.mark.control("MFG-BAK-01")
def test_there_is_a_backup_of_last_night(facts: Facts, instance: Instance, evidence: Evidence) -> None:
    """Or of last week's, where `backups.full_on` is a day."""
    age, hours = facts["repository"]["age"], 24 * instance.backups.full_days + 2
    seen = "no full backup" if age is None else f"{age / 3600:.1f} hours"
    holds(evidence, age is not None and -AHEAD < age < hours * 3600, seen, f"{hours} hours or less", INFO)


@pytest.mark.control("MFG-BAK-01")
def test_no_backup_is_damaged(facts: Facts, evidence: Evidence) -> None:
    none(evidence, facts["repository"]["damaged"], INFO)


@pytest.mark.control("MFG-BAK-01")
def test_the_log_follows(facts: Facts, evidence: Evidence) -> None:
    seen = facts["archiver"]
    good = seen["mode"] == "on" and seen["oldest"] < 300 and not (seen["failing"] and seen["waiting"])
    holds(evidence, good, dict(seen), "on, less than 300 s behind", "pg_stat_archiver")


@pytest.mark.control("MFG-BAK-01")
def test_the_host_sees_nothing_wrong(facts: Facts, evidence: Evidence) -> None:
    """Age of the heartbeat in the repository, WAL that was thrown away, holes, the last verification."""
    none(evidence, facts["status"]["problems"], STATUS)


@pytest.mark.control("MFG-BAK-01")
def test_the_next_one_is_planned(facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["timer"], "active, enabled", "systemctl is-active, is-enabled mfg-backup.timer")


@pytest.mark.control("MFG-BAK-02")
@pytest.mark.parametrize(("what", "value"), [("cipher", ["aes-256-cbc"]), ("type", "s3")])
def test_backups_are_encrypted_and_elsewhere(what: str, value: object, facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["repository"][what], value, INFO)


@pytest.mark.control("MFG-BAK-02")
def test_nobody_can_remove_them(facts: Facts, instance: Instance, evidence: Evidence) -> None:
    lock, days = facts["status"]["lock"], instance.object_storage.backup_lock_days
    good = lock["mode"] == "COMPLIANCE" and lock["days"] >= days
    holds(evidence, good, dict(lock), f"COMPLIANCE, {days} days or more", f"{STATUS}: GET ?object-lock")


@pytest.mark.control("MFG-BAK-02")
def test_their_keys_are_private(facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["conf"], "root:postgres 0640", "stat /etc/pgbackrest.conf")


def wait_for_the_first(facts: Facts, days: int, what: str) -> None:
    """Raises Foreseen while a database is younger than the time between two drills: what was not done is not passed."""
    if facts["age"] is None and facts["since"] <= days * DAY:
        due = datetime.now(UTC) + timedelta(seconds=days * DAY - facts["since"])
        raise Foreseen(f"{what}; due by {due.date()}, {days} days after this database was made.")


@pytest.mark.control("MFG-BAK-03")
def test_a_restore_was_proved(facts: Facts, instance: Instance, evidence: Evidence) -> None:
    seen, days = facts["drill"], instance.backups.drill_max_age_days
    if not seen["rc"]:
        wait_for_the_first(seen, days, "No good drill yet")
    age = seen["since"] if seen["age"] is None else seen["age"]
    said = "no good drill" if seen["age"] is None else f"{seen['label']}, back in {seen['rto_s']} s"
    good = seen["age"] is not None and -AHEAD < age <= days * DAY and not seen["rc"]
    holds(evidence, good, f"{said}; {age / DAY:.1f} days; last rc {seen['rc']}", f"0, {days} days or less", DRILLS)


@pytest.mark.control("MFG-BAK-03")
def test_its_evidence_is_signed(facts: Facts, instance: Instance, evidence: Evidence) -> None:
    seen = facts["drill"]
    wait_for_the_first(seen, instance.backups.drill_max_age_days, "No good drill yet")
    whole = seen.get("signed") and seen.get("counts") and seen.get("egress") == "closed"
    said = {name: seen.get(name) for name in ("signed", "counts", "egress", "rpo_s")}
    holds(
        evidence, bool(whole), said, "signed by the host, with counts, egress closed", f"ssh-keygen -Y verify, {DRILLS}"
    )


@pytest.mark.control("MFG-BAK-04")
def test_the_envelope_holds_the_key_in_use(facts: Facts, instance: Instance, evidence: Evidence) -> None:
    seen, days = facts["escrow"], instance.backups.drill_max_age_days
    wait_for_the_first(seen, days, "The envelope was never checked")
    since = seen["since"] if seen["age"] is None else seen["age"]
    word = "never checked" if seen["age"] is None else "the same" if seen["same"] else "another key"
    holds(
        evidence,
        seen["same"] is True,
        f"{word}; {since / DAY:.1f} days",
        f"the same; within {days} days of the first deploy",
        ESCROW,
    )
