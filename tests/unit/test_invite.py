"""The verbs' statements and answers; what the database does with them is tested in tests/lab/lock."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from email import message_from_string
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mastodon_gov.errors import Refusal
from mastodon_gov.invitation_mail import SEND
from mastodon_gov.invite import PSQL, ask, invite, invite_sql, link
from mastodon_gov.journal import LOGGER
from roles.mastodon.lock import is_settled, lock_source, sync_sql
from tests.unit.instance_sample import good_directory

ANSWER = {
    "id": 7,
    "by": "ana",
    "mailed_at": None,
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
    assert [argv for argv, _ in calls] == [PSQL, LOGGER]
    assert "j@agency.test" in calls[0][1]


class Relay:
    """A host whose database keeps the note, and whose relay behaves as a test says."""

    def __init__(self, *answers: str | Refusal) -> None:
        self.answers, self.mails, self.mailed = list(answers), list[str](), False

    def __call__(self, argv: list[str], stdin: str) -> str:
        if argv == SEND:
            self.mails.append(stdin)
            answer = self.answers.pop(0)
            if isinstance(answer, Refusal):
                raise answer
            return answer
        if argv == LOGGER:
            return ""
        if "gov.mailed" in stdin:
            wanted = '"mailed": true' in stdin
            changed, self.mailed = self.mailed != wanted, wanted
            return json.dumps({"changed": changed})
        return json.dumps({**ANSWER, "mailed_at": "2026-11-21T10:00:00" if self.mailed else None})


@pytest.fixture
def mailed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Relay], Result]:
    """The verb with --mail against such a host."""
    place = good_directory(tmp_path / "instance")

    def run(relay: Relay) -> Result:
        monkeypatch.setattr("mastodon_gov.invite.on_host", lambda directory: relay)
        return CliRunner().invoke(invite, ["j@agency.test", "--organisation", "IT", "--by", "ana", "--mail"], obj=place)

    return run


def test_mail_goes_out_once(mailed: Callable[[Relay], Result]) -> None:
    relay = Relay("\nexit 0\n", "\nexit 0\n")
    assert "mailed" in mailed(relay).stderr
    assert "mailed already" in mailed(relay).stderr
    (text,) = relay.mails
    parsed = message_from_string(text)
    assert parsed["To"] == "j@agency.test"
    assert "https://s.test/invite/Ab2" in parsed.get_payload()


def test_relay_that_is_down_loses_no_invitation(mailed: Callable[[Relay], Result]) -> None:
    """The link is shown, the sentence says what to do, and the next run sends."""
    relay = Relay("msmtp: cannot connect to mail.world.test\n\nexit 75\n", "\nexit 0\n")
    down = mailed(relay)
    assert isinstance(down.exception, Refusal)
    assert "cannot connect" in str(down.exception)
    assert down.stdout == "https://s.test/invite/Ab2\n"
    assert mailed(relay).exit_code == 0
    assert len(relay.mails) == 2


def test_connection_that_breaks_in_the_middle_sends_nothing_twice(mailed: Callable[[Relay], Result]) -> None:
    """Nobody knows whether the relay has it: the person decides."""
    relay = Relay(Refusal("social: no SSH connection"))
    assert "may have gone out or not" in str(mailed(relay).exception)
    assert "mailed already" in mailed(relay).stderr
    assert len(relay.mails) == 1


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
