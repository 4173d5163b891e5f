"""The owner's role is found by its permission: its holder can give it another name, and its name to another role."""

# ruff: noqa: S608 - the SQL is made of constants of these tests
from __future__ import annotations

import pytest

from roles.mastodon.files.owner_account import ROLE
from tests.lab.lock.database import Database, Server

HIJACKED = """UPDATE user_roles SET name = 'Press' WHERE name = 'Owner';
INSERT INTO user_roles (name, permissions, position, created_at, updated_at) VALUES ('Owner', 0, 2000, now(), now());
UPDATE users SET role_id = (SELECT id FROM user_roles WHERE name = 'Owner');"""
CASES = {
    "as it was": ("UPDATE users SET role_id = NULL", "1|3"),
    "renamed, and its name given away": (HIJACKED, "1|4"),
    "no administrator left": (HIJACKED + "UPDATE user_roles SET permissions = 0;", "1|5"),
}


@pytest.fixture(scope="module", params=["4.5.15", "4.6.5"])
def database(server: Server, request: pytest.FixtureRequest) -> Database:
    return server.locked("glass_" + request.param.replace(".", "_"), request.param)


@pytest.mark.parametrize("name", CASES)
def test_the_owner_gets_a_role_that_administers(database: Database, name: str) -> None:
    """Twice, so that a second time makes no second role."""
    before, held = CASES[name]
    given = "\\set username OWNER\n" + ROLE
    told = (
        "SELECT permissions, (SELECT count(*) FROM user_roles) FROM user_roles WHERE id = (SELECT role_id FROM users)"
    )
    database.must(f"BEGIN; {before}; ROLLBACK;", "mastodon")  # it is what the application itself may do
    as_owner = "SET SESSION AUTHORIZATION mastodon_owner;"
    assert database.must(f"BEGIN; {before}; {as_owner}\n{given}\n{given} {told}; ROLLBACK;") == held
    assert database.status()["failed"] == []
