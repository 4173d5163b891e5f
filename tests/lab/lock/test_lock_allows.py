"""The twins of the attacks: what must go on working under the lock, and what is clamped instead of refused."""

# ruff: noqa: S608 - the SQL is made of constants of these tests
from __future__ import annotations

import pytest

from tests.lab.lock.database import Database, Server, invited, setting_row, sign_up

APP, OWNER = "mastodon", "mastodon_owner"
LINK = "(SELECT max(id) FROM invites)"
NOW = "now(), now()"
REMOTE = (
    "INSERT INTO accounts (id, username, domain, created_at, updated_at) VALUES (90, 'x', 'world.test', now(), now());"
)
BYPASS, INVITE = 2097152, 65536


@pytest.fixture(scope="module", params=["4.5.15", "4.6.5"])
def database(server: Server, request: pytest.FixtureRequest) -> Database:
    made = server.locked("allowed_" + request.param.replace(".", "_"), request.param)
    made.must(invited("jane@agency.test"), OWNER)
    return made


def seen(database: Database, sql: str, user: str = APP) -> str:
    """What the last SELECT returns; the transaction is rolled back."""
    return database.must(f"BEGIN; {sql}; ROLLBACK;", user)


# Statement as the application's role.
APPLICATION = {
    "invited address": sign_up("jane@agency.test", LINK),
    "account first, then its person": sign_up("jane@agency.test", LINK) + "SET CONSTRAINTS ALL IMMEDIATE",
    "Mastodon's own actor": f"INSERT INTO accounts (id, username, created_at, updated_at) VALUES (-99, 'x', {NOW});"
    "SET CONSTRAINTS ALL IMMEDIATE",
    "a newer name of Mastodon's own actor": f"INSERT INTO accounts (id, username, created_at, updated_at) VALUES (-99, "
    f"'old:name', {NOW}); UPDATE accounts SET username = 'mastodon.internal' WHERE id = -99;"
    "SET CONSTRAINTS ALL IMMEDIATE",
    "account of another server": REMOTE + "UPDATE accounts SET domain = 'else.test' WHERE id = 90;"
    "UPDATE accounts SET username = 'y', id = 91, memorial = true WHERE id = 90; SET CONSTRAINTS ALL IMMEDIATE",
    "the same in capitals": sign_up("Jane@Agency.TEST", LINK),
    "change to another staff address": "UPDATE users SET unconfirmed_email = 'owner+2@agency.test';"
    "UPDATE users SET email = unconfirmed_email, unconfirmed_email = NULL",
    "confirmation, approval, then a change of address": sign_up("jane@agency.test", LINK)
    + "UPDATE users SET confirmed_at = now(), confirmation_token = NULL WHERE id = 77; "
    "UPDATE users SET approved = true WHERE id = 77; "
    "UPDATE users SET unconfirmed_email = 'j@agency.test' WHERE id = 77;"
    "UPDATE users SET email = unconfirmed_email, unconfirmed_email = NULL WHERE id = 77",
    "unconfirmed sign-ups cleaned up": sign_up("jane@agency.test", LINK)
    + "DELETE FROM accounts WHERE id = 77; DELETE FROM users WHERE id = 77",
    "registered punycode": "UPDATE users SET email = 'owner@xn--bcher-kva.test'",
    "sign-in": "UPDATE users SET sign_in_count = 1, encrypted_password = 'y'",
    "link removed with the account kept": sign_up("jane@agency.test", LINK) + "DELETE FROM invites",
    "account deleted": sign_up("jane@agency.test", LINK) + "DELETE FROM accounts WHERE id = 77",
    "closing registration": setting_row("E'--- none\\n'").rstrip(";")
    + " ON CONFLICT (var) DO UPDATE SET value = excluded.value",
    "clean-up policy that is off": "INSERT INTO account_statuses_cleanup_policies (account_id, enabled, created_at, "
    f"updated_at) VALUES (1, false, {NOW})",
    "account of another server suspended": REMOTE + "UPDATE accounts SET suspended_at = now() WHERE id = 90;"
    f"INSERT INTO account_deletion_requests (account_id, created_at, updated_at) VALUES (90, {NOW})",
    "account of another server moved and gone": REMOTE + "UPDATE accounts SET moved_to_account_id = 1 WHERE id = 90;"
    "DELETE FROM accounts WHERE id = 90",
    "redirection taken back": "UPDATE accounts SET moved_to_account_id = NULL, suspended_at = NULL",
    "account frozen": "UPDATE users SET disabled = true",
    "another setting": setting_row("'--- open'", "theme"),
    "setting removed": "DELETE FROM settings",
    "role made": f"INSERT INTO user_roles (name, permissions, created_at, updated_at) VALUES ('Press', 1024, {NOW})",
    "views refreshed": "REFRESH MATERIALIZED VIEW account_summaries; REFRESH MATERIALIZED VIEW "
    "global_follow_recommendations; REFRESH MATERIALIZED VIEW instances",
    "views refreshed beside their readers": "REFRESH MATERIALIZED VIEW CONCURRENTLY account_summaries; REFRESH "
    "MATERIALIZED VIEW CONCURRENTLY global_follow_recommendations; REFRESH MATERIALIZED VIEW CONCURRENTLY instances",
}


@pytest.mark.parametrize("name", APPLICATION)
def test_application_works(database: Database, name: str) -> None:
    database.must(f"BEGIN; {APPLICATION[name]}; ROLLBACK;", APP)


MIGRATIONS = {
    "column": "ALTER TABLE users ADD COLUMN pronouns varchar DEFAULT '' NOT NULL",
    "column removed": "ALTER TABLE users DROP COLUMN locale",
    "column on a guarded table, with an index": "ALTER TABLE settings ADD COLUMN note text;"
    "CREATE INDEX ON settings (lower(note))",
    "table": "CREATE TABLE collections (id bigserial PRIMARY KEY, user_id bigint REFERENCES users)",
    "constraint": "ALTER TABLE users ADD CONSTRAINT short CHECK (length(email) < 400) NOT VALID;"
    "ALTER TABLE users VALIDATE CONSTRAINT short",
    "function and trigger elsewhere": "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS "
    "'BEGIN RETURN NEW; END'; CREATE TRIGGER t BEFORE INSERT ON statuses FOR EACH ROW EXECUTE FUNCTION nothing()",
    "view on users": "CREATE VIEW user_ips AS SELECT id, sign_up_ip FROM users",
    "temporary table": "CREATE TEMP TABLE work (id bigint)",
    "trusted extension": "CREATE EXTENSION citext",
    "operator's account": sign_up("new@agency.test"),
    "account before its person": "INSERT INTO accounts (id, username, created_at, updated_at) "
    f"VALUES (91, 'x', {NOW}); SET CONSTRAINTS ALL IMMEDIATE",
    "move to another organisation": "UPDATE users SET email = 'owner@council.test'",
    "operator's account for single sign-on": sign_up("new@agency.test", password=""),
    "official account deleted": f"INSERT INTO account_deletion_requests (account_id, created_at, updated_at) VALUES "
    f"(1, {NOW}); UPDATE accounts SET suspended_at = now(); DELETE FROM users",
    "official account renamed": "UPDATE accounts SET username = 'press'; SET CONSTRAINTS ALL IMMEDIATE",
    "official account made a memorial": "UPDATE accounts SET memorial = true",
    "official account moved": "UPDATE accounts SET moved_to_account_id = 5",
    "identity prepared": f"INSERT INTO identities (provider, uid, user_id, created_at, updated_at) VALUES "
    f"('saml', 'x', 1, {NOW})",
    "bypass bit of 4.6": "UPDATE user_roles SET permissions = permissions | (1 << 21) "
    "WHERE permissions & 65536 = 65536",
    "bookkeeping": "INSERT INTO schema_migrations VALUES ('20990101000000')",
}


@pytest.mark.parametrize("name", MIGRATIONS)
def test_migrations_pass(database: Database, name: str) -> None:
    database.must(f"BEGIN; {MIGRATIONS[name]}; ROLLBACK;", OWNER)
    assert database.status()["failed"] == []


@pytest.mark.parametrize("how", ["", "CONCURRENTLY"])
def test_views_are_refreshed_while_the_lock_is_broken(database: Database, how: str) -> None:
    """A red check is for the deploy; the application goes on, and DDL of the owner does not. Mastodon refreshes
    CONCURRENTLY, every hour and at the first account of a server."""
    broken = "BEGIN; ALTER TABLE invites DISABLE TRIGGER gov_invites_clamp; SET SESSION AUTHORIZATION"
    database.must(f"{broken} mastodon; REFRESH MATERIALIZED VIEW {how} instances; ROLLBACK;")
    refused = database.psql(f"{broken} mastodon_owner; CREATE TABLE x (); ROLLBACK;")
    assert "it would break trigger:gov_invites_clamp" in refused.error


def test_accounts_of_other_servers_are_not_queued_until_the_end(database: Database) -> None:
    """PostgreSQL refuses to alter a table that has trigger events in the queue."""
    alter = "ALTER TABLE accounts ALTER note SET DEFAULT 'x'"
    own = f"INSERT INTO accounts (id, username, created_at, updated_at) VALUES (92, 'x', {NOW});"
    database.must(f"BEGIN; {REMOTE} {alter}; ROLLBACK;", OWNER)
    assert "pending trigger events" in database.psql(f"BEGIN; {own} {alter}; ROLLBACK;", OWNER).error


def test_concurrent_index_passes(database: Database) -> None:
    database.must("CREATE INDEX CONCURRENTLY probe ON users (locale)", OWNER)
    database.must("DROP INDEX CONCURRENTLY probe", OWNER)


def test_new_tables_and_views_are_usable_by_the_application_at_once(database: Database) -> None:
    database.must(
        "CREATE TABLE added (id bigserial PRIMARY KEY, n int); CREATE MATERIALIZED VIEW sums AS SELECT n FROM added;",
        OWNER,
    )
    database.must("INSERT INTO added (n) VALUES (7); REFRESH MATERIALIZED VIEW sums;", APP)
    assert database.must("SELECT n FROM sums", APP) == "7"
    database.must("DROP MATERIALIZED VIEW sums; DROP TABLE added;", OWNER)


def test_invited_account_waits_for_approval_and_ledger_remembers_it(database: Database) -> None:
    signed_up = sign_up("jane@agency.test", LINK)
    assert seen(database, signed_up + "SELECT approved FROM users WHERE id = 77") == "f"
    # A rolled-back sign-up leaves the invitation open.
    assert seen(database, "SELECT state FROM jsonb_to_recordset(gov.invitations()) AS i(state text)", OWNER) == "open"


def test_pending_address_of_the_operator_can_be_confirmed(database: Database) -> None:
    """`tootctl accounts modify --email` on an account that nobody has confirmed yet; a sign-up brings none along."""
    prepared = sign_up("new@agency.test") + "UPDATE users SET unconfirmed_email = 'joe@agency.test' WHERE id = 77;"
    confirmed = (
        "UPDATE users SET confirmed_at = now(), email = unconfirmed_email, unconfirmed_email = NULL WHERE id = 77"
    )
    as_application = "SET SESSION AUTHORIZATION mastodon;"
    assert seen(database, f"{prepared}{as_application}{confirmed}; SELECT email FROM users WHERE id = 77", "postgres")
    brought = sign_up("jane@agency.test", LINK).replace(
        "invite_id, created_at", "invite_id, unconfirmed_email, created_at"
    )
    brought = brought.replace(f"{LINK}, now()", f"{LINK}, 'joe@agency.test', now()")
    assert seen(database, f"{brought} SELECT unconfirmed_email IS NULL FROM users WHERE id = 77") == "t"


def test_pending_move_to_another_organisation_can_be_confirmed(database: Database) -> None:
    """Begun by the operator, ended by the link in the mail."""
    begun = (
        "UPDATE users SET unconfirmed_email = 'owner@council.test' WHERE id = 1; SET SESSION AUTHORIZATION mastodon;"
    )
    ended = "UPDATE users SET email = unconfirmed_email, unconfirmed_email = NULL WHERE id = 1;"
    assert seen(database, f"{begun}{ended} SELECT email FROM users WHERE id = 1", "postgres") == "owner@council.test"


def test_application_cannot_choose_the_role_of_a_new_account(database: Database) -> None:
    sql = sign_up("jane@agency.test", LINK).replace(
        "updated_at) VALUES (77, $a$", "updated_at, role_id) VALUES (77, $a$"
    )
    sql = sql.removesuffix(";").rstrip().removesuffix(")") + ", (SELECT id FROM user_roles WHERE name = 'Owner'))"
    assert seen(database, sql + "; SELECT role_id IS NULL FROM users WHERE id = 77") == "t"


def test_application_cannot_confirm_an_address_by_itself(database: Database) -> None:
    """The operator may: `tootctl accounts create --confirmed`."""
    columns = "created_at, updated_at) VALUES (77, $a$"
    for user, link, confirmed in ((APP, LINK, "f"), (OWNER, "NULL", "t")):
        sql = sign_up("jane@agency.test", link).replace(columns, "confirmed_at, " + columns)
        sql = sql.replace(f"{link}, now()", f"{link}, now(), now()")
        assert seen(database, f"{sql} SELECT confirmed_at IS NOT NULL FROM users WHERE id = 77", user) == confirmed


def test_invite_outside_the_ledger_is_born_expired(database: Database) -> None:
    row = f"INSERT INTO invites (user_id, code, max_uses, created_at, updated_at) VALUES (1, 'mine', 50, {NOW})"
    state = "SELECT max_uses, expires_at <= clock_timestamp() AT TIME ZONE 'UTC' FROM invites WHERE code = 'mine'"
    assert seen(database, f"{row}; {state}") == "1|t"
    later = "UPDATE invites SET expires_at = NULL, max_uses = 9 WHERE code = 'mine'"
    assert seen(database, f"{row}; {later}; {state}") == "1|t"


def test_invitation_cannot_be_made_to_last_longer(database: Database) -> None:
    hours = "SELECT round(extract(epoch FROM expires_at - now() AT TIME ZONE 'UTC') / 3600), max_uses FROM invites"
    assert seen(database, f"SET TIME ZONE 'Pacific/Auckland'; {hours}") == "72|1"
    assert (
        seen(database, f"UPDATE invites SET expires_at = now() + interval '1 year', max_uses = NULL; {hours}") == "72|1"
    )


def permissions(database: Database, sql: str, role: str) -> str:
    return seen(database, f"{sql}; SELECT permissions FROM user_roles WHERE {role}")


def test_role_permissions_are_clamped_on_every_path(database: Database) -> None:
    made = (
        f"INSERT INTO user_roles (name, permissions, created_at, updated_at) VALUES ('Press', {BYPASS | INVITE}, {NOW})"
    )
    assert permissions(database, made, "name = 'Press'") == str(INVITE)
    assert permissions(database, "UPDATE user_roles SET permissions = -1", "id = -99") == "0"
    again = (
        "DELETE FROM user_roles WHERE id = -99;"
        f"INSERT INTO user_roles (id, permissions, created_at, updated_at) VALUES (-99, 65536, {NOW})"
    )
    assert permissions(database, again, "id = -99") == "0"
    renumbered = (
        "UPDATE user_roles SET id = -98 WHERE id = -99; UPDATE user_roles SET id = -99 WHERE name = 'Moderator'"
    )
    assert permissions(database, renumbered, "id = -99") == "0"


def test_second_factor_is_kept_in_every_role(server: Server) -> None:
    """Also through the migration that adds the column, and for roles made later."""
    database = server.locked("second_factor", "4.5.15")
    database.must('SELECT gov.sync_settings(\'{"require_2fa": "true"}\')')
    database.must("ALTER TABLE user_roles ADD COLUMN require_2fa boolean DEFAULT false NOT NULL", OWNER)
    count = "SELECT count(*) FROM user_roles WHERE NOT require_2fa"
    assert database.must(count) == "0"
    database.must("UPDATE user_roles SET require_2fa = false", APP)
    database.must(f"INSERT INTO user_roles (name, created_at, updated_at) VALUES ('Press', {NOW})", APP)
    assert database.must(count) == "0"
    database.must("SELECT gov.sync_settings('{}'); UPDATE user_roles SET require_2fa = false")
    assert database.must(count) != "0", "without the setting the column is free"
