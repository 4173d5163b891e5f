"""What the sweep calls a finding, and what it does about it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mastodon_gov.instance.load import load
from mastodon_gov.sweep import write_pages
from roles.mastodon.files import sweep
from roles.mastodon.files.sweep_findings import findings
from roles.mastodon.sweep import expected
from tests.unit.instance_sample import good_directory
from tests.unit.test_leaving_sql import columns

DAY = 86_400
GOOD: dict[str, Any] = {
    "id": 7, "account_id": 70, "name": "press", "address": "press@agency.test",
    "address_next": None, "approved": True, "disabled": False, "confirmed": True,
    "suspended": False, "needs_factor": True, "factor": True, "age": 400 * DAY, "unused": DAY, "links": ["https://www.agency.test/about"],
    "cleanup": False, "moved": False, "passwordless": False, "role": None, "invited_role": None,
}  # fmt: skip
TOKEN = {
    "name": "press",
    "address": "press@agency.test",
    "application": "Tool",
    "ids": [3],
    "scopes": "write",
    "unused": 9,
}


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    """What the demo's files say."""
    return expected(load(good_directory(tmp_path / "instance")))


def seen(config: dict[str, Any], *accounts: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A server that is as the files say, but for this."""
    names = ("tokens", "invites", "drifted", "blocks_outside", "roles_outside", "lock")
    nothing: dict[str, Any] = {name: [] for name in names}
    same = {name: config[name] for name in ("domains", "register", "settings")}
    return nothing | {"accounts": list(accounts)} | same | more


def found(config: dict[str, Any], *accounts: dict[str, Any], **more: Any) -> list[str]:
    """Names of the findings."""
    return [one["finding"] for one in findings(seen(config, *accounts, **more), config)]


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({}, []),
        ({"address": "press@gmail.test"}, ["foreign_address"]),
        ({"address": "press@x.agency.test"}, ["foreign_address"]),
        ({"address": "press@аgency.test"}, ["foreign_address"]),
        ({"address": "PRESS+1@Agency.TEST"}, []),
        ({"address_next": "press@gmail.test"}, ["foreign_address"]),
        ({"address": "press@gmail.test", "suspended": True}, []),
        ({"factor": False}, ["missing_second_factor"]),
        ({"factor": False, "needs_factor": False}, []),
        ({"factor": False, "age": 2 * DAY, "links": []}, []),
        ({"factor": False, "disabled": True}, []),
        ({"unused": 181 * DAY}, ["dormant_account"]),
        ({"unused": 181 * DAY, "approved": False}, []),
        ({"links": []}, ["unverified_link"]),
        ({"links": ["https://www.world.test", "https://agency.test.world.test", "https://test"]}, ["unverified_link"]),
        ({"links": ["https://www.world.test", "https://AGENCY.test"]}, []),
        ({"links": ["https://[", "x", "https://council.test"]}, ["unverified_link"]),
        ({"cleanup": True}, ["cleanup_enabled"]),
        ({"cleanup": True, "disabled": True}, ["cleanup_enabled"]),
        ({"moved": True}, ["account_moved"]),
        ({"passwordless": True}, ["passwordless_account"]),
        ({"role": "Moderator"}, ["role_changed"]),
        ({"role": "Moderator", "invited_role": "Moderator"}, []),
        ({"role": "Owner", "invited_role": "Moderator"}, ["role_changed"]),
        ({"invited_role": "Moderator"}, []),
        ({"name": "owner", "role": "Owner"}, []),
        ({"name": "owner"}, ["role_changed"]),
    ],
)
def test_findings_of_an_account(config: dict[str, Any], change: dict[str, Any], finding: list[str]) -> None:
    """One fault, one finding."""
    assert found(config, GOOD | change) == finding


def test_the_file_and_the_server_both_ways(config: dict[str, Any]) -> None:
    """Listed and missing, living and unlisted; without any list there is nothing to compare."""
    assert found(config, GOOD) == []
    config["accounts"] = [{"handle": "Harbour", "organisation": "council", "tools": []}]
    assert sorted(found(config, GOOD)) == ["account_missing", "account_not_in_file"]
    assert found(config, GOOD | {"name": "harbour", "links": ["https://council.test"]}) == []


def test_a_role_may_stand_in_the_file(config: dict[str, Any]) -> None:
    """One that an owner gave in Mastodon; then nothing else is right, none included."""
    config["accounts"] = [{"handle": "Press", "organisation": "agency", "tools": [], "role": "Moderator"}]
    assert found(config, GOOD | {"role": "Moderator"}) == []
    assert found(config, GOOD) == found(config, GOOD | {"role": "Owner"}) == ["role_changed"]


def test_a_link_counts_for_the_body_of_the_file(config: dict[str, Any]) -> None:
    """Not for that of the address, where the file says otherwise; mail may lie under the site."""
    config["accounts"] = [{"handle": "press", "organisation": "council", "tools": [], "role": None}]
    assert found(config, GOOD) == ["unverified_link"]
    assert found(config, GOOD | {"links": ["https://council.test"]}) == []
    config["organisations"][1]["domains"] = ["mail.xn--bcher-kva.test"]
    assert found(config, GOOD | {"links": ["https://bücher.test/rat"]}) == []


def test_the_register_is_compared_whole(config: dict[str, Any]) -> None:
    """Domains that changed hands, states, settings of the lock; a domain that is told already is told once."""
    held = {name: dict(body) for name, body in config["register"].items()}
    first, second = (held[name]["domains"] for name in ("agency", "council"))
    held["agency"]["domains"], held["council"]["domains"] = second, first
    assert found(config, GOOD, register=held) == ["register_changed"] * 2
    held = config["register"] | {"council": config["register"]["council"] | {"state": "leaving"}}
    assert found(config, GOOD, register=held) == ["register_changed"]
    assert found(config, GOOD, register=config["register"] | {"x": {"state": "live", "domains": []}}) == [
        "register_changed"
    ]
    assert found(config, GOOD, settings={}) == ["register_changed"]
    assert found(config, GOOD, settings=config["settings"] | {"inviter": "x"}) == ["register_changed"]
    more = {"agency": {"state": "live", "domains": [*first, "evil.test"]}, "council": config["register"]["council"]}
    assert found(config, GOOD, register=more, domains=[*config["domains"], "evil.test"]) == ["register_changed"]


def test_tokens_are_known_by_instance_or_account(config: dict[str, Any]) -> None:
    """A tool of one account is not everybody's."""
    assert found(config, GOOD, tokens=[TOKEN]) == ["unknown_application"]
    config["accounts"] = [{"handle": "press", "organisation": "agency", "tools": ["Tool"]}]
    assert found(config, GOOD, tokens=[TOKEN]) == []
    config["accounts"][0]["tools"] = []
    config["applications"] = ["Tool"]
    assert found(config, GOOD, tokens=[TOKEN]) == []


@pytest.mark.parametrize(
    ("more", "finding"),
    [
        ({"invites": [{"id": 1, "by": "owner"}]}, "invite_outside_ledger"),
        ({"drifted": ["setting/site_title"]}, "setting_drifted"),
        ({"drifted": ["role/Admin"]}, "role_changed"),
        ({"roles_outside": ["Helper"]}, "role_changed"),
        ({"blocks_outside": ["x.test"]}, "block_outside_file"),
        ({"domains": ["agency.test"]}, "register_changed"),
        ({"domains": ["agency.test", "council.test", "evil.test"]}, "register_changed"),
        ({"lock": ["trigger:gov_users_check"]}, "guard_missing"),
    ],
)
def test_findings_of_the_server(config: dict[str, Any], more: dict[str, Any], finding: str) -> None:
    """One fault, one finding."""
    assert found(config, GOOD, **more) == [finding]


def test_a_review_whose_day_has_come(config: dict[str, Any]) -> None:
    """Not before."""
    config["reviews"]["spam.test"] = "2020-01-01"
    assert found(config, GOOD) == ["block_review_due"]


def test_it_does_what_the_instance_says_and_no_more(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Default: foreign addresses are disabled, never the owner's; links are revoked; tokens only reported."""
    ran: list[str] = []
    closed: list[str] = []
    monkeypatch.setattr(sweep, "query", ran.append)
    monkeypatch.setattr(sweep, "kill_streams", closed.extend)
    accounts = [
        GOOD | {"id": n, "account_id": n * 10, "name": name, "address": "a@b.test", "role": role}
        for n, name, role in ((1, "owner", "Owner"), (2, "x", None))
    ]
    state = seen(config, *accounts, invites=[{"id": 5, "by": "x"}], tokens=[TOKEN])
    every = list(findings(state, config))
    sweep.act(every, config, by="o'hara")
    assert [one["act"] for one in every] == ["report", "disable", "report", "revoke"]
    assert len(ran) == 1
    assert "users SET disabled = true" in ran[0]
    assert "'sweep', 'o''hara', 'foreign_address'" in ran[0]
    assert ["'{2}'" in ran[0], "'{5}'" in ran[0], "'{}'" in ran[0]] == [True, True, True]
    assert re.findall(r"DELETE FROM (\w+)", ran[0]) == ["web_push_subscriptions"]
    assert closed == ["timeline:system:20"]
    config["act"] |= {"foreign_address": "report", "invite_outside_ledger": "report"}
    sweep.act(list(findings(state, config)), config)
    assert len(ran) == 1


def test_a_revoked_application_gets_no_notifications(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tokens, its push subscriptions (Mastodon does not look at the token of one), its streams."""
    ran: list[str] = []
    closed: list[str] = []
    monkeypatch.setattr(sweep, "query", ran.append)
    monkeypatch.setattr(sweep, "kill_streams", closed.extend)
    config["act"]["unknown_application"] = "revoke"
    sweep.act(list(findings(seen(config, GOOD, tokens=[TOKEN]), config)), config)
    assert "oauth_access_tokens SET revoked_at = now() AT TIME ZONE 'UTC' WHERE id = ANY ('{3}'" in ran[0]
    assert "web_push_subscriptions WHERE access_token_id = ANY ('{3}'" in ran[0]
    assert closed == ["timeline:access_token:3"]


@pytest.mark.parametrize("version", ["4.5.15", "4.6.5"])
def test_what_acts_names_columns_that_are_there(version: str) -> None:
    """In both versions of Mastodon."""
    known = columns(version)
    acts = re.findall(r"^(?:UPDATE|DELETE FROM) (\w+) (?:SET (.*) )?WHERE (\w+) =", sweep.ACT, re.M)
    assert len(acts) == 4
    for table, assigned, key in acts:
        assert {key, *re.findall(r"(\w+) =", assigned)} <= known[table]


def test_a_file_that_went_wrong_locks_nobody_out(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a few accounts at once: all are reported, none is disabled."""
    monkeypatch.setattr(sweep, "query", lambda sql: pytest.fail("it acted"))
    accounts = [GOOD | {"id": n, "name": f"x{n}", "address": "a@b.test"} for n in range(sweep.MOST + 1)]
    every = list(findings(seen(config, *accounts), config))
    sweep.act(every, config)
    assert {one["act"] for one in every} == {"report"}
    assert every[-1]["finding"] == "too_many"


def test_pages_by_organisation(config: dict[str, Any], tmp_path: Path) -> None:
    """A finding stands on the page of its body alone, with what was found as text and not as mark-up."""
    evil = GOOD | {"address": "press@council.test", "name": "<b>x", "links": []}
    report = sweep.report(seen(config, evil), config, list(findings(seen(config, evil), config)), 0.1)
    write_pages(tmp_path / "pages", report, load(tmp_path / "instance"))
    pages = {page.stem: page.read_text() for page in (tmp_path / "pages").iterdir()}
    assert set(pages) == {"agency", "council", "server"}
    assert "@&lt;b&gt;x" in pages["council"]
    assert "@&lt;b&gt;x" not in pages["agency"] + pages["server"]
    assert "Nothing to report" in pages["agency"]
