"""Invitations from the operator's verb to the sign-up, through the real command and a real database."""

# ruff: noqa: S608 - the SQL is made of constants of these tests
from __future__ import annotations

import json
from unittest.mock import patch

import pytest
from click.testing import CliRunner, Result

from mastodon_gov import invite as verbs
from mastodon_gov.errors import Refusal
from mastodon_gov.invite import PSQL
from tests.lab.lock.database import Database, Server, sign_up


@pytest.fixture(scope="module")
def pattern(server: Server) -> Database:
    """The database that each test gets a copy of."""
    return server.locked("pattern", "4.6.5")


@pytest.fixture
def database(server: Server, pattern: Database) -> Database:
    return server.copy(pattern)


def verb(database: Database, *arguments: str) -> Result:
    """The verb, run on the machine by root as it will be; only the database's name differs."""

    def run_on_host(argv: list[str], stdin: str) -> str:
        assert not any("@" in word for word in argv), "addresses never travel on a command line"
        here = [database.name if word == "mastodon_production" else word for word in argv]
        return database.machine.exec(here, stdin=stdin).stdout

    with patch.object(verbs, "on_host", lambda directory: run_on_host):
        return CliRunner().invoke(getattr(verbs, arguments[0]), list(arguments[1:]))


def invite(database: Database, address: str, *more: str) -> Result:
    return verb(database, "invite", address, "--organisation", "it", "--by", "ana", *more)


def code_of(result: Result) -> str:
    assert result.exit_code == 0, result.exception
    start = "https://social.agency.test/invite/"
    assert result.stdout.startswith(start)
    return result.stdout.strip().removeprefix(start)


def sign_up_with(database: Database, code: str, address: str) -> int:
    link = f"(SELECT id FROM invites WHERE code = '{code}')"
    return database.psql(f"BEGIN; {sign_up(address, link)} COMMIT;", "mastodon").code


def states(database: Database) -> list[tuple[str, str]]:
    entries = json.loads(verb(database, "invitations", "--json").stdout)
    return [(e["address"], e["state"]) for e in entries]


def test_from_invitation_to_account(database: Database) -> None:
    code = code_of(invite(database, "J.O'Brien+x@Agency.test", "--why", 'new "press" desk; -- \\'))
    assert states(database) == [("j.o'brien+x@agency.test", "open")]
    assert sign_up_with(database, code, "other@agency.test") != 0
    assert sign_up_with(database, code, "j.o'brien+x@agency.test") == 0
    assert states(database) == [("j.o'brien+x@agency.test", "used")]
    assert "press" in verb(database, "invitations").stdout
    again = invite(database, "j.o'brien+x@agency.test")
    assert isinstance(again.exception, Refusal)
    assert "already has an account" in str(again.exception)


def test_inviting_twice_shows_the_same_link(database: Database) -> None:
    first = code_of(invite(database, "jane@agency.test"))
    assert code_of(invite(database, "JANE@agency.test")) == first
    other = invite(database, "jane@agency.test", "--role", "Moderator")
    assert "revoke it first" in str(other.exception)
    assert len(states(database)) == 1


def test_revoked_link_is_dead(database: Database) -> None:
    code = code_of(invite(database, "jane@agency.test"))
    assert "is revoked" in verb(database, "revoke", "jane@agency.test").stdout
    assert sign_up_with(database, code, "jane@agency.test") != 0
    assert database.must("SELECT count(*) FROM invites WHERE expires_at > now() AT TIME ZONE 'UTC'") == "0"
    assert "nothing changed" in verb(database, "revoke", "jane@agency.test").stdout
    assert "never invited" in str(verb(database, "revoke", "x@agency.test").exception)
    assert code_of(invite(database, "jane@agency.test")) != code


OTHER_INVITER = (
    "INSERT INTO accounts (id, username, created_at, updated_at) VALUES (2, 'desk', now(), now());"
    "INSERT INTO users (id, email, encrypted_password, account_id, confirmed_at,"
    " otp_required_for_login, role_id, created_at, updated_at) SELECT "
    "2, 'desk@agency.test', 'x', 2, now(), true, role_id, now(), now() FROM users WHERE id = 1;"
)
DEAD = {
    "deactivated in the admin pages": "UPDATE invites SET expires_at = now() AT TIME ZONE 'UTC'",
    "deleted": "DELETE FROM invites",
    "another inviter": OTHER_INVITER + "INSERT INTO gov.setting VALUES ('inviter', 'desk')",
    "the inviter deleted": OTHER_INVITER + "DELETE FROM users WHERE id = 1",
}


@pytest.mark.parametrize("name", DEAD)
def test_a_link_that_leads_nowhere_is_not_shown_again(database: Database, name: str) -> None:
    """Also where another role is wanted: there is no open invitation that could stand in its way."""
    code = code_of(invite(database, "jane@agency.test"))
    database.must(DEAD[name])
    again = code_of(invite(database, "jane@agency.test", "--role", "Moderator"))
    assert again != code
    assert states(database) == [("jane@agency.test", "revoked"), ("jane@agency.test", "open")]
    assert "invites" not in database.status()["failed"]
    assert code_of(invite(database, "jane@agency.test", "--role", "Moderator")) == again
    assert sign_up_with(database, code, "jane@agency.test") != 0
    assert sign_up_with(database, again, "jane@agency.test") == 0


def test_an_open_invitation_without_anybody_to_invite_is_a_sentence(database: Database) -> None:
    code_of(invite(database, "jane@agency.test"))
    database.must("DELETE FROM users")
    assert "No account can invite" in str(invite(database, "jane@agency.test").exception)


def test_expired_invitation_is_dead_and_can_be_made_anew(database: Database) -> None:
    code = code_of(invite(database, "jane@agency.test"))
    database.must(
        "UPDATE gov.invitation SET created_at = now() - interval '80 hours', expires_at = now() - interval '8 hours'"
    )
    assert sign_up_with(database, code, "jane@agency.test") != 0
    assert states(database) == [("jane@agency.test", "expired")]
    assert sign_up_with(database, code_of(invite(database, "jane@agency.test")), "jane@agency.test") == 0
    assert states(database) == [("jane@agency.test", "expired"), ("jane@agency.test", "used")]


def test_role_comes_with_the_account(database: Database) -> None:
    code = code_of(invite(database, "mod@agency.test", "--role", "Moderator"))
    assert sign_up_with(database, code, "mod@agency.test") == 0
    assert (
        database.must("SELECT r.name, approved FROM users u JOIN user_roles r ON r.id = role_id WHERE u.id = 77")
        == "Moderator|f"
    )


@pytest.mark.parametrize("state", ["requested", "leaving"])
def test_an_organisation_without_a_place_gets_no_new_accounts(database: Database, state: str) -> None:
    database.must(f"UPDATE gov.organisation SET state = '{state}'")
    assert f'"it" is {state}' in str(invite(database, "jane@agency.test").exception)
    assert states(database) == []


@pytest.mark.parametrize("state", ["requested", "leaving"])
def test_an_invitation_rests_while_its_organisation_has_no_place(database: Database, state: str) -> None:
    """As long as the organisation is not approved or live, whatever it was when it invited."""
    code = code_of(invite(database, "jane@agency.test"))
    database.must(f"UPDATE gov.organisation SET state = '{state}'")
    assert sign_up_with(database, code, "jane@agency.test") != 0
    database.must("UPDATE gov.organisation SET state = 'approved'")
    assert sign_up_with(database, code, "jane@agency.test") == 0


WRONG = {
    "foreign address": (["x@world.test"], "not a staff address"),
    "no address": (["jane"], "not a staff address"),
    "SQL": (["'); DROP SCHEMA gov CASCADE; --@agency.test"], "not a staff address"),
    "another organisation": (["jane@agency.test", "--organisation", "press"], 'belongs to the organisation "it"'),
    "administrator": (["jane@agency.test", "--role", "Owner"], "administrator permission"),
    "unknown role": (["jane@agency.test", "--role", "Clerk"], "0 roles named"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_invitations_are_refused_with_a_sentence(database: Database, name: str) -> None:
    arguments, sentence = WRONG[name]
    result = invite(database, *arguments)
    assert isinstance(result.exception, Refusal)
    assert sentence in str(result.exception)
    assert states(database) == []
    assert database.must("SELECT count(*) FROM invites") == "0"


INVITERS = {
    "no second factor": (
        "UPDATE users SET otp_required_for_login = false; UPDATE user_roles SET require_2fa = true",
        "has no second factor yet",
    ),
    "frozen": ("UPDATE users SET disabled = true", "not an active account"),
    "nobody": ("DELETE FROM users", "No account can invite"),
    "named and missing": ("INSERT INTO gov.setting VALUES ('inviter', 'desk')", "the inviter @desk"),
}


@pytest.mark.parametrize("name", INVITERS)
def test_inviter_whose_links_mastodon_would_refuse(database: Database, name: str) -> None:
    sql, sentence = INVITERS[name]
    database.must(sql)
    assert sentence in str(invite(database, "jane@agency.test").exception)
    assert states(database) == []


def test_named_inviter_is_used(database: Database) -> None:
    database.must(
        "INSERT INTO accounts (id, username, created_at, updated_at) VALUES (2, 'desk', now(), now());"
        "INSERT INTO users (id, email, encrypted_password, account_id, confirmed_at,"
        " otp_required_for_login, created_at, updated_at) VALUES "
        "(2, 'desk@agency.test', 'x', 2, now(), true, now(), now());"
        "INSERT INTO gov.setting VALUES ('inviter', 'Desk')"
    )
    code = code_of(invite(database, "jane@agency.test"))
    assert database.must(f"SELECT user_id FROM invites WHERE code = '{code}'") == "2"


def test_only_the_operator_may_run_the_verb(database: Database) -> None:
    argv = [w for w in PSQL[4:] if w not in ("-U", "mastodon_owner")]
    here = [database.name if w == "mastodon_production" else w for w in argv]
    assert "permission denied" in database.run(here, "SELECT gov.invitations()", "mastodon").error
