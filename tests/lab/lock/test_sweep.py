"""What the sweep reads and writes, on a real database with Mastodon's columns. What it calls a finding: tests/unit."""

# ruff: noqa: S608 - the SQL is made of constants of these tests
from __future__ import annotations

import json
from typing import Any

import pytest

from roles.mastodon.files import leaving, leaving_database, sweep
from roles.mastodon.files.sweep_findings import finding
from tests.lab.lock.database import Database, Server, invited, sign_up

NOW = "now(), now()"
LINK = "(SELECT max(id) FROM invites)"
MODERATOR = "(SELECT id FROM user_roles WHERE name = 'Moderator')"


@pytest.fixture(scope="module", params=["4.5.15", "4.6.5"])
def pattern(server: Server, request: pytest.FixtureRequest) -> Database:
    """@new was invited as a moderator, and is one."""
    made = server.locked("swept_" + request.param.replace(".", "_"), request.param)
    made.must(invited("jane@agency.test"), "mastodon_owner")
    made.must(f"UPDATE gov.invitation SET role_id = {MODERATOR}")
    made.must(f"BEGIN; {sign_up('jane@agency.test', LINK)} COMMIT;", "mastodon")
    made.must("UPDATE users SET approved = true, confirmed_at = now() WHERE id = 77", "mastodon")
    return made


@pytest.fixture
def database(server: Server, pattern: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A copy, and the host's programs that talk to it; streams and journal are not here."""
    copy = server.copy(pattern)
    for module in (sweep, leaving_database):
        words = [copy.name if word == "mastodon_production" else word for word in module.PSQL]
        monkeypatch.setattr(module, "PSQL", [*copy.machine.enter(), *words])
    for module, silent in ((sweep, "kill_streams"), (leaving, "kill_streams"), (leaving, "journal")):
        monkeypatch.setattr(module, silent, lambda *_: None)
    return copy


def seen(database: Database) -> dict[str, Any]:
    """The answer of sweep.sql."""
    found: dict[str, Any] = json.loads(sweep.query((leaving.HERE / "sweep.sql").read_text()))
    return found


def account(database: Database, name: str = "new") -> dict[str, Any]:
    """What it says of an account."""
    (found,) = (each for each in seen(database)["accounts"] if each["name"] == name)
    return dict(found)


def test_roles_and_where_they_come_from(database: Database) -> None:
    """By the invitation, or by hand: then both stand side by side."""
    assert [account(database)[key] for key in ("role", "invited_role")] == ["Moderator"] * 2
    assert [account(database, "owner")[key] for key in ("role", "invited_role")] == ["Owner", None]
    database.must(
        "UPDATE users SET role_id = (SELECT id FROM user_roles WHERE name = 'Owner') WHERE id = 77", "mastodon"
    )
    assert [account(database)[key] for key in ("role", "invited_role")] == ["Owner", "Moderator"]


def test_a_role_made_by_hand_is_found_also_with_every_right(database: Database) -> None:
    """Only the Owner of the seeds is nobody's."""
    assert seen(database)["roles_outside"] == ["Moderator"]
    made = "INSERT INTO user_roles (name, permissions, created_at, updated_at) VALUES"
    database.must(f"{made} ('Boss', 1, {NOW}), ('Owner', 1, {NOW})", "mastodon")
    assert seen(database)["roles_outside"] == ["Boss", "Moderator", "Owner"]
    database.must("DELETE FROM user_roles WHERE name IN ('Owner', 'Moderator')")
    assert seen(database)["roles_outside"] == ["Boss"]


FAULTS = {
    "cleanup": f"INSERT INTO account_statuses_cleanup_policies (account_id, created_at, updated_at) VALUES (77, {NOW})",
    "moved": "UPDATE accounts SET moved_to_account_id = 1 WHERE id = 77",
    "passwordless": "UPDATE users SET encrypted_password = '' WHERE id = 77",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_the_operator_may_do_shows(database: Database, fault: str) -> None:
    """One fault, one mark; a policy that is off and an identity of single sign-on are none."""
    assert [account(database)[name] for name in FAULTS] == [False] * 3
    database.must(FAULTS[fault])
    assert [account(database)[name] for name in FAULTS] == [name == fault for name in FAULTS]
    database.must("UPDATE account_statuses_cleanup_policies SET enabled = false")
    database.must("UPDATE accounts SET moved_to_account_id = NULL")
    database.must(
        f"INSERT INTO identities (provider, uid, user_id, created_at, updated_at) VALUES ('saml', 'x', 77, {NOW})"
    )
    assert [account(database)[name] for name in FAULTS] == [False] * 3


def test_the_register_shows_whole(database: Database) -> None:
    """A domain that somebody gave to another body in the database, and a setting of the lock."""
    assert seen(database)["register"]["council"] == {"state": "live", "domains": ["council.test"]}
    database.must("UPDATE gov.staff_domain SET organisation = 'it' WHERE domain = 'council.test';")
    database.must("INSERT INTO gov.setting VALUES ('inviter', 'x')")
    assert seen(database)["register"]["council"] == {"state": "live", "domains": []}
    assert seen(database)["settings"] == {"inviter": "x"}


def test_whom_the_sweep_disables_only_handback_opens(database: Database) -> None:
    """ "Undo freeze" in Mastodon's pages does nothing; afterwards the role is what it was. Twice is no error."""
    act = {"foreign_address": "disable"}
    config = {"act": act, "owner": "owner"}
    for _ in range(2):
        one = finding("foreign_address", "@new", "x", "y", "z", account=account(database) | {"disabled": False})
        sweep.act([one], config, by="o'hara")
    database.must("UPDATE users SET disabled = false, role_id = NULL WHERE id = 77", "mastodon")
    assert account(database)["disabled"]
    (row,) = json.loads(database.must("SELECT gov.lockdowns()"))
    assert [row[key] for key in ("verb", "locked_by", "why")] == ["sweep", "o'hara", "foreign_address"]
    session = leaving_database.Session()
    leaving.handback(session, {"handles": ["new"], "must": ["new"], "verb": "handback", "by": "ana", "why": "mistake"})
    session.psql.communicate()
    assert [account(database)[key] for key in ("disabled", "role")] == [False, "Moderator"]


def test_without_its_row_anybody_who_moderates_opens_it(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the row carries its weight."""
    start, rest = sweep.ACT.split("INSERT INTO gov.lockdown")
    monkeypatch.setattr(sweep, "ACT", start + rest.partition("DO NOTHING;")[2])
    one = finding("foreign_address", "@new", "x", "y", "z", account=account(database))
    sweep.act([one], {"act": {"foreign_address": "disable"}, "owner": "owner"})
    assert account(database)["disabled"]
    database.must("UPDATE users SET disabled = false WHERE id = 77", "mastodon")
    assert not account(database)["disabled"]
