"""Every known way in, one row each: what Mastodon would send to the database when somebody takes it, as the
application's role, on the deployed instance. Each is refused, and each goes through once its mechanism is taken away.

The same ways through pages, interface and `tootctl`: test_staff_only.py; what the operating-system user can try:
test_application_user.py. Everything here is rolled back.
"""

# ruff: noqa: S608 - the SQL is made of constants of these tests
from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.lab.deployed import Deployed
from tests.lab.people import browser, tootctl

NEW = "INSERT INTO accounts (id, username, created_at, updated_at) VALUES (77, 'new_77', now(), now());"
LINK = "(SELECT invite_id FROM gov_link)"
# The guest list: jane of the agency has an open invitation. The owner's second factor is what makes it possible.
SETUP = """\
UPDATE users SET otp_required_for_login = true WHERE role_id IN (SELECT id FROM user_roles WHERE permissions & 1 = 1);
SELECT gov.invite('{"address": "jane77@agency.test", "organisation": "agency", "by": "a test"}') ->> 'refusal';
CREATE TABLE gov_link AS
SELECT invite_id FROM gov.invitation WHERE address = 'jane77@agency.test' AND revoked_at IS NULL;
GRANT SELECT ON gov_link TO mastodon;
"""
CHECK = "ALTER TABLE users DISABLE TRIGGER gov_users_check;"
REGISTER, LEDGER, CLOSED = "not in the staff register", "no open invitation", "Registration is locked"


@dataclass(frozen=True)
class Way:
    """What is tried, what the refusal says, what takes the mechanism away, what was there before (as postgres)."""

    sql: str
    says: str
    without: str = CHECK
    before: str = ""


def join(address: str, invite: str = LINK, password: str = "x") -> str:  # noqa: S107
    """Somebody signs up."""
    return (
        f"{NEW} INSERT INTO users (id, email, encrypted_password, account_id, invite_id, created_at, updated_at) "
        f"VALUES (77, $a${address}$a$, '{password}', 77, {invite}, now(), now());"
    )


def settle(sql: str, proof: str) -> str:
    """An attempt that is silently made harmless; it divides by zero unless it worked."""
    return f"{sql}; SELECT 1 / (SELECT count(*) FROM {proof});"


USED = "UPDATE gov.invitation SET used_at = now() WHERE address = 'jane77@agency.test';"
OLD = ("UPDATE gov.invitation SET created_at = now() - interval '80 hours', expires_at = now() - interval '8 hours' "
       "WHERE address = 'jane77@agency.test';")  # fmt: skip
MEMBER = join("jane77@agency.test") + "UPDATE users SET approved = true, confirmed_at = now() WHERE id = 77;"
SHUT = (MEMBER + """SELECT gov.shut('{"users": [77], "verb": "offboard", "by": "a", "why": "b", "evidence": "c"}');"""
        "UPDATE users SET disabled = true WHERE id = 77;")  # fmt: skip
LEAVES = "UPDATE gov.organisation SET state = 'leaving' WHERE id = 'agency';"
OWN_LINK = ("INSERT INTO invites (id, user_id, code, created_at, updated_at) SELECT 777, id, 'own77', now(), now() "
            "FROM users LIMIT 1;")  # fmt: skip
LOCKED = "ALTER TABLE users DISABLE TRIGGER gov_users_locked;"
WAYS = {
    "a stranger with the link": Way(join("x@world.test"), REGISTER),
    "a stranger without a link": Way(join("x@world.test", "NULL"), REGISTER),
    "a colleague without an invitation": Way(join("joe77@agency.test", "NULL"), LEDGER),
    "a colleague with a forwarded link": Way(join("joe77@agency.test"), LEDGER),
    "a member of another organisation with the link": Way(join("cy77@council.test"), LEDGER),
    "a plus-address of the invited": Way(join("jane77+2@agency.test"), LEDGER),
    "a sub-domain": Way(join("jane77@mail.agency.test"), REGISTER),
    "the domain as a tail": Way(join("jane77@evilagency.test"), REGISTER),
    "the domain as a head": Way(join("jane77@agency.test.world.test"), REGISTER),
    "a trailing dot": Way(join("jane77@agency.test."), REGISTER),
    "capitals of a stranger": Way(join("X@WORLD.TEST"), REGISTER),
    "a Cyrillic letter in the domain": Way(join("jane77@аgency.test"), REGISTER),
    "a Cyrillic letter in the name": Way(join("jаne77@agency.test"), REGISTER),
    "wide letters": Way(join("jane77@ａgency.test"), REGISTER),
    "a combined accent": Way(join("jane77@a\u0301gency.test"), REGISTER),
    "an invisible letter": Way(join("jane77\u200b@agency.test"), REGISTER),
    "punycode of a look-alike": Way(join("jane77@xn--gency-3ve.test"), REGISTER),
    "two addresses": Way(join("x@world.test,jane77@agency.test"), REGISTER),
    "a quoted name": Way(join('"x@world.test"@agency.test'), REGISTER),
    "a source route": Way(join("x%world.test@agency.test"), REGISTER),
    "a line break": Way(join("x@world.test\njane77@agency.test"), REGISTER),
    "a blank": Way(join("jane77@agency.test "), REGISTER),
    "no address": Way(join(""), REGISTER),
    "a used invitation": Way(join("jane77@agency.test"), LEDGER, before=USED),
    "an expired invitation": Way(join("jane77@agency.test"), LEDGER, before=OLD),
    "a revoked invitation": Way(
        join("jane77@agency.test"), LEDGER,
        before="""SELECT gov.revoke('{"address": "jane77@agency.test", "by": "a"}');"""
    ),
    "an invitation of an organisation that has begun to leave": Way(join("jane77@agency.test"), LEDGER, before=LEAVES),
    "confirmed by the form": Way(
        settle(join("jane77@agency.test").replace("invite_id, created_at", "invite_id, confirmed_at, created_at")
               .replace(f"77, {LINK},", f"77, {LINK}, now(),"), "users WHERE id = 77 AND confirmed_at IS NOT NULL"),
        "division by zero", "ALTER TABLE users DISABLE TRIGGER gov_users_arrival;"),
    "a link the application made": Way(OWN_LINK + join("joe77@agency.test", "777"), LEDGER),
    "an old link without limits": Way(
        OWN_LINK + settle("UPDATE invites SET expires_at = NULL, max_uses = NULL WHERE id = 777",
                          "invites WHERE id = 777 AND "
                          "(expires_at IS NULL OR expires_at > clock_timestamp() AT TIME ZONE 'UTC')"),
        "division by zero", "ALTER TABLE invites DISABLE TRIGGER gov_invites_clamp;"),
    "single sign-on of somebody unknown": Way(join("jane77@agency.test", password=""), "No account is prepared"),
    "an identity tied to somebody's account": Way(
        "INSERT INTO identities (provider, uid, user_id, created_at, updated_at) SELECT 'oidc', 'evil', id, now(), "
        "now() FROM users LIMIT 1", "No account is prepared",
        "ALTER TABLE identities DISABLE TRIGGER gov_identities_check;"),
    "the address changed later": Way("UPDATE users SET email = 'x@world.test' WHERE id = 77", REGISTER, before=MEMBER),
    "the address about to change": Way(
        "UPDATE users SET unconfirmed_email = 'x@world.test' WHERE id = 77", REGISTER, before=MEMBER),
    "an address of another organisation": Way(
        "UPDATE users SET unconfirmed_email = 'jane77@council.test' WHERE id = 77", "its organisation", before=MEMBER),
    "an account without a person": Way(
        NEW + "SET CONSTRAINTS ALL IMMEDIATE", "a person who was invited",
        "ALTER TABLE accounts DISABLE TRIGGER gov_accounts_person;"),
    "a forwarded link, then the own address": Way(
        join("jane77@agency.test") + "UPDATE users SET unconfirmed_email = 'joe77@agency.test' WHERE id = 77",
        "keeps the address"),
    "the password emptied": Way(
        "UPDATE users SET encrypted_password = '' WHERE id = 77", "cannot be emptied", before=MEMBER),
    "an ex-member unfrozen": Way(
        settle("UPDATE users SET disabled = false WHERE id = 77", "users WHERE id = 77 AND NOT disabled"),
        "division by zero", LOCKED, SHUT),
    "an ex-member's forgotten password": Way(
        settle("UPDATE users SET reset_password_token = 'x' WHERE id = 77",
               "users WHERE id = 77 AND reset_password_token IS NOT NULL"), "division by zero", LOCKED, SHUT),
    "an ex-member with the same invitation": Way(
        join("jane77@agency.test"), LEDGER, before=USED),
    "approved by the form": Way(
        settle(join("jane77@agency.test").replace("invite_id, created_at", "invite_id, approved, created_at")
               .replace(f"77, {LINK},", f"77, {LINK}, true,"), "users WHERE id = 77 AND approved"),
        "division by zero", "ALTER TABLE users DISABLE TRIGGER gov_users_arrival;"),
    "born an owner": Way(
        settle(join("jane77@agency.test").replace("invite_id, created_at", "invite_id, role_id, created_at")
               .replace(f"77, {LINK},", f"77, {LINK}, (SELECT id FROM user_roles WHERE name = 'Owner'),"),
               "users WHERE id = 77 AND role_id IS NOT NULL"),
        "division by zero", "ALTER TABLE users DISABLE TRIGGER gov_users_arrival;"),
    "everyone may invite": Way(
        settle("UPDATE user_roles SET permissions = 65536 WHERE id = -99",
               "user_roles WHERE id = -99 AND permissions > 0"),
        "division by zero", "ALTER TABLE user_roles DISABLE TRIGGER gov_roles_clamp;"),
    "registration opened": Way(
        "INSERT INTO settings (var, value, created_at, updated_at) VALUES ('registrations_mode', E'--- open\\n', "
        "now(), now()) ON CONFLICT (var) DO UPDATE SET value = excluded.value", CLOSED,
        "ALTER TABLE settings DISABLE TRIGGER gov_settings_check;"),
    "MERGE": Way(
        NEW + "MERGE INTO users USING (SELECT 1) s ON false WHEN NOT MATCHED THEN INSERT "
        "(id, email, account_id, created_at, updated_at) VALUES (77, 'x@world.test', 77, now(), now())", REGISTER),
    "a conflict that updates": Way(
        "INSERT INTO users (id, email, account_id, created_at, updated_at) SELECT 77, email, account_id, now(), now() "
        "FROM users WHERE email = 'owner@agency.test' ON CONFLICT (email) DO UPDATE SET email = 'x@world.test'",
        REGISTER),
    "the register": Way(
        "INSERT INTO gov.staff_domain VALUES ('world.test')", "permission denied",
        "GRANT USAGE ON SCHEMA gov TO mastodon; GRANT INSERT ON gov.staff_domain TO mastodon;"),
    "the ledger": Way(
        "UPDATE gov.invitation SET address = 'joe77@agency.test'", "permission denied",
        "GRANT USAGE ON SCHEMA gov TO mastodon; GRANT SELECT, UPDATE ON gov.invitation TO mastodon;"),
    "the trigger switched off": Way(
        "ALTER TABLE users DISABLE TRIGGER gov_users_check", "must be owner",
        "ALTER EVENT TRIGGER gov_lock DISABLE; ALTER TABLE users OWNER TO mastodon;"),
    "all triggers switched off": Way(
        "SET session_replication_role = replica", "permission denied",
        "GRANT SET ON PARAMETER session_replication_role TO mastodon;"),
    "the operator's role": Way("SET ROLE mastodon_owner", "permission denied", "GRANT mastodon_owner TO mastodon;"),
}  # fmt: skip


def _try(instance: Deployed, way: Way, *, without: bool) -> str:
    """What psql says; "" when nothing stood in the way. As the application's role, and rolled back."""
    script = (
        f"BEGIN; {SETUP}{way.before}{way.without if without else ''}SET SESSION AUTHORIZATION mastodon;\n\\echo begin\n"
    )
    answer = instance.machine().exec(
        "runuser -u postgres -- psql -qtAX -v ON_ERROR_STOP=1 -d mastodon_production -f -".split(),
        stdin=f"{script}{way.sql}\n;\nROLLBACK;",
        check=False,
    )
    assert "begin" in str(answer.stdout), f"the way could not be tried: {answer.stderr}"
    return str(answer.stderr)


@pytest.mark.parametrize("name", WAYS)
def test_it_is_refused(instance: Deployed, name: str) -> None:
    """For the reason it should be."""
    assert WAYS[name].says in _try(instance, WAYS[name], without=False)


@pytest.mark.long
@pytest.mark.parametrize("name", WAYS)
def test_it_is_open_without_its_mechanism(instance: Deployed, name: str) -> None:
    """So each row can go red."""
    assert _try(instance, WAYS[name], without=True) == ""


def test_there_are_enough_ways_and_the_right_one_works(instance: Deployed) -> None:
    """The invited person, in whatever case; otherwise the refusals above would prove nothing."""
    assert len(WAYS) >= 30
    assert _try(instance, Way(join("Jane77@AGENCY.test"), ""), without=False) == ""


@pytest.mark.parametrize("user", ["mastodon", "mastodon-owner"])
def test_tootctl_moves_nobody_to_a_foreign_address(instance: Deployed, user: str) -> None:
    """Neither the application's user nor the operator."""
    code, said = tootctl(instance, "accounts", "modify", "owner", "--email", "x@outside.test", "--confirm", user=user)
    assert code, said
    assert instance.sql("SELECT count(*) FROM users WHERE email = 'owner@agency.test'").strip() == "1"


def test_the_password_page_says_nothing(instance: Deployed) -> None:
    """A stranger cannot learn from it who has an account."""
    answers = [
        browser(instance).fill("/auth/password/new", "/auth/password", **{"user[email]": address})
        for address in ("nobody77@agency.test", "x@world.test")
    ]
    assert {(each.status, each.where) for each in answers} == {(302, "/auth/sign_in")}
