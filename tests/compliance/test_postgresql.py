"""PostgreSQL as it runs: its own tables of settings, rules and rights."""

from __future__ import annotations

import pytest

from mastodon_gov.audit.facts import CouldNotLook, Facts
from tests.compliance.conftest import Evidence
from tests.compliance.expect import holds, none, same

LOGGED = {
    "log_connections": "on",
    "log_disconnections": "on",
    "log_statement": "ddl",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}
ROLES = ("mastodon", "mastodon_owner")
RIGHTS = ("super", "createrole", "createdb", "replication", "bypassrls")
EXTENSIONS = {"plpgsql", "pg_stat_statements"}
LOOPBACK = {"", "localhost", "127.0.0.1", "::1"}


@pytest.mark.control("MFG-PG-01")
def test_it_listens_to_nobody_else(facts: Facts, evidence: Evidence) -> None:
    observed = facts["server"]["settings"]["listen_addresses"]
    good = {each.strip() for each in observed.split(",")} <= LOOPBACK
    holds(evidence, good, observed, "empty or loopback", "SHOW listen_addresses")


@pytest.mark.control("MFG-PG-02")
def test_nobody_signs_in_without_proof(facts: Facts, evidence: Evidence) -> None:
    """peer for the socket; TLS and scram for everything else."""
    wrong = []
    for rule in facts["server"]["hba"]:
        allowed = "peer" if rule["type"] == "local" else "scram-sha-256"
        if rule["error"] or rule["method"] not in (allowed, "reject") or rule["type"] in ("host", "hostnossl"):
            wrong.append(f"{rule['type']} {rule['users']} {rule['method']} {rule['error'] or ''}")
    none(evidence, wrong, "SELECT * FROM pg_hba_file_rules")


@pytest.mark.control("MFG-PG-03")
def test_passwords_are_kept_with_scram(facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["server"]["settings"]["password_encryption"], "scram-sha-256", "SHOW password_encryption")


@pytest.mark.control("MFG-PG-03")
def test_no_password_is_kept_with_md5(facts: Facts, evidence: Evidence) -> None:
    none(evidence, facts["server"]["md5"], "SELECT rolname FROM pg_authid WHERE rolpassword LIKE 'md5%'")


@pytest.mark.control("MFG-PG-04")
@pytest.mark.parametrize("role", ROLES)
def test_the_application_has_no_rights_over_the_server(role: str, facts: Facts, evidence: Evidence) -> None:
    found = facts["server"]["roles"][role]
    none(evidence, [right for right in RIGHTS if found[right]], "SELECT * FROM pg_roles")


@pytest.mark.control("MFG-PG-04")
def test_nobody_else_is_superuser(facts: Facts, evidence: Evidence) -> None:
    observed = sorted(name for name, has in facts["server"]["roles"].items() if has["super"])
    same(evidence, observed, ["postgres"], "SELECT rolname FROM pg_roles WHERE rolsuper")


@pytest.mark.control("MFG-PG-04")
def test_not_everybody_may_connect(facts: Facts, evidence: Evidence) -> None:
    none(evidence, facts["server"]["public_connect"], "has_database_privilege('public', …, 'CONNECT')")


@pytest.mark.control("MFG-PG-05")
@pytest.mark.parametrize("setting", LOGGED)
def test_acts_are_logged_and_values_are_not(setting: str, facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["server"]["settings"][setting], LOGGED[setting], f"SHOW {setting}")


@pytest.mark.control("MFG-PG-05")
def test_a_log_line_says_who(facts: Facts, evidence: Evidence) -> None:
    observed = facts["server"]["settings"]["log_line_prefix"]
    good = all(part in observed for part in ("%m", "%u", "%d", "%r"))
    holds(evidence, good, observed, "time, account, database and address", "SHOW log_line_prefix")


@pytest.mark.control("MFG-PG-06")
def test_what_crosses_the_network_is_encrypted(facts: Facts, evidence: Evidence) -> None:
    """A server that listens to nobody beyond the host has nothing to encrypt."""
    found = facts["server"]["settings"]
    local = {each.strip() for each in found["listen_addresses"].split(",")} <= LOOPBACK
    observed = "listens to the host only" if local else f"ssl {found['ssl']}, {found['ssl_min_protocol_version']}"
    good = local or (found["ssl"] == "on" and found["ssl_min_protocol_version"] == "TLSv1.3")
    holds(evidence, good, observed, "TLS 1.3, or only the host", "SHOW ssl, ssl_min_protocol_version")


@pytest.mark.control("MFG-PG-07")
def test_pages_carry_checksums(facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["server"]["settings"]["data_checksums"], "on", "SHOW data_checksums")


@pytest.mark.control("MFG-PG-07")
def test_data_and_settings_are_private(facts: Facts, evidence: Evidence) -> None:
    good = ("postgres 0700", "postgres 0640", "postgres 0600", "root 0640")
    if not facts["modes"]:
        raise CouldNotLook("No data directory was found.")
    wrong = [f"{p} {m}" for p, m in facts["modes"].items() if m not in good or (p.endswith("main") and m != good[0])]
    none(evidence, wrong, "stat /var/lib/postgresql/17/main /etc/postgresql/17/main/*")


@pytest.mark.control("MFG-PG-07")
def test_settings_come_from_our_files(facts: Facts, evidence: Evidence) -> None:
    """What ALTER SYSTEM, ALTER DATABASE or ALTER ROLE set would win over the files."""
    observed = [*facts["server"]["overridden"], *facts["server"]["own_settings"]]
    none(evidence, observed, "SELECT * FROM pg_file_settings, pg_db_role_setting")


@pytest.mark.control("MFG-PG-08")
def test_extensions(facts: Facts, evidence: Evidence) -> None:
    none(evidence, sorted(set(facts["extensions"]) - EXTENSIONS), "SELECT extname FROM pg_extension")


@pytest.mark.control("MFG-PG-08")
def test_no_compiler(facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["server"]["settings"]["jit"], "off", "SHOW jit")


@pytest.mark.control("MFG-PG-08")
def test_nobody_starts_programs(facts: Facts, evidence: Evidence) -> None:
    none(evidence, facts["server"]["programs"], "SELECT * FROM pg_auth_members")
