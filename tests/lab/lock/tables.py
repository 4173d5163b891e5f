"""Mastodon's tables for tests that need only PostgreSQL: columns of the real thing, no application."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

DATA = Path(__file__).parent / "data"
ARRAY_TYPE = {"ARRAY": "character varying[]"}

# What the columns do not say: keys that the lock and its tests meet, and the three materialised views.
KEYS = """
ALTER TABLE users ADD UNIQUE (email);
ALTER TABLE settings ADD UNIQUE (var);
ALTER TABLE invites ADD UNIQUE (code);
ALTER TABLE invites ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE;
ALTER TABLE users ADD FOREIGN KEY (invite_id) REFERENCES invites ON DELETE SET NULL;
ALTER TABLE users ADD FOREIGN KEY (role_id) REFERENCES user_roles ON DELETE SET NULL;
ALTER TABLE users ADD FOREIGN KEY (account_id) REFERENCES accounts ON DELETE CASCADE;
ALTER TABLE account_deletion_requests ADD FOREIGN KEY (account_id) REFERENCES accounts ON DELETE CASCADE;
ALTER TABLE oauth_access_tokens ADD FOREIGN KEY (resource_owner_id) REFERENCES users ON DELETE CASCADE;
CREATE MATERIALIZED VIEW account_summaries AS SELECT id AS account_id FROM accounts;
CREATE MATERIALIZED VIEW global_follow_recommendations AS SELECT id AS account_id FROM accounts;
CREATE MATERIALIZED VIEW instances AS SELECT DISTINCT domain FROM accounts;
CREATE UNIQUE INDEX ON account_summaries (account_id);
CREATE UNIQUE INDEX ON global_follow_recommendations (account_id);
CREATE UNIQUE INDEX ON instances (domain);
"""


def tables_sql(version: str) -> str:
    """DDL and seed rows of one Mastodon version, from tests/lab/lock/data/columns-VERSION.tsv."""
    columns: dict[str, list[str]] = defaultdict(list)
    for line in (DATA / f"columns-{version}.tsv").read_text().splitlines():
        table, name, kind, nullable, default = line.split("\t")
        columns[table].append(_column(name, kind, nullable, default))
    serial = "CREATE SEQUENCE timestamp_ids; CREATE FUNCTION timestamp_id(text) RETURNS bigint LANGUAGE sql AS "
    statements = [f"{serial}$$ SELECT nextval('public.timestamp_ids') $$;"]
    statements += [f"CREATE TABLE {name} ({', '.join(parts)});" for name, parts in columns.items()]
    # What Mastodon's own seeds leave behind: everybody may invite.
    seeds = (
        "INSERT INTO user_roles (id, name, permissions, position, created_at, updated_at) VALUES "
        "(-99, '', 65536, -1, now(), now());"
        "INSERT INTO user_roles (name, permissions, position, created_at, updated_at) VALUES "
        "('Moderator', 1049884, 10, now(), now()), ('Owner', 1, 1000, now(), now());"
    )
    return "\n".join([*statements, KEYS, seeds])


def _column(name: str, kind: str, nullable: str, default: str) -> str:
    """One column definition; a default that counts up becomes a serial."""
    if default.startswith("nextval("):
        return f"{name} bigserial PRIMARY KEY"
    key = " PRIMARY KEY" if name == "id" else ""
    value = f" DEFAULT {default}" if default else ""
    return f"{name} {ARRAY_TYPE.get(kind, kind)}{value}{' NOT NULL' if nullable == 'NO' else ''}{key}"
