"""Every way the application (and the migrations' role) could get around the lock is refused; its twin works.

Each attack runs in a transaction that is rolled back afterwards, so that one success cannot hide the next.
"""

# ruff: noqa: S608 - the SQL is made of constants of these tests
from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.lock.database import Database, Server, invited, setting_row, sign_up

APP, OWNER = "mastodon", "mastodon_owner"
LINK = "(SELECT max(id) FROM invites)"
ROW = "created_at, updated_at) VALUES"
NOW = "now(), now()"
AT_THE_END = "SET CONSTRAINTS ALL IMMEDIATE"  # what a COMMIT would ask


@pytest.fixture(scope="module")
def database(server: Server) -> Database:
    """One open invitation, for jane@agency.test; one of an organisation that leaves. (What is attacked has the same
    columns in 4.5 and 4.6.)"""
    made = server.locked("attacked", "4.6.5")
    made.must(invited("kim@council.test", "council"), OWNER)
    made.must("UPDATE gov.organisation SET state = 'leaving' WHERE id = 'council'")
    made.must(invited("jane@agency.test"), OWNER)
    return made


@pytest.fixture(scope="module", autouse=True)
def lock_is_whole_at_the_end(database: Database) -> Iterator[None]:
    """No attack has left a trace."""
    yield
    assert database.status()["failed"] == []


def rolled_back(sql: str) -> str:
    return f"BEGIN; {sql} ; ROLLBACK;"


# Statement, and what the refusal says. Everything as the application's role.
APPLICATION = {
    "foreign address": (sign_up("x@world.test", LINK), "not in the staff register"),
    "no invitation": (sign_up("joe@agency.test"), "no open invitation"),
    "somebody else's invitation": (sign_up("joe@agency.test", LINK), "no open invitation"),
    "plus address of the invited": (sign_up("jane+2@agency.test", LINK), "no open invitation"),
    "sub-domain": (sign_up("jane@mail.agency.test", LINK), "not in the staff register"),
    "domain as a tail": (sign_up("jane@evilagency.test", LINK), "not in the staff register"),
    "domain in the middle": (sign_up("jane@agency.test.world.test", LINK), "not in the staff register"),
    "trailing dot": (sign_up("jane@agency.test.", LINK), "not in the staff register"),
    "look-alike letter": (sign_up("jane@\u0430gency.test", LINK), "not in the staff register"),
    "wide letters": (sign_up("jane@\uff41gency.test", LINK), "not in the staff register"),
    "Kelvin sign for k": (sign_up("jane@xn--bcher-\u212ava.test", LINK), "not in the staff register"),
    "unregistered punycode": (sign_up("jane@xn--gency-3nf.test", LINK), "not in the staff register"),
    "two addresses": (sign_up("x@world.test,jane@agency.test", LINK), "not in the staff register"),
    "quoted local part": (sign_up('"x@world.test"@agency.test', LINK), "not in the staff register"),
    "source route": (sign_up("x%world.test@agency.test", LINK), "not in the staff register"),
    "line break": (sign_up("x@world.test\njane@agency.test", LINK), "not in the staff register"),
    "line break after": (sign_up("jane@agency.test\n", LINK), "not in the staff register"),
    "empty address": (sign_up("", LINK), "not in the staff register"),
    "no password (single sign-on)": (sign_up("jane@agency.test", LINK, password=""), "No account is prepared"),
    "conflict clause": (sign_up("x@world.test", LINK, extra="ON CONFLICT DO NOTHING"), "not in the staff register"),
    "conflict with an update": (
        sign_up("owner@agency.test", extra="ON CONFLICT (email) DO UPDATE SET email = 'x@world.test'"),
        "not in the staff register",
    ),
    "copy": (
        "COPY users (id, email, account_id, created_at, updated_at) FROM STDIN WITH (DELIMITER ' ');\n"
        "9 x@world.test 1 2026-1-1 2026-1-1\n\\.\n",
        "not in the staff register",
    ),
    "merge": (
        "MERGE INTO users USING (SELECT 1) s ON false WHEN NOT MATCHED THEN INSERT "
        "(id, email, account_id, created_at, updated_at) VALUES (9, 'x@world.test', 1, now(), now())",
        "not in the staff register",
    ),
    "change of address": ("UPDATE users SET email = 'x@world.test'", "not in the staff register"),
    "pending change of address": ("UPDATE users SET unconfirmed_email = 'x@world.test'", "not in the staff register"),
    "invited by an organisation that leaves": (
        sign_up("kim@council.test", "(SELECT min(id) FROM invites)"),
        "no open invitation",
    ),
    "account moved to the invitation": (f"UPDATE users SET invite_id = {LINK}", "moved to another invitation"),
    "password emptied": ("UPDATE users SET encrypted_password = ''", "cannot be emptied"),
    "own invitation": (
        f"INSERT INTO invites (user_id, code, {ROW} (1, 'mine', {NOW}); {sign_up('joe@agency.test', LINK)}",
        "no open invitation",
    ),
    "invitation re-inserted for somebody else": (
        "UPDATE invites SET id = id + 1000; " + sign_up("jane@agency.test", LINK),
        "no open invitation",
    ),
    "second use": (
        sign_up("jane@agency.test", LINK)
        + "DELETE FROM users WHERE id = 77; UPDATE invites SET uses = 0;"
        + sign_up("jane@agency.test", LINK).replace("77", "78"),
        "no open invitation",
    ),
    "registration opened": (
        setting_row("'--- open'"),
        "locked",
    ),
    "approval mode": (
        setting_row("'--- approved'"),
        "locked",
    ),
    "mode null": (setting_row("NULL"), "locked"),
    "mode empty": (setting_row("'---'"), "locked"),
    "setting renamed": (
        setting_row("'--- open'", "x") + "UPDATE settings SET var = 'registrations_mode'",
        "locked",
    ),
    "another address before the first is confirmed": (
        sign_up("jane@agency.test", LINK) + "UPDATE users SET unconfirmed_email = 'joe@agency.test' WHERE id = 77",
        "keeps the address",
    ),
    "another address before approval": (
        sign_up("jane@agency.test", LINK)
        + "UPDATE users SET confirmed_at = now(); UPDATE users SET email = 'joe@agency.test' WHERE id = 77",
        "keeps the address",
    ),
    "an address of another organisation": ("UPDATE users SET email = 'owner@council.test'", "its organisation"),
    "a pending address of another organisation": (
        "UPDATE users SET unconfirmed_email = 'owner@council.test'",
        "its organisation",
    ),
    "account without a person": (
        f"INSERT INTO accounts (id, username, {ROW} (78, 'x', {NOW}); {AT_THE_END}",
        "a person who was invited",
    ),
    "account of another server made ours": (
        f"INSERT INTO accounts (id, username, domain, {ROW} (78, 'x', 'world.test', {NOW});"
        f"UPDATE accounts SET domain = NULL WHERE id = 78; {AT_THE_END}",
        "a person who was invited",
    ),
    "account renamed": (f"UPDATE accounts SET username = 'minister'; {AT_THE_END}", "its number and its name"),
    "account renamed on a way round": (
        "UPDATE accounts SET domain = 'world.test'; UPDATE accounts SET username = 'minister', domain = NULL",
        "stays one",
    ),
    "number of an account changed": (
        f"INSERT INTO accounts (id, username, {ROW} (-99, 'x', {NOW}); UPDATE accounts SET id = 78 WHERE id = -99;"
        f"{AT_THE_END}",
        "its number and its name",
    ),
    "an account made Mastodon's own actor": (
        sign_up("jane@agency.test", LINK) + f"SET CONSTRAINTS ALL IMMEDIATE; DELETE FROM users WHERE id = 77;"
        f"UPDATE accounts SET id = -99, username = 'mastodon.internal' WHERE id = 77; {AT_THE_END}",
        "its number and its name",
    ),
    "Mastodon's own actor renamed": (
        f"INSERT INTO accounts (id, username, {ROW} (-99, 'x', {NOW});"
        f"UPDATE accounts SET username = 'minister' WHERE id = -99; {AT_THE_END}",
        "its number and its name",
    ),
    "number of a user changed": ("DELETE FROM invites; UPDATE users SET id = id + 1000", "keeps its number"),
    "user moved to another account": (
        f"INSERT INTO accounts (id, username, {ROW} (78, 'x', {NOW}); UPDATE users SET account_id = 78",
        "keeps its number",
    ),
    "second user of an account": (
        sign_up("jane@agency.test", LINK).replace("77, $a$", "78, $a$").replace("', 77,", "', 1,"),
        "has its user already",
    ),
    "account deleted": (f"INSERT INTO account_deletion_requests (account_id, {ROW} (1, {NOW})", "deleted"),
    "user deleted": ("DELETE FROM users", "not deleted by a click"),
    "account row deleted": ("DELETE FROM accounts", "not deleted by a click"),
    "made pending, then deleted": ("UPDATE users SET approved = false; DELETE FROM users", "pending one again"),
    "made unconfirmed, then deleted": ("UPDATE users SET confirmed_at = NULL; DELETE FROM users", "pending one again"),
    "suspended": ("UPDATE accounts SET suspended_at = now()", "not suspended"),
    "moved away": ("UPDATE accounts SET moved_to_account_id = 5", "not moved away"),
    "made a memorial": ("UPDATE accounts SET memorial = true", "not made a memorial"),
    "migration begun": (f"INSERT INTO account_migrations (account_id, acct, {ROW} (1, 'x@y.test', {NOW})", "not moved"),
    "old posts deleted": (
        f"INSERT INTO account_statuses_cleanup_policies (account_id, {ROW} (1, {NOW})",
        "not deleted automatically",
    ),
    "old posts deleted, in two steps": (
        f"INSERT INTO account_statuses_cleanup_policies (account_id, enabled, {ROW} (1, false, {NOW});"
        "UPDATE account_statuses_cleanup_policies SET enabled = true",
        "not deleted automatically",
    ),
    "identity": (
        f"INSERT INTO identities (provider, uid, user_id, {ROW} ('saml', 'x', 1, {NOW})",
        "No account is prep",
    ),
    "trigger off": ("ALTER TABLE users DISABLE TRIGGER gov_users_check", "must be owner"),
    "trigger dropped": ("DROP TRIGGER gov_users_check ON users", "must be owner"),
    "truncate": ("TRUNCATE settings", "permission denied"),
    "replica mode": ("SET session_replication_role = replica", "permission denied"),
    "event triggers off": ("SET event_triggers = off", "permission denied"),
    "temporary table of the same name": ("CREATE TEMP TABLE users (LIKE public.users)", "permission denied"),
    "other table of the same name": ("CREATE TABLE public.extra ()", "permission denied"),
    "new schema": ("CREATE SCHEMA evil", "permission denied"),
    "register": ("INSERT INTO gov.staff_domain VALUES ('world.test')", "permission denied"),
    "ledger": ("UPDATE gov.invitation SET address = 'joe@agency.test'", "permission denied"),
    "verb": (invited("joe@agency.test"), "permission denied"),
    "who was invited": ("SELECT gov.users_invited('{jane@agency.test}')", "permission denied"),
    "role of the owner": ("SET ROLE mastodon_owner", "permission denied"),
    "session of the owner": ("SET SESSION AUTHORIZATION mastodon_owner", "permission denied"),
    "membership": ("GRANT mastodon_owner TO mastodon", "permission denied"),
    "superuser": ("ALTER ROLE mastodon SUPERUSER", "permission denied"),
    "program": ("COPY settings TO PROGRAM 'true'", "permission denied"),
    "bookkeeping of migrations": ("DELETE FROM schema_migrations", "permission denied"),
}


@pytest.mark.parametrize("name", APPLICATION)
def test_application_is_refused(database: Database, name: str) -> None:
    sql, sentence = APPLICATION[name]
    answer = database.psql(rolled_back(sql), APP)
    assert answer.code != 0, f"{name}: nothing refused this"
    assert sentence in answer.error


# What refuses an attack, where it is one trigger alone.
MECHANISMS = {
    "foreign address": "users_check",
    "no invitation": "users_check",
    "invited by an organisation that leaves": "users_check",
    "account moved to the invitation": "users_check",
    "registration opened": "settings_check",
    "account without a person": "accounts_person",
    "account deleted": "deletions_check",
    "user deleted": "users_stay",
    "suspended": "accounts_stay",
    "moved away": "accounts_stay",
    "migration begun": "migrations_check",
    "old posts deleted": "cleanup_check",
    "identity": "identities_check",
}


@pytest.mark.parametrize("name", MECHANISMS)
def test_an_attack_succeeds_without_its_trigger(database: Database, name: str) -> None:
    """So each of them carries its weight."""
    off = database.must(
        "SELECT format('ALTER TABLE %I DISABLE TRIGGER %I;', target, name) FROM gov.expected_triggers() "
        f"WHERE name = 'gov_{MECHANISMS[name]}'"
    )
    assert off
    answer = database.psql(rolled_back(f"{off} SET SESSION AUTHORIZATION mastodon; {APPLICATION[name][0]}"))
    assert (answer.code, answer.error) == (0, "")


# As the role of the migrations: whatever leaves the lock weaker is refused by the event trigger.
OWNER_DDL = {
    "disable one": "ALTER TABLE users DISABLE TRIGGER gov_users_check",
    "disable all of ours": "ALTER TABLE settings DISABLE TRIGGER USER",
    "fire only at origin": "ALTER TABLE users ENABLE TRIGGER gov_users_check",
    "fire only on replicas": "ALTER TABLE invites ENABLE REPLICA TRIGGER gov_invites_clamp",
    "drop": "DROP TRIGGER gov_roles_clamp ON user_roles",
    "rename the trigger": "ALTER TRIGGER gov_settings_check ON settings RENAME TO other",
    "replace the trigger": "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
    "CREATE OR REPLACE TRIGGER gov_users_check AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION nothing()",
    "trigger behind ours": "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
    "CREATE TRIGGER zz BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION nothing()",
    "code in an index": "CREATE FUNCTION code(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1';"
    "CREATE INDEX ON invites (code(code))",
    "code in a default": "CREATE FUNCTION code() RETURNS text LANGUAGE sql AS 'SELECT 1::text';"
    "ALTER TABLE invites ALTER comment SET DEFAULT code()",
    "code in a domain": "CREATE FUNCTION code(text) RETURNS boolean LANGUAGE sql AS 'SELECT true';"
    "CREATE DOMAIN odd AS text CHECK (code(VALUE)); ALTER TABLE user_roles ADD COLUMN x odd",
    "drop the table": "DROP TABLE users CASCADE",
    "drop everything owned": "DROP OWNED BY mastodon_owner",
    "drop the schema": "DROP SCHEMA public CASCADE",
    "rename the schema": "ALTER SCHEMA public RENAME TO old",
    "rename the table": "ALTER TABLE users RENAME TO old_users",
    "move the table": "CREATE SCHEMA other; ALTER TABLE users SET SCHEMA other",
    "table elsewhere": "CREATE SCHEMA other; CREATE TABLE other.users (LIKE public.users)",
    "view elsewhere": "CREATE SCHEMA other; CREATE VIEW other.settings AS SELECT 1",
    "temporary table": "CREATE TEMP TABLE user_roles (LIKE public.user_roles)",
    "child table": "CREATE TABLE child () INHERITS (users)",
    "child table later": "CREATE TABLE child (LIKE users INCLUDING ALL); ALTER TABLE child INHERIT users",
    "rule": "CREATE RULE r AS ON INSERT TO users DO INSTEAD NOTHING",
    "column renamed": "ALTER TABLE users RENAME email TO old_email",
    "column dropped": "ALTER TABLE users DROP COLUMN invite_id",
    "truncate granted": "GRANT TRUNCATE ON invites TO mastodon",
    "trigger granted": "GRANT ALL ON users TO mastodon",
    "everything in the schema granted": "GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC",
    "create granted": "GRANT CREATE ON SCHEMA public TO mastodon",
    "in a block": "DO $$ BEGIN EXECUTE 'ALTER TABLE users DISABLE TRIGGER USER'; END $$",
    "in a view's refresh": "CREATE FUNCTION off() RETURNS int LANGUAGE plpgsql AS 'BEGIN ALTER TABLE public.users "
    "DISABLE TRIGGER gov_users_check; RETURN 1; END'; CREATE MATERIALIZED VIEW v AS SELECT public.off() WITH NO DATA; "
    "REFRESH MATERIALIZED VIEW v",
    "in a view's refresh beside its readers": "CREATE FUNCTION off() RETURNS int LANGUAGE sql AS 'SELECT 1'; "
    "CREATE MATERIALIZED VIEW v AS SELECT public.off() AS n; CREATE UNIQUE INDEX ON v (n); CREATE OR REPLACE FUNCTION "
    "off() RETURNS int LANGUAGE plpgsql AS 'BEGIN ALTER TABLE public.users DISABLE TRIGGER gov_users_check; RETURN 1; "
    "END'; REFRESH MATERIALIZED VIEW CONCURRENTLY v",
    "behind the order of such a refresh": "CREATE TEMP TABLE mine (); DO $$ BEGIN EXECUTE format('CREATE TEMP TABLE "
    "%s.pg_temp_1_2 (tid pg_catalog.tid); ALTER TABLE users DISABLE TRIGGER USER', pg_my_temp_schema()::regnamespace);"
    " END $$",
    "in a function": "CREATE FUNCTION off() RETURNS void SECURITY DEFINER LANGUAGE plpgsql AS "
    "'BEGIN ALTER TABLE users DISABLE TRIGGER USER; END'; SELECT off()",
}
# As the same role: refused by PostgreSQL's own rules or by the triggers.
OWNER_OTHER = {
    "event trigger off": "ALTER EVENT TRIGGER gov_lock DISABLE",
    "event trigger dropped": "DROP EVENT TRIGGER gov_lock",
    "event trigger of its own": "CREATE EVENT TRIGGER mine ON ddl_command_end EXECUTE FUNCTION gov.guard_ddl()",
    "event triggers skipped": "SET event_triggers = off",
    "internal triggers off": "ALTER TABLE users DISABLE TRIGGER ALL",
    "function replaced": "CREATE OR REPLACE FUNCTION gov.is_staff(text) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
    "function dropped": "DROP FUNCTION gov.users_check() CASCADE",
    "function changed": "ALTER FUNCTION gov.users_check() SECURITY INVOKER",
    "schema dropped": "DROP SCHEMA gov CASCADE",
    "schema taken": "ALTER SCHEMA gov OWNER TO mastodon_owner",
    "register": "INSERT INTO gov.staff_domain VALUES ('world.test')",
    "register by function": "SELECT gov.sync_organisations('[]')",
    "settings by function": "SELECT gov.sync_settings('{}')",
    "ledger": "DELETE FROM gov.invitation",
    "table given away": "ALTER TABLE users OWNER TO mastodon",
    "replica mode": "SET session_replication_role = replica",
    "replica mode by default": "ALTER ROLE mastodon_owner SET session_replication_role = replica",
    "replica mode in the database": "DO $$ BEGIN EXECUTE format("
    "'ALTER DATABASE %I SET session_replication_role = replica', current_database()); END $$",
    "membership": "GRANT mastodon_owner TO mastodon",
    "superuser": "ALTER ROLE mastodon_owner SUPERUSER",
    "truncate": "TRUNCATE settings",
    "truncate with all that hangs on it": "TRUNCATE user_roles CASCADE",
    "foreign address": sign_up("x@world.test"),
    "registration opened": setting_row("'--- open'"),
    "subscription": "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p WITH (connect = false)",
    "file on the host": "COPY users FROM '/etc/passwd'",
    "program on the host": "COPY users TO PROGRAM 'true'",
    "untrusted language": "CREATE EXTENSION plperlu",
}


@pytest.mark.parametrize("name", OWNER_DDL)
def test_migration_role_cannot_take_the_lock_apart(database: Database, name: str) -> None:
    answer = database.psql(rolled_back(OWNER_DDL[name]), OWNER)
    assert answer.code != 0, f"{name}: nothing refused this"
    assert "The database lock refuses" in answer.error


@pytest.mark.parametrize("name", OWNER_OTHER)
def test_migration_role_is_refused(database: Database, name: str) -> None:
    answer = database.psql(rolled_back(OWNER_OTHER[name]), OWNER)
    assert answer.code != 0, f"{name}: nothing refused this"
