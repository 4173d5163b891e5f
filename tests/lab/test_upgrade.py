"""From one version to the next and back while people read and post: nobody notices, and nothing is lost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.conftest import MakeLab
from tests.lab.deployed import Deployed, files_of
from tests.lab.load import load, posting
from tests.lab.older import (
    NEW,
    OLD,
    back_to_older,
    deploy_older,
    journal,
    kill_group,
    serving,
    slots,
    start,
    wait_for_step,
)
from tests.lab.people import signed_in_owner

STEPS = (
    "install",
    "restore point before",
    "migrations before",
    "start",
    "web",
    "sidekiq",
    "streaming",
    "restore point after",
    "migrations after",
)


@pytest.fixture(scope="module")
def older(make_lab: MakeLab, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """An instance that was never upgraded, in a lab of its own."""
    return deploy_older(make_lab, tmp_path_factory.mktemp("older"))


@pytest.fixture(scope="module")
def token(older: Deployed) -> Iterator[str]:
    """An access token of the owner, as a program on a telephone has it."""
    with signed_in_owner(older) as person:
        yield person.token(person.application("read write"))


def test_upgrade_and_back_while_people_read_and_post(older: Deployed, token: str) -> None:
    """The plan says what then happens; held before the point of no return; back; and all the way."""
    files = files_of(older.machine())
    text = (older.directory / "instance.yaml").read_text()
    plan = json.loads(older.cli("upgrade", "--plan", "--json").stdout)
    assert files_of(older.machine()) == files
    assert (older.directory / "instance.yaml").read_text() == text
    assert plan["problems"] == []
    assert [len(plan["before"]), len(plan["after"])] == [4, 1]
    assert plan["before"][0]["tables"]["accounts"] == int(older.sql("SELECT count(*) FROM accounts"))
    assert plan["no_return"] == "20260520093012_drop_user_agent_index"
    with load(older) as quiet, posting(older, token):
        time.sleep(10)  # the measure itself
    with load(older) as seen, posting(older, token) as posts:
        print(older.cli("upgrade", "--hold").stdout)
        assert serving(older) == NEW
        assert older.deploy()["changes"] == []
        print(older.cli("rollback").stdout)
        assert serving(older) == OLD
        assert older.deploy()["changes"] == []
        print(older.cli("upgrade").stdout)
    slots(older, NEW)
    print(f"p99 {seen.percentile(0.99) / quiet.percentile(0.99):.1f} times that of before")
    assert seen.failed == []
    assert posts.failed == []
    assert posts.lost == []
    assert len(posts.acknowledged) > 50
    assert older.deploy()["changes"] == []
    assert older.sql("SELECT permissions, require_2fa FROM user_roles WHERE id = -99") == "0|t\n"
    assert (older.directory / "instance.yaml").read_text() == text.replace(f"release: {OLD}", f"release: {NEW}")
    assert older.sql("SELECT count(*) FROM schema_migrations WHERE version = '20260520093012'") == "1\n"
    assert [line["event"] for line in journal(older) if line["event"] not in ("start", "end")] == [
        "held",
        "closed",
        "closed",
    ]


def test_after_the_point_of_no_return_rollback_counts_what_a_restore_would_lose(older: Deployed, token: str) -> None:
    """It changes nothing, and names the mark before the last migrations."""
    with posting(older, token, rate=5) as posts:
        time.sleep(1)
    done = older.cli("rollback", check=False)
    told = json.loads(older.cli("rollback", "--plan", "--json").stdout)
    assert done.returncode == 1
    assert "20260520093012" in done.stderr
    assert "point of no return" in done.stderr
    assert told["point"]["name"] in done.stderr
    assert told["point"]["name"].startswith(f"before-post-{NEW}")
    made = older.sql("SELECT created_at FROM statuses").splitlines()
    since = told["point"]["time"].rstrip("Z").replace("T", " ")
    assert told["lost"]["posts"] == sum(when > since for when in made)
    assert told["lost"]["posts"] >= len(posts.acknowledged) > 0
    slots(older, NEW)


@pytest.mark.parametrize(
    ("step", "then"),
    [
        pytest.param(
            step, then, marks=[] if (step, then) in (("start", "upgrade"), ("web", "rollback")) else pytest.mark.long
        )
        for step in STEPS
        for then in ("upgrade", "rollback")
    ],
)
def test_an_upgrade_killed_in_each_step(older: Deployed, step: str, then: str, tmp_path: Path) -> None:
    """The control node loses power, what runs on the host is killed too. `upgrade` finishes, `rollback` goes back."""
    back_to_older(older)
    since = len(journal(older))
    with load(older) as seen:
        process = start(older, tmp_path / "log", "upgrade")
        wait_for_step(older, process, step, since)
        kill_group(process)
        older.root(
            "pkill -KILL -f 'journal.py step' ; pkill -KILL -f 'slots.py settle|migrate.py|release_install.py'; true"
        )
        done = older.cli(then, check=False)
    print(done.stdout, done.stderr)
    assert seen.failed == []
    if done.returncode:
        # It may have come through the point of no return before it died.
        assert (step, then) == ("migrations after", "rollback")
        assert "point of no return" in done.stderr
    expected = NEW if then == "upgrade" or done.returncode else OLD
    slots(older, expected)
    assert serving(older) == expected
    if not done.returncode:
        assert older.deploy()["changes"] == []
        assert journal(older)[-1]["event"] == "closed"
