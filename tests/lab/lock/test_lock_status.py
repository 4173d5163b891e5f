"""The lock tells the truth about itself: each damage turns exactly its own check red, and a deploy repairs it."""

# ruff: noqa: S608 - the SQL is made of constants of these tests
from __future__ import annotations

import json

import pytest

from roles.mastodon import lock
from tests.lab.lock.database import NAMES, REGISTER, Database, Server, past_the_triggers, setting_row

NOW = "now(), now()"
OLD_INVITE = f"INSERT INTO invites (user_id, code, created_at, updated_at) VALUES (1, 'old', {NOW});"


@pytest.fixture(scope="module")
def database(server: Server) -> Database:
    return server.locked("damaged", "4.6.5")


# Damage done by a superuser, the checks that must turn red, and what a deploy cannot undo by itself.
DAMAGE: dict[str, tuple[str, list[str], str]] = {
    **{
        f"{trigger} dropped": (f"DROP TRIGGER {trigger} ON {table}", [f"trigger:{trigger}"], "")
        for trigger, table in (
            ("gov_users_arrival", "users"),
            ("gov_users_check", "users"),
            ("gov_users_locked", "users"),
            ("gov_users_stay", "users"),
            ("gov_accounts_stay", "accounts"),
            ("gov_accounts_person", "accounts"),
            ("gov_deletions_check", "account_deletion_requests"),
            ("gov_migrations_check", "account_migrations"),
            ("gov_cleanup_check", "account_statuses_cleanup_policies"),
            ("gov_identities_check", "identities"),
            ("gov_invites_clamp", "invites"),
            ("gov_roles_clamp", "user_roles"),
            ("gov_settings_check", "settings"),
            ("gov_users_truncate", "users"),
            ("gov_invites_truncate", "invites"),
            ("gov_roles_truncate", "user_roles"),
            ("gov_settings_truncate", "settings"),
        )
    },
    "trigger off": ("ALTER TABLE users DISABLE TRIGGER gov_users_check", ["trigger:gov_users_check"], ""),
    "trigger not always": ("ALTER TABLE users ENABLE TRIGGER gov_users_check", ["trigger:gov_users_check"], ""),
    "trigger with a condition": (
        "CREATE OR REPLACE TRIGGER gov_settings_check AFTER INSERT OR UPDATE ON settings FOR EACH ROW WHEN (false) "
        "EXECUTE FUNCTION gov.settings_check(); ALTER TABLE settings ENABLE ALWAYS TRIGGER gov_settings_check",
        ["trigger:gov_settings_check"],
        "",
    ),
    "event trigger off": ("ALTER EVENT TRIGGER gov_lock DISABLE", ["event_trigger"], ""),
    "event trigger not always": ("ALTER EVENT TRIGGER gov_lock ENABLE", ["event_trigger"], ""),
    "event trigger dropped": ("DROP EVENT TRIGGER gov_lock", ["event_trigger"], ""),
    "function changed": (
        "CREATE OR REPLACE FUNCTION gov.is_closed(mode text) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
        ["functions"],
        "",
    ),
    "function no longer as postgres": ("ALTER FUNCTION gov.users_check() SECURITY INVOKER", ["functions"], ""),
    "register writable": ("GRANT INSERT ON gov.staff_domain TO mastodon", ["gov_privileges"], ""),
    "ledger readable by all": (
        "GRANT SELECT ON gov.invitation TO PUBLIC",
        ["gov_privileges"],
        "REVOKE ALL ON gov.invitation FROM PUBLIC",
    ),
    "schema usable": ("GRANT USAGE ON SCHEMA gov TO mastodon", ["gov_privileges"], ""),
    "verb for all": ("GRANT EXECUTE ON FUNCTION gov.invite(jsonb) TO PUBLIC", ["gov_privileges"], ""),
    "register of another owner": (
        "ALTER TABLE gov.staff_domain OWNER TO mastodon_owner",
        ["gov_owner", "gov_privileges"],
        "ALTER TABLE gov.staff_domain OWNER TO postgres; REVOKE ALL ON gov.staff_domain FROM mastodon_owner",
    ),
    "truncate granted": ("GRANT TRUNCATE ON users TO mastodon", ["privileges"], ""),
    "create granted": ("GRANT CREATE ON SCHEMA public TO PUBLIC", ["schema_create"], ""),
    "temporary tables granted": (
        "DO $$ BEGIN EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO mastodon', current_database()); END $$",
        ["temporary_tables"],
        "",
    ),
    "membership": (
        "GRANT mastodon_owner TO mastodon",
        ["roles", "privileges", "schema_create", "temporary_tables"],
        "REVOKE mastodon_owner FROM mastodon",
    ),
    "role attribute": ("ALTER ROLE mastodon CREATEROLE", ["roles"], "ALTER ROLE mastodon NOCREATEROLE"),
    "parameter": (
        "GRANT SET ON PARAMETER session_replication_role TO mastodon",
        ["parameters"],
        "REVOKE SET ON PARAMETER session_replication_role FROM mastodon",
    ),
    "search path": ("ALTER ROLE mastodon SET search_path = evil", ["role_settings"], "ALTER ROLE mastodon RESET ALL"),
    "foreign trigger": (
        "CREATE FUNCTION public.odd() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        "ALTER FUNCTION public.odd() OWNER TO mastodon_owner;"
        "CREATE TRIGGER odd BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION public.odd()",
        ["foreign_code"],
        "DROP FUNCTION public.odd() CASCADE",
    ),
    "child table": ("CREATE TABLE child () INHERITS (users)", ["table:users"], "DROP TABLE child"),
    "rule": ("CREATE RULE r AS ON INSERT TO invites DO ALSO NOTHING", ["table:invites"], "DROP RULE r ON invites"),
    "table of another owner": (
        "ALTER TABLE settings OWNER TO mastodon",
        ["privileges", "table:settings"],
        "ALTER TABLE settings OWNER TO mastodon_owner; REVOKE ALL ON settings FROM mastodon",
    ),
    "shadow": (
        "CREATE SCHEMA s; CREATE TABLE s.users (); ALTER TABLE s.users OWNER TO mastodon_owner",
        ["shadow"],
        "DROP SCHEMA s CASCADE",
    ),
    "column gone": (
        "ALTER TABLE users RENAME approved TO was_approved",
        ["columns"],
        "ALTER TABLE users RENAME was_approved TO approved",
    ),
    "registration open": (past_the_triggers("settings", setting_row("'--- open'")), ["mode"], ""),
    "everyone may invite": (
        past_the_triggers("user_roles", "UPDATE user_roles SET permissions = 65536 WHERE id = -99"),
        ["everyone"],
        "",
    ),
    "bypass of approval": (
        past_the_triggers("user_roles", "UPDATE user_roles SET permissions = 2097152 WHERE name = 'Moderator'"),
        ["bypass"],
        "",
    ),
    "second factor": (
        "INSERT INTO gov.setting VALUES ('require_2fa', 'true')",
        ["require_2fa"],
        "DELETE FROM gov.setting",
    ),
    "old invite": (past_the_triggers("invites", OLD_INVITE), ["invites"], ""),
    "domain removed": (
        "DELETE FROM gov.staff_domain WHERE domain = 'agency.test'",
        ["addresses"],
        "INSERT INTO gov.staff_domain VALUES ('agency.test')",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_turns_exactly_its_check_red_and_a_deploy_repairs_it(database: Database, name: str) -> None:
    sql, red, by_hand = DAMAGE[name]
    database.must(sql)
    damaged = database.status()
    repaired = database.must(by_hand + ";") or database.install().error
    assert damaged["failed"] == sorted(red)
    assert not damaged["ok"]
    assert repaired == ""
    assert database.status()["failed"] == []


def test_migrations_wait_until_a_broken_lock_is_repaired(database: Database) -> None:
    database.must("ALTER TABLE users DISABLE TRIGGER gov_users_check")
    refused = database.psql("CREATE TABLE later (id int)", "mastodon_owner")
    assert "would break trigger:gov_users_check" in refused.error
    database.install()
    database.must("CREATE TABLE later (id int)", "mastodon_owner")


def settled(database: Database, settings: dict[str, str] | None = None) -> bool:
    return lock.is_settled(database.status(), REGISTER, settings or {}, NAMES)


def test_status_before_and_after_the_lock(server: Server) -> None:
    database = server.bare("fresh", "4.6.5")
    assert database.status() == {"installed": False}
    assert not settled(database)
    assert database.install().code == 0
    assert not settled(database), "no register yet"
    database.must(lock.sync_sql(REGISTER, {}, NAMES))
    assert settled(database)
    assert not settled(database, {"require_2fa": "true"})
    database.must(lock.sync_sql(REGISTER, {}, NAMES))
    assert database.install().code == 0
    assert database.must("SELECT count(*) FROM gov.version") == "1", "a second installation changes nothing"


def test_accounts_of_a_removed_domain_stay_and_the_deploy_does_not_repeat_itself(server: Server) -> None:
    database = server.locked("shrunk", "4.6.5")
    fewer = {"it": {"state": "live", "domains": ["xn--bcher-kva.test"]}}
    database.must(lock.sync_sql(fewer, {}, NAMES))
    assert database.status()["failed"] == ["addresses"]
    assert lock.is_settled(database.status(), fewer, {}, NAMES)
    assert database.must("SELECT count(*) FROM users") == "1"


WANTED = {
    "as it is": (["it", "council"], ["agency.test", "xn--bcher-kva.test", "council.test"], {}),
    "a domain without accounts dropped": (["it", "council"], ["agency.test", "xn--bcher-kva.test"], {}),
    "a domain dropped": (["it"], ["xn--bcher-kva.test"], {"agency.test": "it"}),
    "the domain of the next address dropped": (["it"], ["agency.test"], {"xn--bcher-kva.test": "it"}),
    "requested": (["it", "council"], ["council.test"], {"agency.test": "it", "xn--bcher-kva.test": "it"}),
    "the organisation gone": (["council"], ["council.test"], {"it": None}),
}


@pytest.mark.parametrize("name", WANTED)
def test_living_accounts_hold_back_the_domain_of_their_address(database: Database, name: str) -> None:
    """And that of the address they are about to have; frozen ones hold back nothing."""
    ids, domains, held = WANTED[name]
    wanted = json.dumps({"ids": ids, "domains": domains})
    asked = f"SELECT gov.without_organisation('{wanted}'); ROLLBACK"
    begin = (
        f"BEGIN; {lock.sync_sql(REGISTER, {}, NAMES)} UPDATE users SET unconfirmed_email = 'owner@xn--bcher-kva.test';"
    )
    told = json.loads(database.must(f"{begin} {asked}").splitlines()[-1])
    assert {gone: each["of"] for gone, each in told.items()} == held
    assert all((each["count"], each["names"]) == (1, ["owner"]) for each in told.values())
    frozen = database.must(f"{begin} UPDATE users SET disabled = true; {asked}")
    assert json.loads(frozen.splitlines()[-1]) == {}


def test_lock_closes_what_was_open_before_it(server: Server) -> None:
    database = server.bare("adopted", "4.5.15")
    database.must(
        setting_row("'--- open'")
        + "INSERT INTO accounts (id, username, created_at, updated_at) VALUES (1, 'o', now(), now());"
        f"INSERT INTO users (id, email, account_id, created_at, updated_at) VALUES (1, 'o@world.test', 1, {NOW});"
        f"{OLD_INVITE} UPDATE user_roles SET permissions = permissions | 2097152;",
        "mastodon_owner",
    )
    assert database.install().code == 0
    assert database.status()["failed"] == ["addresses"], "accounts are never removed, only reported"


def test_domains_and_settings_are_made_exact(database: Database) -> None:
    def sync(*bodies: dict[str, object]) -> str:
        return f"SELECT gov.sync_organisations('{json.dumps(bodies)}')"

    body: dict[str, object] = {"id": "it", "state": "live", "domains": ["agency.test", "b.test"]}
    assert json.loads(database.must(sync(body))) == {
        "added": ["b.test"],
        "removed": ["council.test", "xn--bcher-kva.test"],
    }
    assert json.loads(database.must(sync(body))) == {"added": [], "removed": []}
    for wrong in ("B.test", "b.test.", ".b.test", "test", "b_c.test", "bücher.test", ""):
        assert database.psql(sync(body | {"domains": [wrong]})).code != 0, wrong
    assert database.psql(sync()).code != 0
    assert database.psql(sync(body | {"state": "gone"})).code != 0
    press: dict[str, object] = {"id": "press", "state": "leaving", "domains": ["b.test"]}
    moved = json.loads(database.must(sync(body | {"domains": ["agency.test"]}, press)))
    assert moved == {"added": [], "removed": []}, "a domain that moves never leaves the register"
    assert database.status()["organisations"]["press"] == {"state": "leaving", "domains": ["b.test"]}
    assert json.loads(database.must(sync(body)))["removed"] == []
    assert list(database.status()["organisations"]) == ["it"]
    assert database.status()["domains"] == ["agency.test", "b.test"]
    assert database.psql('SELECT gov.sync_settings(\'{"unknown": "1"}\')').code != 0


@pytest.mark.parametrize("names", [("other.test", "social.agency.test"), ("agency.test", "web.agency.test")])
def test_names_of_the_first_deployment_cannot_change(database: Database, names: tuple[str, str]) -> None:
    refused = database.psql(lock.sync_sql(REGISTER, {}, names))
    assert refused.code != 0
    assert "cannot change" in refused.error


REFUSED_INSTALLS = {
    "newer lock": ("UPDATE gov.version SET version = 3", "use the newer product"),
    "foreign schema": ("ALTER SCHEMA gov OWNER TO mastodon_owner", "somebody else made it"),
    "code in the way": (
        "CREATE FUNCTION public.odd() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        "ALTER FUNCTION public.odd() OWNER TO mastodon_owner;"
        "CREATE TRIGGER odd BEFORE UPDATE ON user_roles FOR EACH ROW EXECUTE FUNCTION public.odd()",
        "foreign_code",
    ),
    "no tables": ("DROP TABLE settings", "run the migrations"),
}


@pytest.mark.parametrize("name", REFUSED_INSTALLS)
def test_installation_is_refused_and_changes_nothing(server: Server, name: str) -> None:
    sql, sentence = REFUSED_INSTALLS[name]
    database = server.locked("refused_" + name.replace(" ", "_"), "4.6.5")
    database.must(sql + "; ALTER TABLE users DISABLE TRIGGER gov_users_check")
    refused = database.install()
    assert refused.code != 0
    assert sentence in refused.error
    off = "SELECT tgenabled FROM pg_trigger WHERE tgname = 'gov_users_check'"
    assert database.must(off) == "D", "the whole installation was rolled back"


def test_application_user_reaches_no_other_role(database: Database) -> None:
    for role in ("mastodon_owner", "postgres"):
        assert "authentication failed" in database.psql("SELECT 1", role, os_user="mastodon").error
    assert database.psql("SELECT 1", "mastodon").out == "1"
    assert database.psql("SELECT 1", "mastodon_owner").out == "1"
    for argv in (
        ["su", "mastodon-owner", "-s", "/bin/sh", "-c", "id"],
        ["setpriv", "--reuid=mastodon-owner", "id"],
        ["systemd-run", "--quiet", "--pipe", "--no-ask-password", "-p", "User=mastodon-owner", "id"],
    ):
        assert database.run(argv, "", "mastodon").code != 0, argv
