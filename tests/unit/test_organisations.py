"""organisations.yaml: every wrong account gets its sentence, and a verb's change keeps the person's text."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mastodon_gov import leaving
from mastodon_gov.errors import Refusal
from mastodon_gov.instance.load import load
from mastodon_gov.instance.organisation_file import change_account
from mastodon_gov.instance.organisation_rules import mistaken, punycode_fault, skeleton
from mastodon_gov.people import joined
from mastodon_gov.remote import Host
from roles.mastodon.database import Application, refused
from roles.mastodon.lock import is_settled, lock_source, sync_sql
from tests.unit.instance_sample import good_directory

GOOD = """\
# Who speaks here.
format: 1
organisations:
  - id: agency   # the lead
    name: Agency for Demonstrations
    names: {de: Amt für Beispiele}
    domains: [agency.test]
    handles: "agency*"
    responsible: ana@agency.test
    state: live
    days: {live: 2026-11-21}
  - id: council
    name: 'Council of Demonstrations'
    domains: [council.test]
    state: leaving

accounts:
  # The press desk.
  - handle: agency_press
    kind: office
    organisation: agency
    owner: ana@agency.test     # since 2026
    deputy: ben@agency.test
    mailbox: press@agency.test
    tools: [Scheduler]
  - handle: council
    kind: organisation
    organisation: council
    owner: cy@council.test
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A good instance whose file has accounts."""
    made = good_directory(tmp_path / "instance")
    (made / "organisations.yaml").write_text(GOOD)
    return made


# What is changed, the key that is named, and what is said.
WRONG = {
    "unknown organisation": ("organisation: council", "organisation: x", "accounts[2].organisation", "agency, council"),
    "handle twice": ("handle: council", "handle: Agency_Press", "accounts[2].handle", "again"),
    "reserved word": ("handle: council", "handle: Emergency", "accounts[2].handle", "reserved word"),
    "another form than the body's": ("agency_press", "press_agency", "accounts[1].handle", "agency*"),
    "letters of another alphabet": ("agency_press", "аgency_press", "accounts[1].handle", "letters a to z"),
    "too long": ("agency_press", "agency" + "x" * 30, "accounts[1].handle", "1 to 30"),
    "owner of another body": ("cy@council.test", "cy@agency.test", "accounts[2].owner", "council.test"),
    "mailbox of a stranger": ("press@agency.test", "press@world.test", "accounts[1].mailbox", "agency.test"),
    "deputy is the owner": ("ben@agency.test", "ana@agency.test", "accounts[1].deputy", "another person"),
    "no owner": ("    owner: cy@council.test\n", "", "accounts[2].owner", "Add the key owner"),
    "unknown kind": ("kind: office", "kind: desk", "accounts[1].kind", "organisation"),
    "automated without mailbox": ("    owner: cy@", "    automated: true\n    owner: cy@", "accounts[2]", "mailbox"),
    "a state nobody knows": ("state: leaving", "state: gone", "organisations[2].state", "requested"),
    "no day": ("2026-11-21", "2026-13-01", "organisations[1].days.live", "a day such as"),
    "a language nobody speaks": ("{de:", "{Deutsch:", "organisations[1].names.Deutsch", "found"),
    "mixed alphabets": ("[council.test]", "[xn--gency-3ve.test]", "organisations[2].domains[1]", "several alphabets"),
    "misspelt key": ("tools:", "tool:", "accounts[1].tool", "Did you mean tools?"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_file_gets_its_sentence(directory: Path, name: str) -> None:
    """With the file, the line and the key."""
    old, new, key, says = WRONG[name]
    assert old in GOOD
    (directory / "organisations.yaml").write_text(GOOD.replace(old, new, 1))
    with pytest.raises(Refusal) as refusal:
        load(directory)
    mine = [line for line in str(refusal.value).splitlines() if f", {key}: found" in line]
    assert mine, refusal.value
    assert says in mine[0]
    assert mine[0].startswith("organisations.yaml, line ")


@pytest.mark.parametrize(
    ("one", "other"),
    [("agency_press", "agencypress"), ("mlnister", "m1nister"), ("Info", "lnfo"), ("modern", "modem"),
     ("vvater", "water"), ("o_5", "0_s"), ("PoIice", "police")],
)  # fmt: skip
def test_names_that_look_alike(directory: Path, one: str, other: str) -> None:
    """The second is refused and the first is named."""
    assert skeleton(one) == skeleton(other)
    text = (
        GOOD.replace('    handles: "agency*"\n', "")
        .replace("agency_press", one)
        .replace("handle: council", f"handle: {other}")
    )
    (directory / "organisations.yaml").write_text(text)
    with pytest.raises(Refusal, match=r"accounts\[2\]\.handle: found"):
        load(directory)


def test_names_that_do_not_look_alike() -> None:
    """Ordinary names stay free."""
    names = ["mail", "mall", "press", "water", "warer", "ministry", "minister", "police_a", "police_b"]
    assert len({skeleton(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("shown", "wrong"),
    [("bücher.test", False), ("москва.test", False), ("аgency.test", True), ("сосо.test", True), ("οο.test", True)],
)
def test_international_domains(shown: str, wrong: bool) -> None:
    """A word in one alphabet is fine unless all its letters pass for Latin ones."""
    assert bool(punycode_fault(shown.encode("idna").decode())) is wrong


@pytest.mark.parametrize("domain", ["xn--a.test", "xn--zzzzzzzzzzz99.test", "xn--agency-.test"])
def test_what_is_no_international_domain(domain: str) -> None:
    """Neither a browser nor a person can read it."""
    assert punycode_fault(domain)


@pytest.mark.parametrize("handle", ["p0lice", "pol_ice", "PoIice", "adm1n", "em3rgency", "aIert5", "vvebmaster"])
def test_the_look_of_a_reserved_word_is_one(handle: str) -> None:
    assert mistaken(handle)


@pytest.mark.parametrize("handle", ["agency_help", "policy", "agency5", "minister", "fireland"])
def test_a_name_of_its_own_is_none(handle: str) -> None:
    assert not mistaken(handle)


@pytest.mark.parametrize("name", ["ɑgency.test", "aɡency.test", "mınistry.test"])
def test_letters_of_the_latin_alphabet_that_nobody_can_tell_apart(name: str) -> None:
    """One alphabet, and still another name than it looks like; an umlaut is seen."""
    assert "which looks like" in str(punycode_fault(name.encode("idna").decode()))
    assert punycode_fault("bücher.test".encode("idna").decode()) is None


def test_register_leaves_out_who_has_no_place_yet(directory: Path) -> None:
    """A requested organisation is known, its domains are not."""
    (directory / "organisations.yaml").write_text(GOOD.replace("state: leaving", "state: requested"))
    instance = load(directory)
    assert instance.register["council"] == {"state": "requested", "domains": []}
    assert instance.staff_domains == ("agency.test",)


def test_a_change_keeps_comments_order_and_quotes(directory: Path) -> None:
    """Exactly one word differs."""
    change_account(directory, "AGENCY_press", {"owner": "dora@agency.test"})()
    assert (directory / "organisations.yaml").read_text() == GOOD.replace(
        "owner: ana@agency.test     #", "owner: dora@agency.test    #"
    )


def test_a_change_that_would_be_wrong_is_not_written(directory: Path) -> None:
    """Nor is it half-written."""
    with pytest.raises(Refusal, match="was not made"):
        change_account(directory, "agency_press", {"owner": "x@world.test"})
    assert (directory / "organisations.yaml").read_text() == GOOD


def test_living_accounts_of_a_removed_organisation_are_named(directory: Path) -> None:
    """Before anything is changed; the sentence says what to do."""
    instance = load(directory)
    gone = {"ferries": {"count": 12, "names": ["ferries", "ferries_info"]}}
    sentence = refused(Application(orphans=gone), instance, "4.6.5-x")
    assert sentence
    for part in ("organisations.yaml", "ferries", "12 of its accounts", "@ferries_info, …", "state: leaving"):
        assert part in sentence
    assert refused(Application(), instance, "4.6.5-x") is None


def test_living_accounts_at_a_domain_that_goes_are_named(directory: Path) -> None:
    """One sentence for each domain; the organisation stays."""
    told = {"count": 2, "names": ["ferries", "ports"], "of": "council"}
    sentences = refused(Application(orphans={"a.test": told, "b.test": told}), load(directory), "4.6.5-x")
    assert sentences
    first, second = sentences.splitlines()
    for part in (
        "organisation council",
        "the domain a.test",
        "2 accounts",
        "@ferries, @ports.",
        "mastodon-gov offboard",
    ):
        assert part in first
    assert "b.test" in second


def test_300_organisations_and_2000_accounts(directory: Path) -> None:
    """Read in seconds, and the lock is settled with exactly what was synced, in whatever order the file has them."""
    bodies = [f"  - id: b{n}\n    name: Body {n}\n    domains: [b{n}.test, mail.b{n}.test]\n" for n in range(300)]
    accounts = [f"  - handle: b{n % 300}_{'abcdefg'[n // 300]}\n    kind: office\n    organisation: b{n % 300}\n"
                f"    owner: p{n}@b{n % 300}.test\n" for n in range(2000)]  # fmt: skip
    (directory / "organisations.yaml").write_text(
        "format: 1\norganisations:\n  - {id: agency, name: Agency, domains: [agency.test]}\n"
        + "".join(reversed(bodies)) + "accounts:\n" + "".join(accounts)
    )  # fmt: skip
    began = time.monotonic()
    instance = load(directory)
    assert time.monotonic() - began < 30
    assert len(instance.accounts) == 2000
    names = ("agency.test", "social.agency.test")
    sql = sync_sql(instance.register, {}, names)
    held = {each["id"]: {k: each[k] for k in ("state", "domains")} for each in json.loads(sql.split("'")[5])}
    status = {"installed": True, "failed": [], "source": lock_source(), "settings": {}, "organisations": held,
              "deployment": {"local_domain": names[0], "web_domain": names[1]}}  # fmt: skip
    assert is_settled(status, instance.register, {}, names)


def test_offboard_means_every_account_the_person_can_post_as(directory: Path) -> None:
    """By address, as owner and as deputy; a name with @ means that account and must exist."""
    instance = load(directory)
    assert leaving.accounts_of(instance, "Ben@agency.test") == {
        "addresses": ["ben@agency.test"],
        "handles": ["agency_press"],
    }
    assert leaving.accounts_of(instance, "@x") == {"handles": ["x"], "must": ["x"]}
    assert leaving.named_in(instance, "ana@agency.test") == ["agency.responsible", "@agency_press.owner"]
    (directory / "organisations.yaml").write_text(GOOD.replace("ana@agency.test", "Ana@agency.test"))
    assert leaving.named_in(load(directory), "ANA@agency.test") == ["agency.responsible", "@agency_press.owner"]


@pytest.mark.parametrize("dry", [True, False])
def test_offboard_of_somebody_without_an_account_succeeds(
    directory: Path, monkeypatch: pytest.MonkeyPatch, dry: bool
) -> None:
    """Only an invitation ends. A dry run asks the host for something else than the verb does."""
    asked: list[str] = []

    def answer(host: Host, what: str, request: dict[str, Any]) -> dict[str, Any]:
        asked.append(f"{what} {request['addresses']}")
        told = {"accounts": [], "cut": {"accounts": 0, "invites": 1}, "without_owner": False}
        return told if what == "look" else told | {"seconds": 0.1, "streams": "ended"}

    monkeypatch.setattr(leaving, "ask_host", answer)
    monkeypatch.setattr(leaving, "application_host", lambda place: Host("social", place, load(place)))
    words = ["Kim@agency.test", "--why", "stayed away", *(["--dry-run"] if dry else [])]
    done = CliRunner().invoke(leaving.offboard, words, obj=directory)
    assert done.exit_code == 0, done.exception
    assert ("Nothing was changed" in done.output) == dry
    assert "no account, only invitations" in done.output
    assert "Evidence" not in done.output
    assert asked == [f"{'look' if dry else 'shut'} ['kim@agency.test']"]


def test_handover_checks_the_file_before_it_touches_the_host(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger as the new owner: refused, the host is never asked."""
    monkeypatch.setattr(leaving, "ask_host", lambda *_: pytest.fail("the host was asked"))
    monkeypatch.setattr(leaving, "application_host", lambda place: Host("social", place, load(place)))
    words = ["@agency_press", "--to", "x@world.test", "--why", "election"]
    done = CliRunner().invoke(leaving.handover, words, obj=directory)
    assert isinstance(done.exception, Refusal)


def test_people_shows_tools_that_are_not_listed(directory: Path) -> None:
    """The file allows one application; Mastodon's own page needs no permission."""
    tokens = [{"application": name, "superapp": False} for name in ("Scheduler", "Robot")]
    tokens += [{"application": "Web", "superapp": True}]
    live: list[dict[str, Any]] = [{"handle": "Agency_Press", "address": "press@agency.test", "tokens": tokens},
            {"handle": "x", "address": "x@council.test", "tokens": []}]  # fmt: skip
    press, other = joined(load(directory), live)
    assert (press["listed"], press["organisation"], press["foreign_tools"]) == (True, "agency", ["Robot"])
    assert press["people"] == ["ana@agency.test", "ben@agency.test"]
    (false,) = joined(load(directory), [live[1] | {"tokens": [{"application": "Web", "superapp": False}]}])
    assert false["foreign_tools"] == ["Web"]
    assert (other["listed"], other["organisation"], other["people"]) == (False, "council", ["x@council.test"])
