"""What instance.yaml says of the server is what a reader gets, and the next deploy finds nothing to do."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mastodon_gov.instance.load import load
from tests.lab.chromium import Chromium, chromium
from tests.lab.deployed import Deployed, wait_for
from tests.lab.edits import edited
from tests.lab.people import tootctl

STEP = "Mastodon | Make the server's settings"
TITLE = "title: Demonstration Social"
SETTINGS = "SELECT var, value FROM settings ORDER BY var"
LONG_TEXT = "Māori, grüße, ſ and 漢字: <b>bold</b> & 100 % of *it*.\n" + "x" * 10_000
# All that `server:` decides, in one value.
SERVER = """SELECT md5(string_agg(line, E'\n' ORDER BY line)) FROM (
SELECT var || value FROM settings UNION ALL SELECT text FROM rules WHERE deleted_at IS NULL
UNION ALL SELECT name || permissions FROM user_roles UNION ALL SELECT domain FROM domain_blocks
UNION ALL SELECT text FROM terms_of_services WHERE published_at IS NOT NULL) found(line)"""
# YAML's traps and mark-up; none may arrive as something else.
TRAPS = ("no", "0123", "a: b - c # d", "12:30", "~", "'\"\\", "<script>alert(1)</script> &amp; {{ 1 }} %{x} 100 %", "=")


def api(instance: Deployed, path: str) -> Any:
    """Answer of the API to anybody; nginx and Mastodon keep it for minutes, so each question is a new one."""
    number = instance.sql("SELECT count(*) || '.' || extract(epoch FROM clock_timestamp()) FROM settings").strip()
    return json.loads(instance.curl(f"https://social.agency.test/api/{path}?{number}").rpartition("\n")[0])


def deployed(instance: Deployed) -> list[str]:
    """Deploy; returns what changed."""
    changes: list[str] = instance.deploy()["changes"]
    return changes


def test_a_reader_gets_what_the_file_says(instance: Deployed) -> None:
    """Title, texts with live values, contact, rules in three languages, blocks with their public comment."""
    told = api(instance, "v2/instance")
    assert told["title"] == "Demonstration Social"
    assert "Tēnā koutou, grüß Gott!" in told["description"]
    assert told["contact"]["email"] == "owner@agency.test"
    assert told["contact"]["account"]["username"] == "owner"
    assert told["configuration"]["timelines_access"]["live_feeds"] == {"local": "public", "remote": "authenticated"}
    assert told["registrations"]["enabled"] is False
    rules = api(instance, "v1/instance/rules")
    assert [rule["text"][:8] for rule in rules] == ["Be civil", "Publish "]
    assert rules[0]["translations"]["mi"]["text"] == "Kia manaaki tētahi i tētahi."
    assert rules[0]["translations"]["de"]["text"].startswith("Höflich bleiben: ")
    days = load(instance.directory).mastodon.ip_retention
    privacy = api(instance, "v1/instance/privacy_policy")["content"]
    assert f"sign-ins for {days} days" in privacy
    assert "100 % of it" in privacy
    assert "Council of Demonstrations" in api(instance, "v1/instance/terms_of_service")["content"]
    (block,) = api(instance, "v1/instance/domain_blocks")
    assert (block["domain"], block["severity"], block["comment"]) == ("spam.test", "suspend", "Spam")
    assert instance.status_of("https://social.agency.test/api/v1/timelines/public") == 422
    assert instance.status_of("https://social.agency.test/api/v1/timelines/public?local=true") == 200


def test_roles_have_the_named_permissions_and_a_second_factor(instance: Deployed) -> None:
    """Names became upstream's bits; Owner keeps everything, everyone nothing; no role does without a second factor."""
    rows = instance.sql("SELECT id, name, permissions, require_2fa FROM user_roles ORDER BY id").splitlines()
    found = {row.split("|")[1]: row.split("|")[2:] for row in rows}
    assert found["Moderator"] == [str(8 | 4 | 16 | 1024 | 32 | 128 | 1048576), "t"]
    assert found["Owner"] == ["1", "t"]
    assert found[""] == ["0", "t"]
    assert int(found["Admin"][0]) & (64 | 131072 | 2048) == 0


def test_text_of_every_kind_survives_and_leaves_again(instance: Deployed) -> None:
    """Ten thousand characters, mark-up, umlauts, macrons and words YAML would read as something else, in one deploy;
    the next one finds nothing. Then all goes back, with a rule, a block and a role that were there for a while."""
    text = "\n\n".join([*TRAPS[:-2], LONG_TEXT])
    (instance.directory / "server/long.md").write_text("{% raw %}" + text + "{% endraw %}")
    rules = "".join(f"    - text: {json.dumps(trap)}\n" for trap in TRAPS)
    role = "    - name: Records\n      permissions: [view_audit_log]\n      position: 5\n"
    block = "    - domain: more.test\n      severity: silence\n      reason: r\n      public_comment: 'no'\n"
    block += "      reviewer: x\n      review: 2027-01-01\n"
    try:
        with (
            edited(instance, TITLE, f"title: {TRAPS[0]}"),
            edited(instance, "about: server/about.md", "about: server/long.md"),
            edited(instance, "privacy_policy: server/privacy-policy.md", "privacy_policy: server/long.md"),
            edited(instance, "  rules:\n", f"  rules:\n{rules}"),
            edited(instance, "  roles:\n", f"  roles:\n{role}"),
            edited(instance, "  domain_blocks:\n", f"  domain_blocks:\n{block}"),
        ):
            planned = instance.cli("plan", check=False)
            assert planned.returncode == 3
            assert 'setting/site_title: "Demonstration Social" → "no"' in planned.stdout
            assert STEP in deployed(instance)
            assert api(instance, "v2/instance")["title"] == "no"
            about = api(instance, "v1/instance/extended_description")["content"]
            assert "Māori, grüße, ſ and 漢字" in about
            assert "x" * 10_000 in about
            content = api(instance, "v1/instance/privacy_policy")["content"]
            assert "100 % of" in content
            assert "x" * 10_000 in content
            assert [rule["text"] for rule in api(instance, "v1/instance/rules")][: len(TRAPS)] == list(TRAPS)
            assert [row["comment"] for row in api(instance, "v1/instance/domain_blocks")] == ["no", "Spam"]
            assert deployed(instance) == []
    finally:
        assert STEP in deployed(instance)
    assert api(instance, "v2/instance")["title"] == "Demonstration Social"
    assert len(api(instance, "v1/instance/rules")) == 2
    assert len(api(instance, "v1/instance/domain_blocks")) == 1
    assert instance.sql("SELECT count(*) FROM user_roles WHERE name = 'Records'").strip() == "0"


def test_what_is_changed_on_the_server_goes_back(instance: Deployed) -> None:
    """A plan names it with both values, a deploy puts it back in one step."""
    done, said = tootctl(instance, "cache", "clear")
    assert done == 0, said
    instance.sql("UPDATE settings SET value = E'--- Taken over\\n' WHERE var = 'site_title'")
    instance.sql("UPDATE user_roles SET permissions = permissions | 64 WHERE name = 'Moderator'")
    planned = instance.cli("plan", check=False)
    assert 'setting/site_title: "Taken over" (changed on the server) → "Demonstration Social"' in planned.stdout
    assert "role/Moderator: " in planned.stdout
    assert STEP in deployed(instance)
    assert instance.sql("SELECT permissions & 64 FROM user_roles WHERE name = 'Moderator'").strip() == "0"
    assert api(instance, "v2/instance")["title"] == "Demonstration Social"


def test_what_mastodon_refuses_changes_nothing(instance: Deployed) -> None:
    """A contact that does not exist: a sentence, the new title is not there either, and the next deploy converges."""
    before = instance.sql(SETTINGS)
    with edited(instance, TITLE, "title: Half"), edited(instance, "contact: {}", "contact: {account: nobody_here}"):
        done = instance.cli("deploy", check=False)
        assert done.returncode == 1
        assert "nothing of them was changed" in done.stderr
        assert instance.sql(SETTINGS) == before
    assert STEP in deployed(instance)
    assert deployed(instance) == []


def draws(reader: Chromium, words: tuple[str, ...]) -> None:
    """The open page shows all of this."""
    wait_for(lambda: all(each in reader.text for each in words), 30, f"{reader.path} shows {words}")


@pytest.mark.long
def test_a_reader_sees_it_in_a_browser(instance: Deployed) -> None:
    """On the pages themselves, which real Mastodon draws in the browser."""
    days = load(instance.directory).mastodon.ip_retention
    shown = {"/about": ("Who speaks here", "Be civil"), "/privacy-policy": (f"sign-ins for {days} days",)}
    with chromium(instance.machine("outside")) as reader:
        for path, words in shown.items():
            reader.open(path)
            draws(reader, words)


@pytest.mark.long
def test_what_is_taken_out_of_the_file_leaves_the_server(instance: Deployed) -> None:
    """Each key alone, then the whole section: Mastodon's own comes back, the next deploy finds nothing to do; and once
    they are in the file again, all is as it was."""
    _, head, section = (instance.directory / "instance.yaml").read_text().partition("server:\n")
    keys = re.findall(r"^  \w+:.*\n(?:   .*\n)*", section, re.MULTILINE)
    assert "".join(keys) == section
    whole, seen = instance.sql(SERVER), set()
    try:
        for piece in [*keys, head + section]:
            with edited(instance, piece, ""):
                assert STEP in deployed(instance), piece
                seen.add(instance.sql(SERVER))
                assert deployed(instance) == [], piece
    finally:
        instance.deploy()
    assert len(seen - {whole}) == len(keys) + 1
    assert instance.sql(SERVER) == whole


@pytest.mark.long
def test_rails_killed_in_the_middle(instance: Deployed) -> None:
    """The deploy fails, and the next one does the work."""
    running = "pgrep -f '[r]ails runner .*server_settings.rb'"
    with edited(instance, TITLE, "title: Survivor"):
        with ThreadPoolExecutor(1) as pool:
            deploying = pool.submit(instance.cli, "deploy", check=False)
            wait_for(lambda: instance.root(running, check=False).strip(), 300, "Rails")
            instance.root(f"kill -9 $({running})")
            assert deploying.result().returncode == 1
        assert "to be finished" in instance.cli("plan", check=False).stdout
        assert STEP in deployed(instance)
        assert api(instance, "v2/instance")["title"] == "Survivor"
    assert STEP in deployed(instance)


@pytest.mark.long
def test_a_role_that_people_have_is_not_taken_from_them(instance: Deployed) -> None:
    """Mastodon would do it without a word."""
    code, said = tootctl(instance, "accounts", "modify", "owner", "--role", "Moderator")
    assert code == 0, said
    try:
        with edited(instance, "    - name: Moderator", "    - name: Reviewer"):
            done = instance.cli("deploy", check=False)
        assert done.returncode == 1
        assert "@owner still have it" in done.stderr
    finally:
        tootctl(instance, "accounts", "modify", "owner", "--role", "Owner")
        instance.deploy()


@pytest.mark.long
def test_pictures_emoji_and_announcements_come_and_go(instance: Deployed) -> None:
    """Through the bucket to a reader, and away again."""
    picture = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763")
    picture += bytes.fromhex("f8cfc0000003010100c9fe92ef0000000049454e44ae426082")
    (instance.directory / "server/koru.png").write_bytes(picture)
    more = "  images:\n    thumbnail: server/koru.png\n    thumbnail_description: A koru\n"
    more += "  emoji:\n    - shortcode: koru\n      file: server/koru.png\n"
    more += "  announcements:\n    - text: Closed for a day.\n      starts: 2027-01-01\n      ends: 2027-01-02\n"
    shown = "SELECT count(*) FROM announcements WHERE published"
    try:
        with edited(instance, "  trends: false\n", f"{more}  trends: false\n"):
            assert STEP in deployed(instance)
            (emoji,) = api(instance, "v1/custom_emojis")
            assert emoji["shortcode"] == "koru"
            assert instance.status_of(emoji["url"]) == 200
            assert instance.status_of(api(instance, "v2/instance")["thumbnail"]["url"]) == 200
            assert instance.sql(shown).strip() == "1"
            assert deployed(instance) == []
            taken_away = "UPDATE announcements SET published = false RETURNING id"
            # Mastodon's own job publishes half a minute after the deploy that made it, and may come in between once.
            wait_for(lambda: instance.sql(taken_away) and STEP in deployed(instance), 300, "a deploy that sees it")
            assert instance.sql(shown).strip() == "1"
    finally:
        instance.deploy()
    assert api(instance, "v1/custom_emojis") == []
    assert instance.sql(shown).strip() == "0"
