"""`offboard`, `lockdown`, `handback` and `handover` against a real database with Mastodon's columns, without Mastodon:
who is found, what ends, what stays, what is refused. Pages, streams and mail: tests/lab/test_leaving.py."""

# ruff: noqa: S608 - the SQL is made of constants of these tests
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from roles.mastodon.files import leaving, leaving_database
from roles.mastodon.files.leaving_database import Refused, Session
from tests.lab.lock.database import Database, Server, invited, sign_up

NOW = "now(), now()"
LINK = "(SELECT max(id) FROM invites)"
REQUEST = {"verb": "offboard", "by": "ana", "why": "it's a test"}
JANE, BOB = "jane@agency.test", "bob@agency.test"
# A remote follower, and everything by which @new gets in or acts later. Bob's invitation is in that name.
FURNISH = f"""
UPDATE users SET approved = true, confirmed_at = now(), unconfirmed_email = 'jane.new@agency.test',
  role_id = (SELECT id FROM user_roles WHERE name = 'Moderator'), reset_password_token = 'r', confirmation_token = 'c',
  sign_in_token = 's', otp_required_for_login = true, otp_secret = 'o', otp_backup_codes = '{{b}}', webauthn_id = 'w'
 WHERE id = 77;
INSERT INTO accounts (id, username, domain, created_at, updated_at) VALUES (90, 'fan', 'world.test', {NOW});
INSERT INTO follows (account_id, target_account_id, created_at, updated_at) VALUES (90, 77, {NOW});
INSERT INTO statuses (account_id, text, visibility, created_at, updated_at) VALUES (77, 'hello', 0, {NOW});
INSERT INTO oauth_applications (id, name, uid, secret, redirect_uri) VALUES (1, 'tool', 'u', 's', '');
INSERT INTO oauth_access_tokens (id, token, resource_owner_id, application_id, created_at)
VALUES (1, 't', 77, 1, now());
INSERT INTO oauth_access_grants (token, resource_owner_id, application_id, redirect_uri, expires_in, created_at)
VALUES ('g', 77, 1, '', 600, now());
INSERT INTO web_push_subscriptions (access_token_id, user_id, endpoint, key_auth, key_p256dh, created_at, updated_at)
VALUES (1, 77, 'https://push.test', 'a', 'p', {NOW});
INSERT INTO session_activations (session_id, user_id, created_at, updated_at) VALUES ('s', 77, {NOW});
INSERT INTO webauthn_credentials (external_id, public_key, nickname, user_id, created_at, updated_at)
VALUES ('e', 'p', 'key', 77, {NOW});
INSERT INTO scheduled_statuses (account_id, scheduled_at) VALUES (77, now() + interval '1 day');
INSERT INTO backups (user_id, dump_file_name, processed, created_at, updated_at)
VALUES (77, 'archive.zip', true, {NOW});
INSERT INTO gov.setting VALUES ('inviter', 'new');
{invited(BOB)}; DELETE FROM gov.setting;
"""
# What opens a door, by the part of leaving_cut.sql that closes it; one row each before, none after.
DOORS = {
    "cut_user": "users WHERE id = 77 AND (NOT disabled OR role_id IS NOT NULL OR encrypted_password = 'x' OR "
    "num_nonnulls(unconfirmed_email, reset_password_token, confirmation_token, sign_in_token, otp_secret, "
    "otp_backup_codes, webauthn_id) > 0 OR otp_required_for_login)",
    "cut_keys": "webauthn_credentials WHERE user_id = 77",
    "cut_push": "web_push_subscriptions WHERE user_id = 77",
    "cut_grants": "oauth_access_grants WHERE resource_owner_id = 77 AND revoked_at IS NULL",
    "cut_tokens": "oauth_access_tokens WHERE resource_owner_id = 77 AND revoked_at IS NULL",
    "cut_sessions": "session_activations WHERE user_id = 77",
    "cut_invites": "invites WHERE user_id = 77 AND expires_at > now() AT TIME ZONE 'UTC'",
    "cut_posts": "scheduled_statuses WHERE account_id = 77",
}
LEDGER = "gov.invitation WHERE address = 'bob@agency.test' AND revoked_at IS NULL"
STAYS = ("accounts WHERE id = 77 AND suspended_at IS NULL", "statuses WHERE account_id = 77 AND deleted_at IS NULL",
         "follows WHERE target_account_id = 77", "backups WHERE user_id = 77")  # fmt: skip
EVERYTHING = "SELECT md5(string_agg(v::text, '' ORDER BY v::text)) FROM ({}) x(v)".format(
    " UNION ALL ".join(
        f"SELECT to_jsonb(t) FROM {table} t"
        for table in (
            "users",
            "invites",
            "gov.invitation",
            "gov.lockdown",
            "oauth_access_tokens",
            "webauthn_credentials",
        )
    )
)


@pytest.fixture(scope="module", params=["4.5.15", "4.6.5"])
def pattern(server: Server, request: pytest.FixtureRequest) -> Database:
    """Jane has come with her invitation and holds everything."""
    made = server.locked("leaving_" + request.param.replace(".", "_"), request.param)
    made.must(invited(JANE), "mastodon_owner")
    made.must(f"BEGIN; {sign_up(JANE, LINK)} COMMIT;", "mastodon")
    made.must(FURNISH)
    return made


@pytest.fixture
def database(server: Server, pattern: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A copy, and the host's program that talks to it; streams and journal are not here."""
    copy = server.copy(pattern)
    words = [copy.name if word == "mastodon_production" else word for word in leaving_database.PSQL]
    monkeypatch.setattr(leaving_database, "PSQL", [*copy.machine.enter(), *words])
    monkeypatch.setattr(leaving, "PLACE", tmp_path)
    for silent in ("kill_streams", "journal"):
        monkeypatch.setattr(leaving, silent, lambda *_: None)
    return copy


def count(database: Database, rows: str) -> int:
    return int(database.must(f"SELECT count(*) FROM {rows}"))


def run(act: str, /, **request: Any) -> dict[str, Any]:
    """What the host's program does for a verb of the command line."""
    session = Session()
    try:
        answer: dict[str, Any] = getattr(leaving, act)(session, REQUEST | request)
    finally:
        session.psql.communicate()
    return answer


def offboard(address: str) -> dict[str, Any]:
    return run("shut", addresses=[address])


def refusal(act: str, /, **request: Any) -> str:
    with pytest.raises(Refused) as refused:
        run(act, **request)
    return str(refused.value)


def test_every_door_is_shut_and_what_readers_see_stays(database: Database, tmp_path: Path) -> None:
    """Account, posts and followers; what ended is in the evidence, archives that can still be fetched included."""
    assert {part: count(database, rows) for part, rows in DOORS.items()} == dict.fromkeys(DOORS, 1)
    assert count(database, LEDGER) == 1
    before = [count(database, rows) for rows in STAYS]
    told = offboard(JANE)
    assert told["accounts"] == ["new"]
    assert {part: count(database, rows) for part, rows in DOORS.items()} == dict.fromkeys(DOORS, 0)
    assert count(database, LEDGER) == 0
    assert set(told["cut"].values()) == {1}
    assert [count(database, rows) for rows in STAYS] == before == [1] * len(STAYS)
    (held,) = json.loads(Path(told["evidence"]).read_text())["accounts"]
    assert [each["dump_file_name"] for each in held["archives"]] == ["archive.zip"]
    assert held["user"]["unconfirmed_email"] == "jane.new@agency.test"
    bob = database.psql(f"BEGIN; {sign_up(BOB, LINK).replace('77', '78')} COMMIT;", "mastodon")
    assert "no open invitation" in bob.error


@pytest.mark.parametrize("part", DOORS)
def test_each_part_of_the_cut_carries_its_weight(
    database: Database, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it, its door is open afterwards, and no other."""
    for file in leaving.HERE.glob("leaving_*.sql"):
        (tmp_path / file.name).write_text(file.read_text())
    whole = (tmp_path / "leaving_cut.sql").read_text()
    start = whole.index(f"{part} AS (")
    end = whole.index("\n)", start)
    idle = f"{part} AS (SELECT id FROM public.users WHERE false"
    (tmp_path / "leaving_cut.sql").write_text(whole[:start] + idle + whole[end:])
    monkeypatch.setattr(leaving, "HERE", tmp_path)
    offboard(JANE)
    assert {name for name, rows in DOORS.items() if count(database, rows)} == {part}


def test_somebody_who_has_changed_the_address_is_found(database: Database) -> None:
    """By the address of the invitation, by the one that waits for its confirmation, by the one of today."""
    database.must("UPDATE users SET email = 'j.doe@agency.test', unconfirmed_email = NULL WHERE id = 77", "mastodon")
    assert offboard("JANE@agency.test")["accounts"] == ["new"]
    assert database.must("SELECT disabled FROM users WHERE id = 77") == "t"


@pytest.mark.parametrize("address", [JANE, "Jane.New@agency.test"])
def test_the_address_of_today_and_of_tomorrow(database: Database, address: str) -> None:
    """`unconfirmed_email` is where the next mail goes."""
    database.must("DELETE FROM gov.invitation WHERE user_id = 77")
    assert offboard(address)["accounts"] == ["new"]


def test_an_account_that_was_handed_over_is_not_the_first_person_s(database: Database) -> None:
    """Then it is found under the address it was handed to, also when that has changed again."""
    run("shut", handles=["new"], verb="handover", again=True, to="Next@agency.test")
    assert "Nobody with the address jane@agency.test" in refusal("shut", addresses=[JANE])
    database.must("UPDATE users SET email = 'n.ext@agency.test' WHERE id = 77", "mastodon")
    assert offboard("next@agency.test")["accounts"] == ["new"]


def test_who_was_only_invited(database: Database, tmp_path: Path) -> None:
    """Success: the ledger's row is revoked and the link is dead. Once more, there is nobody left to shut."""
    database.must(invited("kim@agency.test"), "mastodon_owner")
    told = offboard("Kim@Agency.test")
    assert (told["accounts"], told["cut"]["invites"], "evidence" in told) == ([], 1, False)
    assert count(database, f"invites WHERE id = {LINK} AND expires_at > now() AT TIME ZONE 'UTC'") == 0
    kim = database.psql(f"BEGIN; {sign_up('kim@agency.test', LINK).replace('77', '78')} COMMIT;", "mastodon")
    assert "no open invitation" in kim.error
    assert "kim@agency.test" in refusal("shut", addresses=["kim@agency.test"])
    assert count(database, "users WHERE disabled") == 0
    assert list(tmp_path.glob("*.json")) == []


def test_a_dry_run_says_what_the_verb_would_do_and_changes_nothing(database: Database, tmp_path: Path) -> None:
    """The same numbers as the verb, and its refusals: the last owner, and an account that nobody has shut."""
    before = database.must(EVERYTHING)
    seen = run("look", addresses=[JANE])
    assert "without an owner" in refusal("look", handles=["owner"], must=["owner"])
    assert "nothing to hand back" in refusal("look", handles=["new"], must=["new"], verb="handback")
    assert database.must(EVERYTHING) == before
    assert list(tmp_path.glob("*")) == []
    done = offboard(JANE)
    assert {key: done[key] for key in seen} == seen
    would = run("look", handles=["new"], must=["new"], verb="handback")
    assert would == {"accounts": ["new"], "address": JANE}
    assert database.must("SELECT disabled FROM users WHERE id = 77") == "t"


@pytest.mark.parametrize("act", ["handback", "handover"])
def test_the_address_of_another_account_is_refused_with_a_sentence(
    database: Database, act: str, tmp_path: Path
) -> None:
    """Nothing is changed, and no evidence of nothing stays."""
    request = {"handles": ["new"], "must": ["new"], "verb": act, "to": "Owner@agency.test", "again": True}
    if act == "handback":
        offboard(JANE)
    before, files = database.must(EVERYTHING), len(list(tmp_path.iterdir()))
    verb = "handback" if act == "handback" else "shut"
    assert "belongs to @owner already" in refusal(verb, **request)
    assert database.must(EVERYTHING) == before
    assert len(list(tmp_path.iterdir())) == files
