"""The application: what its tables say, what its processes were started with, and whether its release is the one
that was signed."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from mastodon_gov.audit.facts import CouldNotLook, Facts, Foreseen
from mastodon_gov.errors import Refusal
from mastodon_gov.instance import Instance
from mastodon_gov.instance.server import Role
from mastodon_gov.instance.server_document import items
from mastodon_gov.release.bundle import check_signature, read_release
from mastodon_gov.release.known import OLD, known_versions, standing, supported_until
from mastodon_gov.release.select import selected
from tests.compliance.conftest import Evidence
from tests.compliance.expect import holds, none, same

# Switches that weaken what this product promises, or that upstream means for other uses.
FORBIDDEN = set(
    "REDIS_NAMESPACE SECRET_KEY_BASE_DUMMY SELF_DESTRUCT SINGLE_USER_MODE EXPERIMENTAL_FEATURES "
    "ALLOW_UNSAFE_AUTH_PROVIDER_REATTACH LDAP_TLS_NO_VERIFY WHITELIST_MODE SKIP_POST_DEPLOYMENT_MIGRATIONS".split()
)
# Days in which an urgent release is to be deployed.
URGENT = 2
# Debian's last day for version 13. Its security team mends what it packages until then, whenever upstream stops
# (debian.org/releases): PostgreSQL, and the Ruby that Mastodon runs with.
DEBIAN_13 = date(2028, 8, 9)
# Last day of support with security updates; Node comes with the release (github.com/nodejs/release).
END_OF_LIFE = {
    ("debian", "13"): DEBIAN_13,
    ("postgresql", "17"): DEBIAN_13,
    ("ruby", "Debian's 3.3"): DEBIAN_13,
    ("node", "22"): date(2027, 4, 30),
    ("node", "24"): date(2028, 4, 30),
}
QUARTER = 90  # days
NONE = ("--- none\n", "--- none", None)
POWERS = {"manage_settings": 64, "manage_roles": 131072}  # beside 1, administrator; as Mastodon counts them
SEVERITY = {"silence": 0, "suspend": 1, "noop": 2}  # as Mastodon counts them


@pytest.mark.control("MFG-APP-01")
def test_registration_is_closed_in_the_tables(facts: Facts, evidence: Evidence) -> None:
    mode = facts["database"]["mode"]
    holds(evidence, mode in NONE, mode, "none", "SELECT value FROM settings WHERE var = 'registrations_mode'")


@pytest.mark.control("MFG-APP-01")
@pytest.mark.parametrize(("what", "value"), [("api", False), ("nodeinfo", False), ("page", 302)])
def test_registration_is_closed_to_visitors(what: str, value: object, facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["answers"][what], value, "/api/v2/instance, /nodeinfo/2.0, /auth/sign_up")


@pytest.mark.control("MFG-APP-01")
def test_the_database_keeps_its_lock(facts: Facts, evidence: Evidence) -> None:
    none(evidence, facts["database"]["lock"], "SELECT gov.status()")


@pytest.mark.control("MFG-APP-02")
def test_everyone_has_no_rights(facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["database"]["everyone"], [0], "SELECT permissions FROM user_roles WHERE id = -99")


@pytest.mark.control("MFG-APP-02")
def test_administrators_are_declared(facts: Facts, evidence: Evidence, instance: Instance) -> None:
    """Only the owner administers; settings and roles are also for whoever has a role that instance.yaml gives them."""
    given = {role.name: sum(POWERS.get(name, 0) for name in role.permissions) for role in declared_roles(instance)}
    holders = facts["database"]["powerful"]
    more = [
        f"@{each['name']} ({each['role']})"
        for each in holders
        if each["name"] != instance.owner.username and each["powers"] & ~given.get(each["role"], 0)
    ]
    owner = [each for each in holders if each["name"] == instance.owner.username and each["powers"] & 1]
    wrong = more if owner else [*more, f"@{instance.owner.username} does not administer"]
    none(evidence, wrong, "SELECT … FROM users, user_roles")


def declared_roles(instance: Instance) -> tuple[Role, ...]:
    """Roles of instance.yaml; none where it leaves them to people."""
    return (instance.server and instance.server.roles) or ()


@pytest.mark.control("MFG-APP-02")
def test_nobody_lets_in_without_approval(facts: Facts, evidence: Evidence) -> None:
    none(evidence, facts["database"]["bypass"], "SELECT name FROM user_roles WHERE permissions & 2097152 <> 0")


@pytest.mark.control("MFG-APP-03")
def test_invitations_are_for_one(facts: Facts, evidence: Evidence) -> None:
    good = [
        each for each in facts["database"]["invites"] if each["uses"] == 1 and each["hours"] and each["hours"] <= 72
    ]
    wrong = [each["id"] for each in facts["database"]["invites"] if each not in good or not each["ledger"]]
    none(evidence, wrong, "SELECT … FROM invites, gov.invitation")


@pytest.mark.control("MFG-APP-04")
def test_addresses_are_staff_s(facts: Facts, evidence: Evidence, instance: Instance) -> None:
    none(evidence, sorted(set(facts["database"]["domains"]) - set(instance.staff_domains)), "SELECT … FROM users")


@pytest.mark.control("MFG-APP-04")
def test_the_list_counts_after_confirmation_too(facts: Facts, evidence: Evidence) -> None:
    observed = facts["environment"]["told"]["EMAIL_DOMAIN_LISTS_APPLY_AFTER_CONFIRMATION"]
    same(evidence, observed, "true", "/etc/mastodon/mastodon.env, compared with the processes by MFG-APP-09")


@pytest.mark.control("MFG-APP-05")
def test_every_role_asks_for_a_second_factor(facts: Facts, evidence: Evidence) -> None:
    none(evidence, facts["database"]["no_factor_asked"], "SELECT name FROM user_roles WHERE NOT require_2fa")


@pytest.mark.control("MFG-APP-05")
def test_everybody_has_a_second_factor(facts: Facts, evidence: Evidence) -> None:
    none(evidence, facts["database"]["no_factor"], "SELECT … FROM users, webauthn_credentials")


@pytest.mark.control("MFG-APP-07")
def test_accounts_are_declared(facts: Facts, evidence: Evidence, instance: Instance) -> None:
    """Both ways. The owner needs no entry; a frozen account may still have one."""
    if not instance.accounts:
        raise Foreseen("organisations.yaml lists no accounts, so any account of a staff domain is right.")
    listed = {account.handle.lower() for account in instance.accounts}
    live = {each["name"].lower(): each["disabled"] for each in facts["declared"]["accounts"]}
    more = [f"@{name}, not listed" for name, disabled in live.items()
            if not disabled and name not in listed | {instance.owner.username.lower()}]  # fmt: skip
    gone = [f"@{name}, listed only" for name in sorted(listed - live.keys())]
    none(evidence, more + gone, "SELECT username FROM accounts, against organisations.yaml")


@pytest.mark.control("MFG-APP-08")
def test_no_account_is_idle(facts: Facts, evidence: Evidence) -> None:
    none(evidence, facts["database"]["idle"], "SELECT … FROM users")


@pytest.mark.control("MFG-APP-08")
def test_no_token_is_idle(facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["database"]["idle_tokens"], 0, "SELECT … FROM oauth_access_tokens")


@pytest.mark.control("MFG-APP-09")
@pytest.mark.parametrize("kind", ["web", "sidekiq", "streaming"])
def test_processes_have_what_is_written(kind: str, facts: Facts, evidence: Evidence) -> None:
    differs = facts["environment"]["differs"]
    observed = list(differs[kind]) if kind in differs else ["it does not run"]
    none(evidence, observed, f"/proc/PID/environ of {kind}, by name of the key")


@pytest.mark.control("MFG-APP-09")
def test_no_forbidden_switch(facts: Facts, evidence: Evidence) -> None:
    none(evidence, sorted(FORBIDDEN & set(facts["environment"]["keys"])), "/etc/mastodon/mastodon.env")


@pytest.mark.control("MFG-APP-10")
def test_blocks_are_declared(facts: Facts, evidence: Evidence, instance: Instance) -> None:
    if instance.server is None or instance.server.domain_blocks is None:
        raise Foreseen("instance.yaml declares no server.domain_blocks, so moderators decide alone.")
    expected = {block.domain: SEVERITY[block.severity] for block in instance.server.domain_blocks}
    same(evidence, dict(facts["declared"]["blocks"]), expected, "SELECT domain, severity FROM domain_blocks")


@pytest.mark.control("MFG-APP-11")
@pytest.mark.parametrize("setting", ["IP_RETENTION_PERIOD", "SESSION_RETENTION_PERIOD"])
def test_addresses_are_forgotten(setting: str, facts: Facts, evidence: Evidence) -> None:
    observed = int(facts["environment"]["told"][setting] or 10**9)
    holds(evidence, observed <= QUARTER * 86400, f"{observed} s", "90 days or less", "/etc/mastodon/mastodon.env")


@pytest.mark.control("MFG-APP-13")
def test_no_migration_waits(facts: Facts, evidence: Evidence) -> None:
    none(evidence, facts["database"]["pending"], "schema_migrations, db/migrate of the release")


@pytest.mark.control("MFG-APP-16")
def test_texts_are_declared(facts: Facts, evidence: Evidence, instance: Instance) -> None:
    """Title, texts, rules, terms and contact: deployed as the file says today, and not changed since."""
    wanted = {name: value for name, value in items(instance).items() if not name.startswith(("role/", "domain_block/"))}
    if not wanted:
        raise Foreseen("instance.yaml has no server: its texts are not this product's.")
    made = facts["declared"]["items"]
    good = {name for name in wanted.keys() & made.keys() if made[name]["same"] and made[name]["wanted"] == wanted[name]}
    none(evidence, sorted(wanted.keys() - good), "SELECT … FROM gov.server_item, against instance.yaml")


@pytest.mark.control("MFG-SEC-01")
def test_the_environment_is_private(facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["environment"]["file"], "root:mastodon 0640", "stat /etc/mastodon/mastodon.env")


@pytest.mark.control("MFG-SEC-01")
@pytest.mark.parametrize("where", ["arguments", "units"])
def test_no_secret_is_shown(where: str, facts: Facts, evidence: Evidence) -> None:
    none(evidence, facts["shown"][where], "/proc/PID/cmdline, /etc/systemd/system")


@pytest.mark.control("MFG-SEC-02")
@pytest.mark.parametrize(("what", "value"), [("different", True), ("sample", False)])
def test_keys_are_our_own(what: str, value: bool, facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["keys"][what], value, "compared on the host")


@pytest.mark.control("MFG-SEC-02")
def test_keys_are_long(facts: Facts, evidence: Evidence) -> None:
    shortest = facts["keys"]["shortest"]
    holds(evidence, shortest >= 32, f"{shortest} characters", "32 or more", "measured on the host")


@pytest.mark.control("MFG-LOG-05")
def test_no_secret_is_logged(facts: Facts, evidence: Evidence) -> None:
    none(evidence, facts["journal"], "journalctl --since=-1d, searched on the host")


@pytest.mark.control("MFG-SBX-07")
def test_the_account_runs_nothing_else(facts: Facts, evidence: Evidence) -> None:
    none(evidence, facts["strangers"], "/proc/PID/cgroup of every process of mastodon")


@pytest.mark.control("MFG-SUP-01")
def test_the_release_is_what_was_signed(facts: Facts, evidence: Evidence) -> None:
    none(evidence, facts["release"]["problems"], "MANIFEST.sha256 against every file")


@pytest.mark.control("MFG-SUP-02")
def test_the_release_was_signed(
    facts: Facts, evidence: Evidence, instance: Instance, request: pytest.FixtureRequest
) -> None:
    """The manifest on the host is that of a bundle of ours, on which every file hangs (SUP-01)."""
    serving = instance.model_copy(update={"release": facts["versions"]["mastodon"]})
    bundle = selected(serving, request.config.getoption("--instance"))
    _, signed = read_release(Path(bundle.archive))
    try:
        check_signature(bundle)
    except Refusal as refusal:
        signed = str(refusal)
    same(evidence, facts["release"]["manifest_sha256"], signed, "MANIFEST.sha256; the bundle in releases/ and its .sig")


@pytest.mark.control("MFG-SUP-03")
@pytest.mark.parametrize("what", ["format", "missing"])
def test_parts_are_listed(what: str, facts: Facts, evidence: Evidence) -> None:
    expected: object = "CycloneDX" if what == "format" else []
    same(evidence, facts["parts"][what], expected, "sbom.cdx.json against gems and packages")


@pytest.mark.control("MFG-UPD-04")
@pytest.mark.parametrize("what", ["debian", "postgresql", "ruby", "node"])
def test_it_is_supported(what: str, facts: Facts, evidence: Evidence) -> None:
    version = facts["versions"][what]
    ends = END_OF_LIFE.get((what, version))
    seen = f"{what} {version}, until {ends}" if ends else f"{what} {version}, which this suite does not know"
    good = ends is not None and (ends - today()).days > QUARTER
    holds(evidence, good, seen, "supported for 90 days more", f"{what} --version")


@pytest.mark.control("MFG-UPD-04")
def test_mastodon_s_series_is_supported(facts: Facts, evidence: Evidence, request: pytest.FixtureRequest) -> None:
    """Upstream's dates are computed from the list of releases that this product carries; nobody is asked."""
    version, known = facts["versions"]["mastodon"], known_versions(request.config.getoption("--instance"))
    ends = supported_until(version, known)
    seen = f"{version}, until {ends or 'a day that upstream has not named'}; list of {known.as_of}"
    good = ends is None or (ends - today()).days > QUARTER
    holds(evidence, good, seen, "supported for 90 days more", "/opt/mastodon/current, known_versions.yaml")


@pytest.mark.control("MFG-UPD-03")
def test_no_advisory_waits(facts: Facts, evidence: Evidence, request: pytest.FixtureRequest) -> None:
    """By a list that is not too old to know."""
    stands = standing(facts["versions"]["mastodon"], known_versions(request.config.getoption("--instance")), today())
    if stands.list_days > OLD:
        raise CouldNotLook(f"Nobody can tell: {stands.sentence()}")
    good, wanted = (stands.advisory_days or 0) <= URGENT, f"no advisory older than {URGENT} days"
    holds(evidence, good, stands.sentence(), wanted, "/opt/mastodon/current, known_versions.yaml")


def today() -> date:
    """In UTC, as the days above are meant."""
    return datetime.now(UTC).date()
