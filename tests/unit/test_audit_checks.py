"""Checks of the suite without a host: what real hosts have is not red, and what a lab cannot break is."""

from __future__ import annotations

import gzip
import time
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tests.compliance.test_backups as backups
import tests.compliance.test_base as base
import tests.compliance.test_base__people as people
import tests.compliance.test_base__services as services
import tests.compliance.test_certificates as certificates
import tests.compliance.test_mastodon as mastodon
import tests.compliance.test_ssh as ssh
from mastodon_gov.audit.facts import CouldNotLook, Facts, Foreseen
from mastodon_gov.errors import Refusal
from mastodon_gov.instance import Instance
from mastodon_gov.instance.flows import reaches_public
from mastodon_gov.instance.model import Officers
from mastodon_gov.instance.server import Role, Server
from mastodon_gov.release.known import known_versions, supported_until
from tests.unit.audit_sample import evidence, instance, program, public_store

DAY = 86400
base_facts, nginx_facts, ssh_facts = map(program, ("base", "nginx", "ssh"))
facts_people = base_facts.facts_people


# -- versions


def supported(what: str, version: str, on: date, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(mastodon, "today", lambda: on)
    try:
        mastodon.test_it_is_supported(what, Facts({"versions": {what: version}}), evidence)
    except AssertionError:
        return False
    return True


def test_what_debian_packages_lasts_as_long_as_debian(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upstream's Ruby 3.3 ends in March 2027; Debian mends its own until August 2028."""
    assert supported("ruby", "Debian's 3.3", date(2027, 6, 1), monkeypatch)
    assert not supported("ruby", "3.3, not Debian's", date(2026, 12, 1), monkeypatch)
    assert not supported("ruby", "Debian's 3.3", date(2028, 6, 1), monkeypatch)
    assert not supported("node", "22", date(2027, 2, 1), monkeypatch)
    assert supported("node", "24", date(2027, 2, 1), monkeypatch)


def test_a_series_ends_half_a_year_after_the_second_newer_one_began() -> None:
    """As upstream said of 4.4 when 4.6.0 came: until 2026-12-17. The two newest have no end."""
    known = known_versions()
    of = known.versions["4.6.0"]
    more = known.model_copy(update={"versions": {**known.versions, "4.4.0": of, "4.4.1": of}})
    assert supported_until("4.4.1", more) == date(2026, 12, 17)
    assert supported_until("4.5.15", known) is None
    assert supported_until("4.6.5", known) is None
    with pytest.raises(Refusal, match="does not know when this series began"):
        supported_until("4.3.2", known)


def test_a_series_near_its_end_is_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = Facts({"versions": {"mastodon": "4.5.15"}})
    request: Any = SimpleNamespace(config=SimpleNamespace(getoption=lambda _: tmp_path))
    mastodon.test_mastodon_s_series_is_supported(facts, evidence, request)
    monkeypatch.setattr(mastodon, "supported_until", lambda *_: date(2027, 1, 31))
    monkeypatch.setattr(mastodon, "today", lambda: date(2026, 12, 1))
    with pytest.raises(AssertionError, match="until 2027-01-31"):
        mastodon.test_mastodon_s_series_is_supported(facts, evidence, request)


def test_an_advisory_that_waits_is_red_and_an_old_list_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4.6.4 of 2026-07-27 answers advisories, 4.6.5 does not; the built-in list is of 2026-08-06."""
    request: Any = SimpleNamespace(config=SimpleNamespace(getoption=lambda _: tmp_path))

    def look(version: str, on: date) -> None:
        monkeypatch.setattr(mastodon, "today", lambda: on)
        mastodon.test_no_advisory_waits(Facts({"versions": {"mastodon": version}}), evidence, request)

    look("4.6.4", date(2026, 8, 7))
    look("4.6.3", date(2026, 7, 29))
    with pytest.raises(AssertionError, match=r"4\.6\.3 is behind by 2"):
        look("4.6.3", date(2026, 7, 30))
    with pytest.raises(CouldNotLook, match="carry in a newer one"):
        look("4.6.5", date(2026, 12, 1))


def test_an_officer_who_is_not_named_is_red() -> None:
    """Each of the three, and one person who is owner and deputy."""
    known = instance()

    def look(**changes: str | None) -> None:
        named = {"deputy": "d@agency.test", "data_protection": "p@agency.test", "security": "s@agency.test"} | changes
        people.test_somebody_answers(evidence, known.model_copy(update={"officers": Officers(**named)}))

    look()
    for gone in ("deputy", "data_protection", "security"):
        with pytest.raises(AssertionError, match=gone):
            look(**{gone: None})
    with pytest.raises(AssertionError, match="the deputy is the owner"):
        look(deputy=known.owner.address)


# -- the host

SOCKETS = (
    "udp 0.0.0.0:68 dhcpcd",
    "udp 192.0.2.7%eth0:68 systemd-network",
    "udp [fe80::1%eth0]:546 dhclient",
    "udp 127.0.0.53%lo:53 systemd-resolve",
    "tcp 127.0.0.54:53 systemd-resolve",
    "tcp 0.0.0.0:443 nginx",
)
WRONG_SOCKETS = (
    "udp 0.0.0.0:68 python3",
    "udp 0.0.0.0:53 systemd-resolve",
    "tcp 127.0.0.1:53 dnsmasq",
    "udp 0.0.0.0:5355 systemd-resolve",
    "tcp 0.0.0.0:68 dhcpcd",
)


def test_what_gives_a_machine_its_address_may_listen() -> None:
    base.test_only_our_sockets(Facts({"sockets": list(SOCKETS)}), evidence)
    for line in WRONG_SOCKETS:
        with pytest.raises(AssertionError):
            base.test_only_our_sockets(Facts({"sockets": [line]}), evidence)


def test_set_uid_programs_of_a_provider_are_known_or_declared() -> None:
    found = ["/usr/bin/fusermount3", "/opt/agent/bin/helper"]
    facts = Facts({"tree": {"setuid": found}})
    access = instance().access.model_copy(update={"privileged_programs": ("/opt/agent/bin/helper",)})
    base.test_setuid_programs_are_debian_s(facts, evidence, instance(access=access))
    with pytest.raises(AssertionError, match="found /opt/agent/bin/helper"):
        base.test_setuid_programs_are_debian_s(facts, evidence, instance())
    with pytest.raises(AssertionError):
        base.test_setuid_programs_are_debian_s(Facts({"tree": {"setuid": ["/usr/bin/bash"]}}), evidence, instance())


TRACKING = "C0000201,192.0.2.1,3,1764550000.1,{0},0.0,0.0,1.1,0.0,0.1,0.01,0.01,64.2,{1}\n"
SOURCES = "^,*,192.0.2.1,2,6,{0},10,0.0,0.0,0.01\n"


def clock_of(offset: str, leap: str, reach: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    told = {"tracking": TRACKING.format(offset, leap), "sources": SOURCES.format(reach)}
    monkeypatch.setattr(base_facts, "output", lambda *words, **_: told.get(words[-1], ""))
    found: dict[str, object] = base_facts.clock()
    return found


def test_a_clock_that_follows_nobody_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lab's clock belongs to the machine that runs it, so this is shown here."""
    good = clock_of("0.00002", "Normal", "377", monkeypatch)
    assert (good["leap"], good["sources"]) == ("Normal", 1)
    base.test_the_clock_is_right(Facts({"clock": good}), evidence)
    for wrong in (("0.0", "Not synchronised", "377"), ("0.0", "Normal", "0"), ("0.2", "Normal", "377")):
        with pytest.raises(AssertionError):
            base.test_the_clock_is_right(Facts({"clock": clock_of(*wrong, monkeypatch)}), evidence)


def test_postgresql_may_be_open_for_a_public_store_only() -> None:
    assert reaches_public(public_store(), "postgres")

    def tight(score: float, known: Instance) -> None:
        unit = {"Id": "postgresql@17-main.service", "exposure": score}
        services.test_the_sandbox_is_tight("postgresql", Facts({"services": {"postgresql": unit}}), evidence, known)

    tight(1.0, instance())
    tight(1.1, public_store())
    for score, known in ((1.1, instance()), (1.2, public_store())):
        with pytest.raises(AssertionError):
            tight(score, known)


# -- people and sshd

FREE = {
    "everybody": '{"Defaults": [{"Options": [{"authenticate": false}]}]}',
    "a group": '{"Defaults": [{"Options": [{"exempt_group": "staff"}]}]}',
    "one person": '{"Defaults": [{"Binding": [{"username": "x"}], "Options": [{"logfile": false}]}]}',
}


@pytest.mark.parametrize("name", FREE)
def test_defaults_of_sudo_that_let_somebody_through_are_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts_people, "output", lambda *_: FREE[name])
    facts = Facts({"sudo_rules": [], "sudo_free": facts_people.sudo_free()})
    with pytest.raises(AssertionError, match="Defaults"):
        people.test_sudo_asks_everybody_else(facts, evidence)


def test_other_defaults_of_sudo_are_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts_people, "output", lambda *_: '{"Defaults": [{"Options": [{"use_pty": true}]}]}')
    assert facts_people.sudo_free() == []


def test_what_a_match_block_gives_somebody_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """`sshd -T` alone says what everybody gets."""

    def told(*words: str) -> str:
        of_root = any(word.startswith("user=root,") and "addr=203.0.113.9" in word for word in words)
        return f"permitrootlogin {'yes' if of_root else 'no'}\nmaxauthtries 3\nallowgroups a\nallowgroups b\n"

    monkeypatch.setattr(ssh_facts, "output", told)
    monkeypatch.setattr(ssh_facts, "_people", lambda: ["deploy", "root"])
    seen = ssh_facts.sshd()
    assert seen == {"permitrootlogin": ["no", "yes (for root)"], "maxauthtries": ["3"], "allowgroups": ["a", "b"]}
    with pytest.raises(AssertionError):
        ssh.test_root_cannot_sign_in(Facts({"sshd": seen}), evidence)


# -- Mastodon's roles


def test_powers_are_for_whom_the_instance_gives_them() -> None:
    owner = {"name": instance().owner.username, "role": "Owner", "powers": 1}
    editor = {"name": "anna", "role": "Editor", "powers": 64}
    role = Role.model_validate({"name": "Editor", "position": 10, "permissions": ["manage_settings", "manage_rules"]})
    known = instance(server=Server(roles=(role,)))

    def judged(*holders: dict[str, object]) -> None:
        mastodon.test_administrators_are_declared(Facts({"database": {"powerful": list(holders)}}), evidence, known)

    judged(owner)
    judged(owner, editor)
    for wrong in (
        (editor,),
        (owner, {**editor, "powers": 64 | 131072}),
        (owner, {**editor, "role": "Admin"}),
        (owner, {**editor, "powers": 1}),
    ):
        with pytest.raises(AssertionError):
            judged(*wrong)


# -- certificates and backups


def test_a_certificate_of_the_ministry_is_not_renewed_and_that_is_foreseen() -> None:
    own = instance().certificates.model_copy(update={"acme": None})
    with pytest.raises(Foreseen):
        certificates.test_it_is_renewed("timer", Facts({}), evidence, instance(certificates=own))


def test_no_drill_yet_is_not_passed() -> None:
    """Until its day it is foreseen, with that day; then it is red. So is the envelope."""
    days = instance().backups.drill_max_age_days

    def drill(**told: object) -> None:
        facts = Facts({"drill": {"rc": None, "age": None, "since": DAY, **told}})
        backups.test_a_restore_was_proved(facts, instance(), evidence)
        backups.test_its_evidence_is_signed(facts, instance(), evidence)

    due = time.strftime("%Y-%m-%d", time.gmtime(time.time() + (days - 1) * DAY))
    with pytest.raises(Foreseen, match=f"due by {due}"):
        drill()
    for wrong in ({"since": (days + 1) * DAY}, {"rc": 1}, {"rc": 0, "age": 5, "label": "x", "rto_s": 1}):
        with pytest.raises(AssertionError):
            drill(**wrong)
    drill(rc=0, age=5, label="x", rto_s=1, signed=True, counts={"users": 1}, egress="closed")

    def envelope(same: bool | None, age: int | None, since: int = DAY) -> None:
        facts = Facts({"escrow": {"same": same, "age": age, "since": since}})
        backups.test_the_envelope_holds_the_key_in_use(facts, instance(), evidence)

    envelope(True, 5)
    with pytest.raises(Foreseen, match=f"due by {due}"):
        envelope(None, None)
    with pytest.raises(AssertionError):
        envelope(False, 5)
    with pytest.raises(AssertionError):
        envelope(None, None, (days + 1) * DAY)


# -- nginx's logs


def test_first_lines_say_how_old_and_what_is_not_compressed_has_no_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nginx_facts, "LOGS", tmp_path)
    line = 'h [{0}T00:00:00+00:00] web "GET {1} HTTP/1.1" 200\n'
    old = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 12 * DAY))
    today = time.strftime("%Y-%m-%d", time.gmtime())
    with gzip.open(tmp_path / "access.log.9.gz", "wt") as file:
        file.write(line.format(old, "/a"))
    (tmp_path / "access.log.1").write_text(line.format(today, "/oauth?code=1") * 2)
    (tmp_path / "access.log").write_text(line.format(today, "/a") + line.format(today, "/b?x"))
    assert nginx_facts.logs() == {"oldest": 12, "queries": 3}
