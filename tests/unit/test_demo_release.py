"""The demo says which release it runs, and never takes the stand-in where the real one was asked for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mastodon_gov.errors import Refusal
from mastodon_gov.lab.demo_release import ensure_bundle, wish
from mastodon_gov.release.select import candidates

DEMO = Path(__file__).parents[2] / "inventories/demo"


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words of the build that was started."""
    words: list[str] = []

    def run(argv: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        words.extend(argv)
        return subprocess.CompletedProcess(argv, 0, "", "")

    monkeypatch.setattr("mastodon_gov.lab.demo_release.lab_key", lambda directory: ("key", "signers"))
    monkeypatch.setattr("mastodon_gov.lab.demo_release.subprocess.run", run)
    return words


def test_without_a_bundle_it_is_the_standin_and_the_sentence_says_what_to_do(tmp_path: Path, built: list[str]) -> None:
    wanted = wish(DEMO, None, None, None, tmp_path)
    assert "STAND-IN of 4.6.5, which is not Mastodon" in wanted.sentence()
    assert "make demo RELEASE=4.6.5 RECIPE=DIR" in wanted.sentence()
    ensure_bundle(wanted, lambda _: None)
    assert built[built.index("build") :][:3] == ["build", "4.6.5", "--standin"]


def test_a_release_asked_for_needs_a_bundle_or_a_recipe(tmp_path: Path, built: list[str]) -> None:
    with pytest.raises(Refusal, match=r"to build one a recipe is needed.* make demo RELEASE=4\.6\.5 RECIPE=DIR"):
        wish(DEMO, "4.6.5", None, None, tmp_path)
    with_recipe = wish(DEMO, "4.6.5", tmp_path, None, tmp_path)
    assert with_recipe.sentence() == "This demo runs Mastodon 4.6.5."
    candidates("4.6.5", True, tmp_path)[1].touch()
    ensure_bundle(with_recipe, lambda _: None)
    assert built[built.index("build") :][:4] == ["build", "4.6.5", "--recipe", str(tmp_path)], "a stand-in is no excuse"


def test_a_real_bundle_goes_before_the_standin_and_nothing_is_built(tmp_path: Path, built: list[str]) -> None:
    candidates("4.6.5", False, tmp_path)[0].touch()
    wanted = wish(DEMO, None, None, None, tmp_path)
    assert wanted.real
    ensure_bundle(wanted, lambda _: None)
    assert built == []


@pytest.mark.parametrize(("version", "says"), [("4.5.15", "says `release: 4.6.5`"), ("4.6.4", "is not known")])
def test_another_version_than_the_instances_is_refused(tmp_path: Path, version: str, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        wish(DEMO, version, None, None, tmp_path)
