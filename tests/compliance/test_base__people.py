"""Accounts, passwords and sudo of every host."""

from __future__ import annotations

import re

import pytest

from mastodon_gov.audit.facts import Facts
from mastodon_gov.instance import Instance
from tests.compliance.conftest import Evidence
from tests.compliance.expect import none, same

PROGRAMS = "/usr/local/lib/mastodon-gov/facts/"
# As `sudo -V` words them.
SUDO = {
    "use_pty": "Always run commands in a pseudo-tty",
    "logfile": "Path to log file: /var/log/sudo.log",
    "ignore_dot": "Ignore '.' in $PATH",
    "umask": "Umask to use or 0777 to use user's: 077",
    "timestamp_timeout": "Authentication timestamp timeout: 5.0 minutes",
}
FAILLOCK = {
    "common-auth": [
        "auth requisite pam_faillock.so preauth silent audit deny=3 unlock_time=900",
        "auth [default=die] pam_faillock.so authfail deny=3 unlock_time=900",
    ],
    "common-account": ["account required pam_faillock.so"],
}


def declared(instance: Instance) -> dict[str, set[str]]:
    """Who is in which group, as instance.yaml says."""
    access = instance.access
    return {
        "mfg-admin": {person.name for person in access.administrators},
        "mfg-audit": {"auditor"} if access.auditors else set(),
        "mfg-deploy": {"deploy"},
        "sudo": set(),
    }


@pytest.mark.control("MFG-GOV-01")
def test_somebody_answers(evidence: Evidence, instance: Instance) -> None:
    named = {"owner": instance.owner.address} | instance.officers.model_dump()
    missing = [who for who, address in named.items() if address is None]
    wrong = missing + ["the deputy is the owner"] * (named["deputy"] == named["owner"])
    none(evidence, wrong, "instance.yaml: owner, officers")


@pytest.mark.control("MFG-USR-01")
def test_people_are_declared(facts: Facts, evidence: Evidence, instance: Instance) -> None:
    observed = sorted(who["name"] for who in facts["accounts"] if who["uid"] >= 1000 and who["may_sign_in"])
    same(evidence, observed, sorted(set().union(*declared(instance).values())), "getent passwd")


@pytest.mark.control("MFG-USR-02")
@pytest.mark.parametrize("what", ["users", "first_groups", "groups"])
def test_only_root_is_root(what: str, facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["zeros"][what], ["root"], "getent passwd, getent group")


@pytest.mark.control("MFG-USR-02")
def test_root_has_no_password(facts: Facts, evidence: Evidence) -> None:
    observed = [who["locked"] for who in facts["accounts"] if who["name"] == "root"]
    same(evidence, observed, [True], "passwd -S root")


@pytest.mark.control("MFG-USR-03")
def test_system_accounts_cannot_sign_in(facts: Facts, evidence: Evidence) -> None:
    """Debian's sync has a shell that only writes disks out."""
    system = [who for who in facts["accounts"] if 0 < who["uid"] < 1000 and who["name"] != "sync"]
    none(evidence, [who["name"] for who in system if who["may_sign_in"]], "getent passwd")


@pytest.mark.control("MFG-USR-03")
def test_system_accounts_are_locked(facts: Facts, evidence: Evidence) -> None:
    system = [who for who in facts["accounts"] if 0 < who["uid"] < 1000]
    none(evidence, [who["name"] for who in system if not who["locked"]], "getent shadow")


@pytest.mark.control("MFG-USR-04")
def test_no_password_is_empty(facts: Facts, evidence: Evidence) -> None:
    none(evidence, [who["name"] for who in facts["accounts"] if who["empty"]], "getent shadow")


@pytest.mark.control("MFG-USR-04")
def test_passwords_are_kept_with_yescrypt(facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["login_defs"].get("ENCRYPT_METHOD"), "YESCRYPT", "/etc/login.defs")


@pytest.mark.control("MFG-USR-05")
@pytest.mark.parametrize(
    ("setting", "value"), [("used", "True"), ("minlen", "16"), ("dictcheck", "1"), ("enforce_for_root", "")]
)
def test_passwords_are_good(setting: str, value: str, facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["quality"].get(setting), value, "/etc/security/pwquality.conf.d")


@pytest.mark.control("MFG-USR-06")
@pytest.mark.parametrize("name", FAILLOCK)
def test_guessing_closes_an_account(name: str, facts: Facts, evidence: Evidence) -> None:
    observed = [line for line in facts["pam"][name] if "pam_faillock.so" in line]
    same(evidence, observed, FAILLOCK[name], f"/etc/pam.d/{name}")


@pytest.mark.control("MFG-USR-07")
def test_new_homes_are_private(facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["login_defs"].get("UMASK"), "027", "/etc/login.defs")


@pytest.mark.control("MFG-USR-07")
@pytest.mark.parametrize(("what", "value"), [("umask", "0027"), ("timeout", "600"), ("fixed", True)])
def test_an_open_shell_ends(what: str, value: object, facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["shell"][what], value, "bash -lc 'umask; readonly -p'")


@pytest.mark.control("MFG-USR-08")
def test_su_is_for_one_group(facts: Facts, evidence: Evidence) -> None:
    """Before anything that could let somebody through, but root."""
    lines = [line for line in facts["pam"]["su"] if line.startswith("auth")][:2]
    expected = ["auth sufficient pam_rootok.so", "auth required pam_wheel.so use_uid group=sugroup"]
    same(evidence, lines, expected, "/etc/pam.d/su")


@pytest.mark.control("MFG-USR-08")
def test_nobody_is_in_that_group(facts: Facts, evidence: Evidence) -> None:
    none(evidence, facts["groups"]["sugroup"], "getent group sugroup")


@pytest.mark.control("MFG-USR-09")
def test_people_sign_in_or_go(facts: Facts, evidence: Evidence) -> None:
    none(evidence, facts["idle"], "journalctl -t sshd-session -g ^Accepted")


@pytest.mark.control("MFG-SUDO-01")
@pytest.mark.parametrize("setting", SUDO)
def test_sudo_keeps_a_record(setting: str, facts: Facts, evidence: Evidence) -> None:
    seen = SUDO[setting] in facts["sudo_settings"].splitlines()
    same(evidence, SUDO[setting] if seen else f"{setting} is not in force", SUDO[setting], "sudo -V")


@pytest.mark.control("MFG-SUDO-02")
def test_sudo_asks_everybody_else(facts: Facts, evidence: Evidence) -> None:
    free = {("username:deploy", "ALL"), ("usergroup:mfg-admin", "ALL")}
    rules = [(rule["who"], rule["what"]) for rule in facts["sudo_rules"] if not rule["asks"]]
    wrong = [rule for rule in rules if rule not in free and not _reads_only(*rule)]
    none(evidence, [*wrong, *facts["sudo_free"]], "cvtsudoers -f json /etc/sudoers")


def _reads_only(who: str, what: str) -> bool:
    return who == "usergroup:mfg-audit" and bool(re.fullmatch(rf'{PROGRAMS}[a-z_]+ ""', what))


@pytest.mark.control("MFG-SUDO-02")
def test_nobody_else_has_a_rule(facts: Facts, evidence: Evidence) -> None:
    known = {"username:root", "username:deploy", "usergroup:sudo", "usergroup:mfg-admin", "usergroup:mfg-audit"}
    none(evidence, sorted({rule["who"] for rule in facts["sudo_rules"]} - known), "cvtsudoers -f json /etc/sudoers")


@pytest.mark.control("MFG-SUDO-03")
@pytest.mark.parametrize("group", ["mfg-admin", "mfg-audit", "mfg-deploy", "sudo"])
def test_groups_with_rights(group: str, facts: Facts, evidence: Evidence, instance: Instance) -> None:
    same(evidence, facts["groups"][group], sorted(declared(instance)[group]), f"getent group {group}")
