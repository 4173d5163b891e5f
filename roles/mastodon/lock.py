"""The lock in the database: its SQL, how it is run, and what the database says about it.

Why and what it refuses: docs/decisions/lock-in-database.md.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

FILES = Path(__file__).parent / "files"
# What installing the lock again does not change: accounts stay when their domain leaves the register, and
# rights of roles across the server are a person's decision. The audit shows them; a deploy does not repeat itself.
FOR_A_PERSON = frozenset({"addresses", "roles", "parameters", "role_settings", "gov_owner"})


def lock_sql() -> str:
    """All parts of the lock in their order: standard input of `psql_install()`, as OS user postgres."""
    return "\n".join(part.read_text() for part in sorted((FILES / "lock").glob("*.sql")))


def lock_source() -> str:
    """Hash of the lock's files; the database keeps the one it was installed from."""
    return hashlib.sha256(lock_sql().encode()).hexdigest()


def psql_install(database: str) -> list[str]:
    """Command that installs the lock from standard input, whole or not at all."""
    options = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-v", f"source={lock_source()}"]
    return ["psql", *options, "--single-transaction", "-d", database, "-f", "-"]


def status_sql() -> str:
    """The one SELECT behind the deploy's fact and the audit: one JSON document, lock or no lock."""
    return (FILES / "lock_status.sql").read_text()


# What the lock is told besides the register: every role has the second factor.
SETTINGS = {"require_2fa": "true"}

# State and domains of each organisation, by id (Instance.register).
Register = dict[str, dict[str, Any]]


def sync_sql(register: Register, settings: dict[str, str], names: tuple[str, str]) -> str:
    """Statements that make register and settings exactly these and record (handle domain, web domain).

    Run as postgres in one transaction after the lock; a name that differs from the first deployment is an
    error with a sentence.
    """
    local_domain, web_domain = names
    organisations = [{"id": name, **body} for name, body in sorted(register.items())]
    return (
        f"SELECT gov.record_deployment({quoted(local_domain)}, {quoted(web_domain)});\n"
        f"SELECT gov.sync_organisations({quoted(json.dumps(organisations))}::jsonb);\n"
        f"SELECT gov.sync_settings({quoted(json.dumps(settings, sort_keys=True))}::jsonb);\n"
    )


def is_settled(status: dict[str, Any], register: Register, settings: dict[str, str], names: tuple[str, str]) -> bool:
    """Whether a deploy has nothing to do: lock, register and settings are these, nothing it repairs is broken."""
    if not status["installed"] or not set(status["failed"]) <= FOR_A_PERSON or not status["deployment"]:
        return False
    deployed = status["deployment"]
    return (
        status["source"] == lock_source()
        and status["organisations"] == register
        and status["settings"] == settings
        and (deployed["local_domain"], deployed["web_domain"]) == names
    )


def quoted(text: str) -> str:
    """A SQL string literal (standard_conforming_strings is on, PostgreSQL's default since 9.1)."""
    return "'" + text.replace("'", "''") + "'"
