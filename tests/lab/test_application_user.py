"""The operating-system user `mastodon` cannot weaken the lock: everything it can run is tried on the running host,
outside the units' sandboxes, so that only accounts, files and the database stand in the way."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.lab.deployed import LIB, PSQL, Deployed
from tests.lab.people import tootctl

DATABASE = "mastodon_production"
RELEASE = "/opt/mastodon/current"
# What stands between this user and the lock: rules and names of schema gov, triggers, owners, roles and their members.
DATABASE_STATE = """\
SELECT md5(string_agg(line, E'\\n' ORDER BY line)) FROM (
  SELECT concat_ws(' ', 'trigger', tgrelid::regclass, tgname, tgenabled, tgfoid::regprocedure) FROM pg_trigger
   WHERE NOT tgisinternal
  UNION ALL SELECT concat_ws(' ', 'event', evtname, evtenabled) FROM pg_event_trigger
  UNION ALL SELECT concat_ws(' ', 'table', oid::regclass, pg_get_userbyid(relowner), relacl) FROM pg_class
   WHERE relnamespace IN ('public'::regnamespace, 'gov'::regnamespace)
  UNION ALL SELECT concat_ws(' ', 'function', oid::regprocedure, pg_get_userbyid(proowner), proacl, md5(prosrc))
   FROM pg_proc WHERE pronamespace = 'gov'::regnamespace
  UNION ALL SELECT concat_ws(' ', 'role', r.*) FROM pg_roles r
  UNION ALL SELECT concat_ws(' ', 'member', m.*) FROM pg_auth_members m
  UNION ALL SELECT concat_ws(' ', 'setting', s.*) FROM pg_db_role_setting s
  UNION ALL SELECT concat_ws(' ', 'domain', d.*) FROM gov.staff_domain d
  UNION ALL SELECT concat_ws(' ', 'rule', s.*) FROM gov.setting s
) AS known(line)
"""
FILES_STATE = (
    "find /etc /opt/mastodon /usr/local /root /var/lib/mastodon-gov -xdev \\( -type f -o -type l -o -type d \\) "
    "-printf '%p %y %U %G %m %T@ %l\\n' 2>/dev/null | sort | sha256sum"
)

# What was tried, and the refusal it must meet.
SQL = {
    "ALTER TABLE users DISABLE TRIGGER ALL": "must be owner",
    "ALTER TABLE users DISABLE TRIGGER gov_users_check": "must be owner",
    "ALTER TABLE users OWNER TO mastodon": "must be owner",
    "ALTER TABLE users RENAME TO members": "must be owner",
    "ALTER TABLE settings ADD COLUMN own integer": "must be owner",
    "DROP TRIGGER gov_users_check ON users": "must be owner",
    "DROP TABLE users CASCADE": "must be owner",
    "DROP EVENT TRIGGER gov_guard_ddl": "must be owner|does not exist",
    "DROP SCHEMA gov CASCADE": "must be owner",
    "DROP SCHEMA public CASCADE": "must be owner",
    "DROP FUNCTION gov.is_staff(text)": "must be owner|permission denied",
    "CREATE OR REPLACE FUNCTION gov.is_staff(a text) RETURNS boolean LANGUAGE sql RETURN true": "permission denied",
    "CREATE FUNCTION public.own() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'": "permission denied",
    "CREATE TABLE public.own ()": "permission denied",
    "CREATE SCHEMA own": "permission denied",
    "CREATE EXTENSION plpython3u": "permission denied|not available",
    "TRUNCATE users CASCADE": "permission denied",
    "TRUNCATE settings": "permission denied",
    "SET session_replication_role = replica": "permission denied",
    "SET ROLE mastodon_owner": "permission denied",
    "SET ROLE postgres": "permission denied",
    "SET SESSION AUTHORIZATION mastodon_owner": "permission denied",
    "ALTER ROLE mastodon SUPERUSER": "permission denied",
    "ALTER ROLE mastodon_owner PASSWORD 'own'": "permission denied",
    "GRANT mastodon_owner TO mastodon": "permission denied",
    "CREATE ROLE own SUPERUSER": "permission denied",
    "ALTER DATABASE mastodon_production SET session_replication_role = replica": "must be owner",
    "ALTER SYSTEM SET session_replication_role = replica": "permission denied",
    "INSERT INTO gov.staff_domain VALUES ('outside.test')": "permission denied",
    "UPDATE gov.setting SET value = 'false'": "permission denied",
    "SELECT * FROM gov.invitation": "permission denied",
    """SELECT gov.invite('{"address": "own@agency.test", "organisation": "o", "by": "me"}')""": "permission denied",
    "SELECT gov.sync_organisations('[]')": "permission denied",
    "COPY users TO PROGRAM 'true'": "permission denied",
    "COPY settings FROM '/etc/passwd'": "permission denied",
    "SELECT pg_read_file('/etc/passwd')": "permission denied",
    "SELECT lo_import('/etc/passwd')": "permission denied",
    "LOAD '/tmp/own.so'": "is not allowed",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'": "permission denied|SUPERUSER",
    "INSERT INTO users (email, created_at, updated_at) VALUES ('x@outside.test', now(), now())": "staff register|null",
    "UPDATE users SET email = 'owner@outside.test' WHERE email = 'owner@agency.test'": "staff register",
    "UPDATE users SET unconfirmed_email = 'owner@outside.test' WHERE email = 'owner@agency.test'": "staff register",
    "INSERT INTO settings (var, value, created_at, updated_at) VALUES ('registrations_mode', '--- open', now(), now()) "
    "ON CONFLICT (var) DO UPDATE SET value = excluded.value": "Registration is locked",
}
COMMANDS = {
    f"psql -U mastodon_owner -d {DATABASE} -c 'SELECT 1'": "Peer authentication failed",
    f"psql -U postgres -d {DATABASE} -c 'SELECT 1'": "Peer authentication failed",
    f"PGOPTIONS='-c session_replication_role=replica' psql -d {DATABASE} -c 'SELECT 1'": "permission denied",
    f"psql -h 127.0.0.1 -w -U mastodon_owner -d {DATABASE} -c 'SELECT 1'": "Connection refused",
    "psql -d postgres -c 'CREATE DATABASE own'": "permission denied",
    "psql -d template1 -c 'CREATE TABLE own ()'": "permission denied",
    "sudo -n true": "password is required|not in the sudoers|not allowed",
    "sudo -n -u mastodon-owner true": "password is required|not in the sudoers|not allowed",
    "su -c true root": "Permission denied",
    "su -c true postgres": "Permission denied",
    "su -c true mastodon-owner": "Permission denied",
    "runuser -u postgres true": "may not be used by non-root",
    "setpriv --reuid=postgres --clear-groups true": "not permitted",
    "setpriv --reuid=mastodon-owner --keep-groups true": "not permitted",
    "systemd-run --pipe --wait -p User=postgres true": "Access denied|authentication",
    "systemd-run --user true": "Failed to",
    f"{LIB}/mastodon-run mastodon-owner {RELEASE} true": "Access denied|authentication",
    f"{LIB}/slots.py settle own": "Permission denied",
    "systemctl stop postgresql": "Access denied|authentication",
    "systemctl edit --runtime --stdin --drop-in=own mastodon-web@": "Permission denied|Access denied",
    "systemctl set-environment RUBYOPT=-rown": "Access denied|authentication",
    "systemctl set-property nftables.service IPAddressAllow=any": "Access denied|authentication",
    "nft flush ruleset": "not permitted|not found",
    "cat /etc/mastodon/owner.env": "Permission denied",
    "cat /var/lib/mastodon-gov/owner-first-password": "Permission denied",
    "ls /var/lib/mastodon-gov /var/lib/mastodon-owner": "Permission denied",
    "cat /etc/pgbackrest.conf": "Permission denied",
    "cat /etc/redis/redis.conf": "Permission denied",
    "cat /etc/mastodon-gov/tls/current/privkey.pem": "Permission denied",
    "cat /etc/shadow": "Permission denied",
    "cat /var/lib/postgresql/17/main/PG_VERSION": "Permission denied",
    "cat /proc/1/environ": "Permission denied",
    "sh -c 'echo DB_USER=mastodon_owner >> /etc/mastodon/mastodon.env'": "Permission denied",
    "touch /etc/mastodon/own.env": "Permission denied",
    f"sh -c 'echo >> {RELEASE}/config/application.rb'": "Permission denied",
    f"touch {RELEASE}/.bundle/own": "Permission denied|No such file",
    f"touch {RELEASE}/own": "Permission denied",
    "ln -sfn /tmp /opt/mastodon/slot/a": "Permission denied",
    "ln -sfn /tmp /opt/mastodon/current": "Permission denied",
    "mv /opt/mastodon/slot /tmp/own": "Permission denied",
    f"sh -c 'echo >> {LIB}/slots.py'": "Permission denied",
    "touch /etc/systemd/system/own.service": "Permission denied",
    "mkdir /etc/systemd/system/mastodon-web@.service.d": "Permission denied|File exists",
    "mkdir /run/systemd/system/mastodon-web@.service.d": "Permission denied",
    "sh -c 'echo >> /etc/postgresql/17/main/pg_hba.conf'": "Permission denied",
    "touch /var/run/postgresql/.s.PGSQL.5433": "Permission denied",
    "rm /var/run/postgresql/.s.PGSQL.5432": "Permission denied|not permitted",
    "unshare -Ur cat /etc/mastodon/owner.env": "Permission denied|not permitted",
    "nsenter -t 1 -m true": "Permission denied|not permitted",
}


@pytest.fixture(autouse=True, scope="module")
def untouched(instance: Deployed) -> Iterator[None]:
    """After all attempts together the database's lock and the host's files are what they were."""
    before = [instance.sql(DATABASE_STATE), instance.root(FILES_STATE)]
    yield
    assert [instance.sql(DATABASE_STATE), instance.root(FILES_STATE)] == before
    assert json.loads(instance.cli("status", "--json", check=False).stdout)["lock"]["ok"]


def _as_mastodon(instance: Deployed, command: str) -> tuple[int, str]:
    # First the psql that needs no file of the cluster.
    path = "PATH=/usr/lib/postgresql/17/bin:$PATH"
    words = ["runuser", "-u", "mastodon", "--", "timeout", "20", "sh", "-c", f"cd /; {path}; {command}"]
    done = instance.machine().exec(words, stdin="", check=False)
    return done.returncode, str(done.stdout) + str(done.stderr)


def _sql_as_mastodon(instance: Deployed, sql: str) -> tuple[int, str]:
    words = ["runuser", "-u", "mastodon", "--", PSQL, "-qtAX", "-v", "ON_ERROR_STOP=1", "-d", DATABASE, "-f", "-"]
    done = instance.machine().exec(words, stdin=sql, check=False)
    return done.returncode, str(done.stdout) + str(done.stderr)


def test_the_way_of_trying_works(instance: Deployed) -> None:
    """What this user may do succeeds: the refusals below are not those of a misspelt command."""
    assert _as_mastodon(instance, "id -un; cat /etc/mastodon/mastodon.env >/dev/null") == (0, "mastodon\n")
    assert _sql_as_mastodon(instance, "BEGIN; UPDATE users SET locale = locale; ROLLBACK; SELECT 1") == (0, "1\n")
    assert _as_mastodon(instance, f"psql -d {DATABASE} -tAc 'SELECT 1'") == (0, "1\n")


@pytest.mark.parametrize("sql", SQL)
def test_no_statement_weakens_the_lock(instance: Deployed, sql: str) -> None:
    """Each is refused, and for the reason it should be."""
    code, said = _sql_as_mastodon(instance, sql)
    assert code, said
    assert re.search(SQL[sql], said), said


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_leads_past_the_lock(instance: Deployed, command: str) -> None:
    """Each is refused, and for the reason it should be."""
    code, said = _as_mastodon(instance, command)
    assert code, said
    assert re.search(COMMANDS[command], said), said


def test_nothing_that_root_or_the_operator_runs_is_writable(instance: Deployed) -> None:
    """Besides its own home, this user can write nowhere but in the directories for temporary files."""
    find = "find / -xdev \\( -path /proc -o -path /dev -o -path /sys \\) -prune -o -writable ! -type l -print"
    roots = "{ " + find + "; find /run /var/lib/mastodon /var/lib/mastodon-owner -xdev -writable ! -type l ! -type s; }"
    _, said = _as_mastodon(instance, f"{roots} 2>/dev/null | sort -u")
    # faillock lets the group of whoever tried count: `su` is refused before it counts for anything.
    own = re.compile(
        r"/tmp|/var/tmp|/var/lib/mastodon(/.*)?|/run/(lock|user|faillock)(/.*)?|/run/systemd/.*notify.*|/run/.*/tmp"
    )
    assert [path for path in said.splitlines() if not own.fullmatch(path)] == []


def test_the_operator_s_programs_do_not_do_what_the_application_wrote_down(instance: Deployed) -> None:
    """Bundler does what a configuration in the home directory says. One that the application's user wrote works for
    that user, and not for the operator's."""
    home = "/var/lib/mastodon"
    plant = (
        f"mkdir -p {home}/.bundle && echo 'STDERR.puts \"PLANTED\"; exit 3' > {home}/Gemfile && "
        f"printf -- '---\\nBUNDLE_GEMFILE: \"{home}/Gemfile\"\\n' > {home}/.bundle/config"
    )
    instance.root(f"chown mastodon:mastodon {home}")
    assert _as_mastodon(instance, plant) == (0, "")
    try:
        assert "PLANTED" in tootctl(instance, "--help", user="mastodon")[1]
        code, said = tootctl(instance, "--help")
        assert code == 0, said
        assert "PLANTED" not in said
    finally:
        instance.root(f"rm -rf {home}/.bundle {home}/Gemfile")
