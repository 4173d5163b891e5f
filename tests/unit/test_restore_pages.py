"""Every command on the pages of restore and drill is one that the command line takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from mastodon_gov.cli import main

PAGES = Path(__file__).parents[2] / "docs" / "operator"


def commands() -> list[tuple[str, str]]:
    """Page and command, continued lines joined; pieces in running text too."""
    found = []
    for page in ("restore.md", "drill.md"):
        text = (PAGES / page).read_text().replace("\\\n", " ")
        found += [(page, each.strip()) for each in re.findall(r"^\s*(mastodon-gov .*)$", text, re.M)]
        found += [(page, each) for each in re.findall(r"`(mastodon-gov [^`…]*)`", text)]
        found += [(page, f"mastodon-gov {each}") for each in re.findall(r"`(restore --[^`…]*)`", text)]
    return found


def test_the_pages_have_commands() -> None:
    assert len(commands()) > 15


@pytest.mark.parametrize(("page", "command"), commands())
def test_a_command_of_a_page_is_known(page: str, command: str) -> None:
    """Its verb exists, and so does each of its options."""
    words = shlex.split(command)[1:]
    if words[0] == "--instance":
        words = words[2:]
    verb = main.get_command(click.Context(main), words[0])
    assert verb is not None, (page, command)
    if isinstance(verb, click.Group):
        return
    known = {option for parameter in verb.params for option in parameter.opts}
    assert {word for word in words[1:] if word.startswith("--")} <= known, (page, command)
