"""A PostgreSQL 17 with Mastodon's tables and the lock, on a lab machine: what the tests of the lock share."""

# ruff: noqa: S608 - the SQL is made of constants of these tests
from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from mastodon_gov.lab.machine import Machine
from roles.mastodon import lock
from tests.lab.lock.tables import tables_sql

OS_USER = {"mastodon_owner": "mastodon-owner", "mastodon": "mastodon", "postgres": "postgres"}
REGISTER = {
    "it": {"state": "live", "domains": ["agency.test", "xn--bcher-kva.test"]},
    "council": {"state": "live", "domains": ["council.test"]},
}
NAMES = ("agency.test", "social.agency.test")

# The same peer map as roles/postgresql: no line leads from the application's user to another role.
PREPARE = r"""
set -e
[ -d /etc/postgresql/17/main ] || pg_createcluster 17 main
useradd --system --user-group mastodon
useradd --system --user-group --groups mastodon mastodon-owner
cd /etc/postgresql/17/main
printf '%s\n' 'mfg postgres postgres' 'mfg mastodon mastodon' 'mfg mastodon-owner mastodon_owner' > pg_ident.conf
echo 'local all all peer map=mfg' > pg_hba.conf
systemctl restart postgresql@17-main.service
"""
ROLES = "CREATE ROLE mastodon LOGIN; CREATE ROLE mastodon_owner LOGIN;"


class Answer(NamedTuple):
    """What psql said."""

    code: int
    out: str
    error: str


@dataclass(frozen=True)
class Database:
    """One database on the machine; every method goes through psql, as the operating-system user of the role."""

    machine: Machine
    name: str

    def psql(self, sql: str, user: str = "postgres", *, os_user: str | None = None) -> Answer:
        """Run SQL from standard input, up to the first error."""
        options = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", user, "-d", self.name, "-f", "-"]
        return self.run(["psql", *options], sql, os_user or OS_USER[user])

    def run(self, argv: list[str], stdin: str, os_user: str) -> Answer:
        """Run a program of the machine as one of its users."""
        done = self.machine.exec(["runuser", "-u", os_user, "--", *argv], stdin=stdin, check=False)
        return Answer(done.returncode, done.stdout.strip(), done.stderr)

    def must(self, sql: str, user: str = "postgres") -> str:
        """Output of SQL that has to work."""
        answer = self.psql(sql, user)
        assert answer.code == 0, answer.error
        return answer.out

    def install(self) -> Answer:
        """What the mastodon role does."""
        return self.run(lock.psql_install(self.name), lock.lock_sql(), "postgres")

    def status(self) -> dict[str, Any]:
        """What the deploy's fact and the audit see."""
        found: dict[str, Any] = json.loads(self.must(lock.status_sql()))
        return found


class Server:
    """The machine; makes databases."""

    def __init__(self, machine: Machine) -> None:
        """Prepare users, peer map and roles."""
        self.machine = machine
        machine.exec(PREPARE)
        Database(machine, "postgres").must(ROLES)

    def bare(self, name: str, version: str) -> Database:
        """A database as Mastodon's own set-up leaves it, before the lock."""
        Database(self.machine, "postgres").must(f"CREATE DATABASE {name} OWNER mastodon_owner TEMPLATE template0")
        database = Database(self.machine, name)
        database.must("ALTER SCHEMA public OWNER TO mastodon_owner")
        database.must(tables_sql(version), "mastodon_owner")
        return database

    def locked(self, name: str, version: str) -> Database:
        """A database under the lock, with an owner account (id 1) that has a second factor."""
        database = self.bare(name, version)
        installed = database.install()
        assert installed.code == 0, installed.error
        database.must(lock.sync_sql(REGISTER, {}, NAMES))
        database.must(owner_account(), "mastodon_owner")
        return database

    def copy(self, pattern: Database) -> Database:
        """A fresh copy, in place of the one before."""
        copy = f"{pattern.name}_copy"
        again = f"DROP DATABASE IF EXISTS {copy} WITH (FORCE);"
        again += f"CREATE DATABASE {copy} OWNER mastodon_owner TEMPLATE {pattern.name}"
        for statement in again.split(";"):
            Database(self.machine, "postgres").must(statement)
        return Database(self.machine, copy)


def owner_account() -> str:
    """The first account, as the operator's verb makes it: no invitation, role Owner."""
    return (
        "INSERT INTO accounts (id, username, created_at, updated_at) VALUES (1, 'owner', now(), now());"
        "INSERT INTO users (id, email, encrypted_password, account_id, confirmed_at, role_id, otp_required_for_login,"
        " created_at, updated_at) SELECT 1, 'owner@agency.test', 'x', 1, now(), id, true, now(), now()"
        " FROM user_roles WHERE name = 'Owner';"
    )


def sign_up(address: str, invite: str = "NULL", password: str = "x", extra: str = "") -> str:  # noqa: S107
    """What Mastodon sends when somebody signs up; `invite` is a SQL expression."""
    return (
        f"INSERT INTO accounts (id, username, created_at, updated_at) VALUES (77, 'new', now(), now());"
        f"INSERT INTO users (id, email, encrypted_password, account_id, invite_id, created_at, updated_at) "
        f"VALUES (77, $a${address}$a$, '{password}', 77, {invite}, now(), now()) {extra};"
    )


def invited(address: str, organisation: str = "it") -> str:
    """SQL of the operator's verb; as postgres or mastodon_owner."""
    return f"SELECT gov.invite('{json.dumps({'address': address, 'organisation': organisation, 'by': 'ana'})}');"


def setting_row(mode: str, var: str = "registrations_mode") -> str:
    """A row of Mastodon's settings; `mode` is a SQL expression."""
    return f"INSERT INTO settings (var, value, created_at, updated_at) VALUES ('{var}', {mode}, now(), now());"


def past_the_triggers(table: str, sql: str) -> str:
    """What a superuser can do to rows: our triggers off, then on again."""
    on = {"settings": "settings_check", "user_roles": "roles_clamp", "invites": "invites_clamp"}[table]
    empty = on.split("_")[0] + "_truncate"
    again = "".join(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER gov_{name};" for name in (on, empty))
    return f"ALTER TABLE {table} DISABLE TRIGGER USER; {sql}; {again}"
