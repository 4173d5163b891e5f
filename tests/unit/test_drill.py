"""What a drill judges, and that who opens a secret of a copy reaches nothing else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from roles.restore.files import verify
from roles.restore.files.drill import Drill, loss_problems

RUN = Path(__file__).parents[2] / "roles/mastodon/files/mastodon-run"
CLOSED = {"PrivateNetwork=yes", "InaccessiblePaths=-/run/postgresql"}


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (None, "no heartbeat"),
        (241.0, "241 s old, allowed 240"),
        (-61.0, "61 s in the future"),
        (-59.0, ""),
        (240.0, ""),
    ],
)
def test_a_drill_judges_the_age_of_the_heartbeat(age: float | None, expected: str) -> None:
    found = loss_problems(age, 240)
    assert bool(found) is bool(expected)
    assert expected in "".join(found)


@pytest.mark.parametrize(
    ("told", "wrong"), [(("opened", []), []), (("failed", ["the keys do not fit"]), ["the keys do not fit"])]
)
def test_a_drill_opens_a_secret_also_where_the_fingerprints_are_equal(
    told: tuple[str, list[str]], wrong: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drill = object.__new__(Drill)
    drill.evidence, drill.manifest = {}, None
    monkeypatch.setattr(verify, "opened", lambda _: told)
    assert drill.secrets() == wrong
    assert drill.evidence == {"fingerprints": "not compared", "secret": told[0]}


@pytest.mark.parametrize("copy", [True, False])
def test_only_who_asks_a_copy_has_no_network(copy: bool, tmp_path: Path) -> None:
    """The program that opens a secret is the whole application: it could send mail, or write to the live database."""
    (tmp_path / "systemd-run").write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    (tmp_path / "systemd-run").chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"} | ({"MFG_ENVIRONMENT": "/run/x.env"} if copy else {})
    words = ["sh", str(RUN), "mastodon-owner", "/opt/release", "true"]
    given = subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout.splitlines()
    assert ("EnvironmentFile=/run/x.env" in given) is copy
    assert CLOSED & set(given) == (CLOSED if copy else set())
    assert given[-2:] == ["--", "true"]
