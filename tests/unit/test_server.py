# ruff: noqa: E501  one case is one line, so that the table can be read
"""What the server shows: what may be written, what is made of it, and what a plan says of a difference."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mastodon_gov.errors import Refusal
from mastodon_gov.instance.load import load
from mastodon_gov.instance.server_document import items
from roles.mastodon.server import differing, sentence, tell_unknown
from tests.unit.instance_sample import good_directory

RULE = "    - text: Publish nothing private about anybody."
MODERATOR = "    - name: Moderator"
BLOCK = "    - domain: spam.test"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A good instance directory, free to be changed."""
    return good_directory(tmp_path / "instance")


def change(directory: Path, old: str, new: str) -> None:
    path = directory / "instance.yaml"
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


WRONG = [
    ("title: Demonstration Social", "title: 2026", "server.title", "quotes"),
    ("title: Demonstration Social", 'title: ""', "server.title", "1 to 200 characters"),
    ("title: Demonstration Social", 'title: "a\\nb"', "server.title", "on one line"),
    (RULE, f"    - text: {'x' * 301}", "server.rules[2].text", "300 characters"),
    (RULE, "    - text: Be civil, and attack arguments, not people.", "server.rules[2].text", "again"),
    ("        - language: de", "        - language: mi", "server.rules[1].translations[2].language", "again"),
    (MODERATOR, "    - name: Owner", "server.roles[1].name", "the owner may do everything"),
    (MODERATOR, "    - name: Admin", "server.roles[2].name", "again"),
    ("[view_dashboard, view_audit_log, manage_reports, manage_users, manage_f", "[administrator, manage_f", "server.roles[1].permissions[1]", "'view_devops'"),
    ("[view_dashboard, view_audit_log, manage_reports, manage_users, manage_f", "[invite_bypass_approval, manage_f", "server.roles[1].permissions[1]", "'invite_users'"),
    ("position: 10\n", "position: 1000\n", "server.roles[1].position", "from 0 to 999"),
    (BLOCK, "    - domain: agency.test", "server.domain_blocks[1].domain", "agency.test itself"),
    (BLOCK, "    - domain: test.", "server.domain_blocks[1].domain", "host name"),
    ("severity: suspend", "severity: block", "server.domain_blocks[1].severity", "'suspend'"),
    ("review: 2027-06-30", "review: soon", "server.domain_blocks[1].review", "a day such as"),
    ("landing_page: about", "landing_page: home", "server.landing_page", "'about'"),
    ("    remote: authenticated", "    remote: nobody", "server.feeds.remote", "'authenticated'"),
    ("remote_media_days: 14", "remote_media_days: 0", "server.retention.remote_media_days", "from 1 to 3650"),
    ("trends: false", "trends: no", "server.trends", "Write false."),
    ("about: server/about.md  ", "about: server/other.md  ", "server.about", "cannot be read"),
    ("  show_domain_blocks: all", "  images:\n    thumbnail: server/about.md", "server.images.thumbnail", "a PNG, JPEG, GIF or WebP file"),
    ("  show_domain_blocks: all", "  announcements:\n    - text: Closed\n      starts: 2027-01-01", "server.announcements[1]", "both or none"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "key", "says"), WRONG, ids=[f"{row[2]}: {row[1].strip()[:20]}" for row in WRONG]
)
def test_a_wrong_value_is_refused_with_its_place(directory: Path, old: str, new: str, key: str, says: str) -> None:
    """One fault, one sentence, at its key."""
    change(directory, old, new)
    with pytest.raises(Refusal) as refusal:
        load(directory)
    (line,) = str(refusal.value).splitlines()
    assert f", {key}: found " in line
    assert says in line


@pytest.mark.parametrize("text", ["{{ instance.nothing }}", "{% if %}", "{{ 1 / 0 }}", "  \n"])
def test_a_text_that_does_not_render_is_refused(directory: Path, text: str) -> None:
    """Before anything is deployed; the sentence names the file."""
    (directory / "server/terms.md").write_text(text)
    with pytest.raises(Refusal, match=r"server.terms.file: found .*server/terms.md"):
        load(directory)


def test_live_values_and_per_cent_signs(directory: Path) -> None:
    """A changed retention changes the page; Mastodon's `format` must not stumble."""
    change(directory, "server:\n", "mastodon:\n  ip_retention: 30\nserver:\n")
    text = items(load(directory))["setting/site_terms"]
    assert "sign-ins for 30 days" in text
    assert "100 %% of it" in text
    assert "%" not in items(load(directory))["setting/site_extended_description"]


def test_awkward_words_stay_what_they_are(directory: Path) -> None:
    """YAML's guesses do not reach the server."""
    for word in ("no", '"0123"', "a: b", "12:30", "<b>&amp;</b>", "Tēnā koutou – grüß", "x" * 200):
        wanted = word.strip('"')
        quoted = word if word.startswith('"') else f'"{word}"' if ":" in word else word
        change(directory, "title: Demonstration Social", f"title: {quoted}")
        assert items(load(directory))["setting/site_title"] == wanted
        change(directory, f"title: {quoted}", "title: Demonstration Social")


def test_without_server_nothing_is_managed(directory: Path) -> None:
    """An instance from before this section stays as it is."""
    path = directory / "instance.yaml"
    path.write_text(path.read_text().partition("server:\n")[0])
    assert items(load(directory)) == {}


SETTLED: dict[str, Any] = {"wanted": "A", "state": "--- A\n", "live": "--- A\n", "release": "r1"}


@pytest.mark.parametrize(
    ("seen", "wanted", "says"),
    [
        (SETTLED, {"setting/x": "A"}, None),
        ({}, {"setting/x": "A"}, 'as the release has it → "A"'),
        (SETTLED, {"setting/x": "B"}, '"A" → "B"'),
        (SETTLED | {"live": "--- C\n"}, {"setting/x": "A"}, '"C" (changed on the server) → "A"'),
        (SETTLED | {"live": None}, {"setting/x": "A"}, 'null (changed on the server) → "A"'),
        (SETTLED | {"release": "r0"}, {"setting/x": "A"}, "again for the new release"),
        (SETTLED | {"release": None}, {"setting/x": "A"}, "to be finished"),
        (SETTLED, {}, '"A" → taken away'),
    ],
)
def test_what_differs_and_how_a_plan_says_it(seen: dict[str, Any], wanted: dict[str, Any], says: str | None) -> None:
    """Old and new value; nothing when all is as it was made."""
    made = {"setting/x": seen} if seen else {}
    found = [sentence(item, wanted, made) for item in differing(wanted, made, "r1")]
    assert len(found) == (says is not None)
    assert says is None or says in found[0]


def test_what_the_release_does_not_know_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """A line that `deploy` passes on; no failure, because the next release may know it."""
    said = SimpleNamespace(stdout_lines=['["setting/wrapstodon", "role/Press: manage_email_subscriptions"]'])
    host: Any = SimpleNamespace(name="social", run_shell_command=lambda *_, **__: (True, said))
    state: Any = None
    with caplog.at_level("WARNING", logger="pyinfra"):
        assert tell_unknown(state, host, "4.5.15")
    notes = [record.getMessage() for record in caplog.records]
    assert ["setting/wrapstodon" in notes[0], "manage_email_subscriptions" in notes[1]] == [True, True]
    assert all(note.startswith("NOTE: social: Mastodon 4.5.15 does not know ") for note in notes)
