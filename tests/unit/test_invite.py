"""The verbs' statements and answers; what the database does with them is tested in tests/lab/lock."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner

from mastodon_gov.errors import Refusal
from mastodon_gov.invite import PSQL, ask, invite, invite_sql, link
from roles.mastodon.lock import is_settled, lock_source, sync_sql

ANSWER = {
    "created": True,
    "address": "j@agency.test",
    "code": "Ab2",
    "expires_at": "2026-11-24T10:00:00",
    "web_domain": "s.test",
}


@pytest.mark.parametrize(
    "nasty", ["o'brien@agency.test", "'); DROP TABLE users; --", "\\'", "é\n\x00", ":source", "$$"]
)
def test_request_is_one_literal_and_arrives_unchanged(nasty: str) -> None:
    sql = invite_sql("a@agency.test", nasty, None, "ana", nasty)
    found = re.fullmatch(r"SELECT gov\.invite\('([^']*)'::jsonb\);\n", sql)
    assert found, "a quote inside would end the literal"
    assert found[1].isascii()
    request = json.loads(found[1])
    assert (request["organisation"], request["why"], request["role"]) == (nasty, nasty, "")


def test_refusal_of_the_database_is_the_verbs_refusal() -> None:
    with pytest.raises(Refusal, match="not a staff address"):
        ask(lambda argv, stdin: '{"refusal": "x is not a staff address."}\n', "SELECT 1")


def test_answer_that_is_not_json_is_refused_without_repeating_it() -> None:
    with pytest.raises(Refusal, match="not JSON") as caught:
        ask(lambda argv, stdin: "private words", "SELECT 1")
    assert "private" not in str(caught.value)


def test_link_needs_a_deployed_web_domain() -> None:
    assert link(ANSWER) == "https://s.test/invite/Ab2"
    with pytest.raises(Refusal, match="deploy first"):
        link({**ANSWER, "web_domain": None})


def test_verb_sends_the_address_on_standard_input_only(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[list[str], str]] = []

    def run_on_host(argv: list[str], stdin: str) -> str:
        calls.append((argv, stdin))
        return json.dumps(ANSWER)

    monkeypatch.setattr("mastodon_gov.invite.on_host", lambda directory: run_on_host)
    result = CliRunner().invoke(invite, ["j@agency.test", "--organisation", "IT", "--by", "ana"])
    assert result.stdout == "https://s.test/invite/Ab2\n"
    assert [argv for argv, _ in calls] == [PSQL]
    assert "j@agency.test" in calls[0][1]


def test_register_statements_quote_what_they_are_given() -> None:
    register = {"b": {"state": "live", "domains": ["a'.test", "b.test"]}}
    sql = sync_sql(register, {"inviter": "o'desk"}, ("a.test", "s.a.test"))
    assert """["a''.test", "b.test"]""" in sql
    assert "o''desk" in sql


def test_settled_needs_every_part() -> None:
    register = {"b": {"state": "live", "domains": ["a.test", "b.test"]}}
    status = {
        "installed": True, "failed": ["addresses"], "source": lock_source(), "organisations": register,
        "settings": {}, "deployment": {"local_domain": "a.test", "web_domain": "s.a.test"},
    }  # fmt: skip
    wanted = (register, dict[str, str](), ("a.test", "s.a.test"))
    assert is_settled(status, *wanted)
    for key, other in {
        "failed": ["mode"],
        "installed": False,
        "source": "x",
        "organisations": {},
        "deployment": None,
    }.items():
        assert not is_settled({**status, key: other}, *wanted), key
    assert not is_settled(status, wanted[0], {"require_2fa": "true"}, wanted[2])
