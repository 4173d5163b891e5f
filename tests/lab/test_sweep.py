"""The sweep finds what does not belong, does what the instance says about it, and nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mastodon_gov.lab.world.mail import read_mail, text_of
from roles.mastodon.files import sweep as program
from roles.mastodon.files.sweep_findings import findings
from tests.lab.deployed import LIB, Deployed, wait_for

FINDINGS = 3
REPORT = "/var/lib/mastodon-gov/sweep.json"
# Past the lock, as only the superuser can: what a sweep is for.
BREAK = """
BEGIN;
ALTER TABLE users DISABLE TRIGGER gov_users_check; ALTER TABLE invites DISABLE TRIGGER gov_invites_clamp;
WITH a AS (INSERT INTO accounts (username, created_at, updated_at) VALUES ('intruder', now(), now()) RETURNING id)
INSERT INTO users (email, encrypted_password, account_id, confirmed_at, approved, created_at, updated_at)
SELECT 'i@intruder.test', 'x', id, now(), true, now() - interval '400 days', now() FROM a;
INSERT INTO invites (user_id, code, created_at, updated_at) SELECT id, 'SWEPTAWAY', now(), now() FROM users LIMIT 1;
ALTER TABLE users ENABLE ALWAYS TRIGGER gov_users_check; ALTER TABLE invites ENABLE ALWAYS TRIGGER gov_invites_clamp;
INSERT INTO oauth_applications (name, uid, secret, redirect_uri, created_at, updated_at)
VALUES ('Strange tool', 'swept', 'x', 'urn:ietf:wg:oauth:2.0:oob', now(), now());
INSERT INTO oauth_access_tokens (token, resource_owner_id, application_id, scopes, created_at)
SELECT 'swept', u.id, o.id, 'write', now() FROM users u, oauth_applications o
 WHERE u.email = 'i@intruder.test' AND o.uid = 'swept';
INSERT INTO user_roles (name, permissions, position, created_at, updated_at) VALUES ('Swept', 5, 1, now(), now());
UPDATE users SET role_id = (SELECT id FROM user_roles WHERE name = 'Swept') WHERE email = 'i@intruder.test';
INSERT INTO account_statuses_cleanup_policies (account_id, created_at, updated_at)
SELECT id, now(), now() FROM accounts WHERE username = 'intruder';
UPDATE settings SET value = E'--- swept\\n' WHERE var = 'site_title';
INSERT INTO domain_blocks (domain, created_at, updated_at) VALUES ('swept.test', now(), now());
INSERT INTO gov.staff_domain (domain) VALUES ('intruder.test');
COMMIT;
"""
MEND = """
DELETE FROM gov.lockdown WHERE username = 'intruder';
DELETE FROM accounts WHERE username = 'intruder'; DELETE FROM users WHERE email = 'i@intruder.test';
DELETE FROM invites WHERE code = 'SWEPTAWAY'; DELETE FROM oauth_applications WHERE uid = 'swept';
DELETE FROM user_roles WHERE name = 'Swept'; DELETE FROM domain_blocks WHERE domain = 'swept.test';
DELETE FROM gov.staff_domain WHERE domain = 'intruder.test';
UPDATE settings SET value = E'--- Demonstration Social\\n' WHERE var = 'site_title';
"""
LINK = """SELECT 'link ' || i.id || ' of @' || a.username FROM invites i JOIN users u ON u.id = i.user_id
JOIN accounts a ON a.id = u.account_id WHERE code = 'SWEPTAWAY'"""
ALIVE = (
    "SELECT (SELECT NOT disabled FROM users WHERE email = 'i@intruder.test'), "
    "(SELECT expires_at IS NULL OR expires_at > now() AT TIME ZONE 'UTC' FROM invites WHERE code = 'SWEPTAWAY'), "
    "(SELECT revoked_at IS NULL FROM oauth_access_tokens WHERE token = 'swept')"
)
MANY = """
BEGIN;
INSERT INTO gov.staff_domain (domain) SELECT 'body' || n || '.test' FROM generate_series(1, 300) n;
WITH a AS (INSERT INTO accounts (username, created_at, updated_at)
           SELECT 'many' || n, now(), now() FROM generate_series(1, 2000) n RETURNING id, username)
INSERT INTO users (email, encrypted_password, account_id, confirmed_at, created_at, updated_at)
SELECT username || '@body' || (substr(username, 5)::int % 300 + 1) || '.test', 'x', id, now(),
       now() - interval '400 days', now() FROM a;
INSERT INTO oauth_access_tokens (token, resource_owner_id, scopes, created_at)
SELECT 'many' || id, id, 'read', now() FROM users WHERE email LIKE 'many%';
"""


@pytest.fixture
def broken(instance: Deployed) -> Iterator[None]:
    """A server on which somebody went past the lock, and no timer that is faster than the test."""
    instance.root("systemctl stop mfg-sweep.timer")
    instance.sql(BREAK)
    try:
        yield
    finally:
        instance.sql(MEND)
        instance.root("systemctl start mfg-sweep.timer")


def _sweep(instance: Deployed, *words: str) -> dict[str, Any]:
    done = instance.cli("sweep", "--json", *words, check=False)
    assert done.returncode in (0, FINDINGS), done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode == FINDINGS) == bool(report["findings"])
    return report


def _told(report: dict[str, Any]) -> dict[tuple[str, str], str]:
    return {(row["finding"], row["subject"]): row["act"] for row in report["findings"]}


def test_what_does_not_belong_is_found_and_closed(instance: Deployed, broken: None, tmp_path: Path) -> None:
    """Looking changes nothing. Sweeping disables the account and kills the link, reports the rest, deletes nothing."""
    link = instance.sql(LINK).strip()
    expected = {
        ("foreign_address", "@intruder"), ("invite_outside_ledger", link), ("unknown_application", "@intruder"),
        ("missing_second_factor", "@intruder"), ("dormant_account", "@intruder"), ("unverified_link", "@intruder"),
        ("role_changed", "role/Swept"), ("role_changed", "@intruder"), ("cleanup_enabled", "@intruder"),
        ("setting_drifted", "setting/site_title"),
        ("block_outside_file", "swept.test"), ("register_changed", "intruder.test"),
    }  # fmt: skip
    seen = _told(_sweep(instance, "--dry-run"))
    assert expected <= set(seen)
    assert instance.sql(ALIVE).strip() == "t|t|t"
    done = _told(_sweep(instance, "--html", str(tmp_path)))
    assert {what for what, act in done.items() if act != "report"} == {
        ("foreign_address", "@intruder"),
        ("invite_outside_ledger", link),
    }
    assert instance.sql(ALIVE).strip() == "f|f|t"
    # "Undo freeze" in the pages does not open it.
    instance.sql("UPDATE users SET disabled = false WHERE email = 'i@intruder.test'", user="mastodon")
    assert instance.sql(ALIVE).strip() == "f|f|t"
    assert {"agency.html", "council.html", "server.html"} == {page.name for page in tmp_path.iterdir()}
    assert "@intruder" in (tmp_path / "server.html").read_text()
    assert instance.root(f"stat -c '%U %a' {REPORT}").strip() == "root 640"
    assert "sweep by" in instance.root("journalctl -t mastodon-gov -n 5 -o cat")
    # The timer's unit does the same inside its sandbox, streams included.
    instance.sql("UPDATE users SET disabled = false WHERE email = 'i@intruder.test'")
    instance.root("systemctl start mfg-sweep.service")
    assert instance.sql(ALIVE).strip() == "f|f|t"
    assert ("foreign_address", "@intruder") in _told(json.loads(instance.root(f"cat {REPORT}")))


def test_an_intruder_is_shut_and_told_of_within_a_minute(instance: Deployed) -> None:
    """By the timer alone; `status` needs a person then."""
    _sweep(instance)  # what earlier tests left is no news any more
    since = len(read_mail(instance.demo.lab))
    instance.sql(BREAK)
    began = time.monotonic()
    try:
        wait_for(lambda: instance.sql(ALIVE).startswith("f|f"), 60, "the account is shut")
        told = "disable: foreign_address @intruder"
        left = 60 - (time.monotonic() - began)
        wait_for(lambda: any(told in text_of(m) for m in read_mail(instance.demo.lab)[since:]), left, "the mail")
        assert "the sweep found 1 foreign_address" in instance.cli("status", check=False).stdout
    finally:
        instance.sql(MEND)


def test_the_sweep_runs_by_itself(instance: Deployed) -> None:
    """Also after a reboot; and a deploy has left a report."""
    assert instance.root("systemctl is-enabled mfg-sweep.timer").strip() == "enabled"
    assert instance.root("systemctl is-active mfg-sweep.timer").strip() == "active"
    assert json.loads(instance.root(f"cat {REPORT}"))["organisations"] == 2


def test_two_thousand_accounts_and_three_hundred_organisations(instance: Deployed) -> None:
    """One statement, whatever the size, in far less than ten seconds; the rows are never committed."""
    statement = instance.root(f"cat {LIB}/sweep.sql")
    config = json.loads(instance.root("cat /etc/mastodon-gov/sweep.json"))
    config["domains"] = [f"body{n}.test" for n in range(1, 301)]
    config["organisations"] = [{"id": f"b{n}", "name": "B", "domains": [f"body{n}.test"]} for n in range(1, 301)]
    now = "SELECT extract(epoch FROM clock_timestamp());"
    before, rows, after = instance.sql(f"{MANY}{now}{statement}\n{now}ROLLBACK;").strip().splitlines()
    began = time.monotonic()
    seen = json.loads(rows)
    found = list(findings(seen, config))
    program.report(seen, config, found, 0)
    assert float(after) - float(before) + time.monotonic() - began < 10
    assert sum(one["finding"] == "missing_second_factor" for one in found) >= 2000
    assert sum(one["finding"] == "unknown_application" for one in found) >= 2000
    assert instance.sql("SELECT count(*) FROM accounts WHERE username LIKE 'many%'").strip() == "0"
