"""Restore from the second repository: it is asked alone, and what only the first one has is a sentence."""

from __future__ import annotations

from subprocess import CompletedProcess

import pytest
from click.testing import CliRunner

from mastodon_gov.cli import main
from roles.restore.files import catalogue, verify
from roles.restore.files.catalogue import Refused, Target


def second(monkeypatch: pytest.MonkeyPatch, kind: str) -> list[tuple[str, ...]]:
    """A host with a second repository of this kind; returns the commands that are sent to pgBackRest."""
    asked: list[tuple[str, ...]] = []

    def answer(_: str, *words: str, **__: object) -> CompletedProcess[str]:
        asked.append(words)
        return CompletedProcess(words, 0, '[{"repo":[{"status":{"code":0}}],"status":{"code":4}}]', "")

    conf = {"repo1-s3-endpoint": "s3.example"} | ({"repo2-type": kind} if kind else {})
    monkeypatch.setattr(catalogue, "configured", lambda: ("gov", conf))
    monkeypatch.setattr(catalogue, "as_user", answer)
    return asked


def test_the_second_repository_is_asked_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Manifests and points lie in the first one, which may be away: they are not looked for."""
    asked = second(monkeypatch, "posix")
    target = Target("latest", repository=2)
    catalogue.repository(target)
    assert (catalogue.points(target, 0.0), verify.manifest_before(target, 0.0)) == ([], None)
    assert [("--repo=2" in words, "--repo=1" in words) for words in asked] == [(True, False)]


@pytest.mark.parametrize(
    ("kind", "target", "says"),
    [
        ("", Target("latest", repository=2), "knows no second repository"),
        ("posix", Target("latest", as_of="2026-11-20 22:00:00+00", repository=2), "keeps no earlier versions"),
        ("s3", Target("name", "risky", repository=2), "in the first repository only"),
    ],
)
def test_what_the_second_repository_cannot_do_is_a_sentence(
    kind: str, target: Target, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = second(monkeypatch, kind)
    with pytest.raises(Refused, match=says):
        catalogue.repository(target)
    assert asked == []


@pytest.mark.parametrize(
    "words",
    [["--switch"], ["--back"], ["--open"], ["--state"], ["--onto-empty", "--to", "latest"], ["--media-to", "x"]],
)
def test_a_repository_is_chosen_where_one_is_read(words: list[str]) -> None:
    done = CliRunner().invoke(main, ["restore", *words, "--repository", "2"])
    assert (done.exit_code, "--repository goes with --list and --to" in done.output) == (2, True)
