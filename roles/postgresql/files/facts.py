#!/usr/bin/python3 -IB
"""Facts of the role postgresql for the audit: one JSON document. Reads only; no arguments."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roles.base.files.facts_lib import psql, tell
else:  # on the host the programs' common part lies one directory up
    sys.path.insert(0, "/usr/local/lib/mastodon-gov")
    from facts_lib import psql, tell

SQL = """SELECT json_build_object(
  'settings', (SELECT json_object_agg(name, setting) FROM pg_settings WHERE name IN (
     'listen_addresses', 'port', 'password_encryption', 'log_connections', 'log_disconnections', 'log_statement',
     'log_line_prefix', 'log_parameter_max_length', 'log_parameter_max_length_on_error', 'ssl',
     'ssl_min_protocol_version', 'data_checksums', 'jit', 'server_version', 'unix_socket_permissions')),
  'waiting', (SELECT coalesce(json_agg(name), '[]') FROM pg_settings WHERE pending_restart),
  'overridden', (SELECT coalesce(json_agg(name ORDER BY name), '[]') FROM pg_file_settings
     WHERE sourcefile LIKE '%postgresql.auto.conf'),
  'hba', (SELECT json_agg(json_build_object('type', type, 'users', user_name, 'method', auth_method,
     'options', options, 'address', address, 'error', error) ORDER BY rule_number) FROM pg_hba_file_rules),
  'md5', (SELECT coalesce(json_agg(rolname), '[]') FROM pg_authid WHERE rolpassword LIKE 'md5%'),
  'passwords', (SELECT coalesce(json_agg(rolname), '[]') FROM pg_authid WHERE rolpassword IS NOT NULL),
  'roles', (SELECT json_object_agg(rolname, json_build_object('super', rolsuper, 'createrole', rolcreaterole,
     'createdb', rolcreatedb, 'replication', rolreplication, 'bypassrls', rolbypassrls)) FROM pg_roles
     WHERE rolname !~ '^pg_'),
  'public_connect', (SELECT coalesce(json_agg(datname), '[]') FROM pg_database
     WHERE datname = 'mastodon_production' AND has_database_privilege('public', oid, 'CONNECT')),
  'programs', (SELECT coalesce(json_agg(m.rolname), '[]') FROM pg_auth_members a
     JOIN pg_roles g ON g.oid = a.roleid JOIN pg_roles m ON m.oid = a.member
     WHERE g.rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files')),
  'own_settings', (SELECT coalesce(json_agg(array_to_string(setconfig, ' ')), '[]') FROM pg_db_role_setting));"""


def server() -> dict[str, Any]:
    """What the running server says of itself."""
    told: dict[str, Any] = json.loads(psql(SQL))
    return told


def extensions() -> list[str]:
    """Of the application's database."""
    return psql("SELECT extname FROM pg_extension ORDER BY 1;", "mastodon_production").split()


def modes() -> dict[str, str]:
    """`owner mode` of data and configuration."""
    paths = [Path("/var/lib/postgresql/17/main"), *sorted(Path("/etc/postgresql/17/main").rglob("*.conf"))]
    return {str(path): f"{path.owner()} {path.stat().st_mode & 0o7777:04o}" for path in paths}


if __name__ == "__main__":
    tell({"server": server, "extensions": extensions, "modes": modes})
