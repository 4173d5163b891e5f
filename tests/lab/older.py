"""An instance that runs the release before: what tests of upgrades start from, and how they get back to it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mastodon_gov.instance.release_line import write_release
from mastodon_gov.lab.demo import REPOSITORY, bring_up, machines
from mastodon_gov.lab.lab import Lab
from tests.lab.deployed import LIB, Deployed, copy_instance
from tests.lab.labs import MakeLab

OLD, NEW = "4.5.15", "4.6.5"
JOURNAL = "/var/lib/mastodon-gov/journal/upgrades.jsonl"
# What the newer stand-in's migrations did, all of them or some, undone; as postgres, whom the lock lets through.
UNDO = """
ALTER TABLE accounts DROP COLUMN IF EXISTS feature_approval_policy, DROP COLUMN IF EXISTS avatar_description,
  DROP COLUMN IF EXISTS header_description, DROP COLUMN IF EXISTS show_media,
  DROP COLUMN IF EXISTS show_media_replies, DROP COLUMN IF EXISTS show_featured, DROP COLUMN IF EXISTS collections_url;
ALTER TABLE user_roles DROP COLUMN IF EXISTS require_2fa, DROP COLUMN IF EXISTS collection_limit;
ALTER TABLE media_attachments DROP COLUMN IF EXISTS thumbnail_storage_schema_version;
CREATE INDEX IF NOT EXISTS index_session_activations_on_user_agent ON session_activations (user_agent);
ALTER INDEX index_session_activations_on_user_agent OWNER TO mastodon_owner;
DELETE FROM schema_migrations WHERE version > '20251023210145' AND version <> '20251002140103';
"""


def commands(page: str) -> list[list[str]]:
    """The commands that a page of docs/operator tells a person to type, in their order, without `mastodon-gov`."""
    text = (REPOSITORY / "docs/operator" / page).read_text()
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line for kind, block in blocks if not kind for line in block.splitlines()]
    assert all(line.startswith("mastodon-gov ") for line in lines), lines
    return [line.split()[1:] for line in lines]


def deploy_older(make_lab: MakeLab, directory: Path) -> Deployed:
    """A lab of its own with the older release."""
    return deploy_older_in(make_lab("upgrade", machines(("python3",))), directory)


def deploy_older_in(lab: Lab, directory: Path) -> Deployed:
    """The older release, in a lab that is there already."""
    copy_instance(directory)
    write_release(directory, OLD)
    deployed = Deployed(bring_up(lab, directory, print))
    deployed.deploy()
    return deployed


def start(instance: Deployed, log: Path, *words: str) -> subprocess.Popen[bytes]:
    """A verb in a process group of its own."""
    command = [sys.executable, "-m", "mastodon_gov.cli", "--instance", str(instance.directory), *words]
    with log.open("wb") as out:
        return subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """The command line and pyinfra, at once, as when the control node loses power."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def journal(instance: Deployed) -> list[dict[str, Any]]:
    """The host's journal."""
    return [json.loads(line) for line in instance.root(f"cat {JOURNAL} 2>/dev/null || true").splitlines()]


def wait_for_step(instance: Deployed, process: subprocess.Popen[bytes], step: str, since: int) -> None:
    """Until this step has begun, in lines of the journal after the first `since`."""
    until(lambda: any(line.get("step") == step for line in journal(instance)[since:]), process, step)


def until(condition: Callable[[], bool], process: subprocess.Popen[bytes], what: str, seconds: float = 400) -> None:
    """Until a condition holds, while a process works on it."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"it ended before {what}"
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.1)


def serving(instance: Deployed) -> str:
    """The version that pages come from, asked from outside."""
    body = instance.curl("https://social.agency.test/api/v2/instance").rpartition("\n")[0]
    return str(json.loads(body)["version"]).partition("+")[0]


def slots(instance: Deployed, version: str) -> None:
    """Exactly one slot of each kind runs this version, and nothing is older than what it reads."""
    told = json.loads(instance.root(f"{LIB}/slots.py status $(basename $(readlink /opt/mastodon/current))"))
    assert told["settled"], told
    assert told["current"].startswith(version), told


def at_rest(instance: Deployed) -> bool:
    """Whether the older release runs and its way there has come to its end: a deploy would do nothing."""
    told = json.loads(instance.root(f"{LIB}/slots.py status $(basename $(readlink /opt/mastodon/current))"))
    last = (journal(instance) or [{"event": "closed"}])[-1]["event"]
    return bool(told["settled"]) and told["current"].startswith(OLD) and last == "closed"


def back_to_older(instance: Deployed) -> None:
    """The older release serves, and the database is as if the newer one had never been there."""
    instance.root("rm -f /var/lib/mastodon-gov/upgrade-held")
    newer = instance.sql("SELECT count(*) FROM schema_migrations WHERE version > '20260101000000'").strip()
    if newer != "0":
        # Only additive ones are left then, or none: the older release may run meanwhile.
        instance.sql("DELETE FROM schema_migrations WHERE version = '20260520093012'")
    write_release(instance.directory, OLD)
    if not at_rest(instance):
        instance.deploy()
    if newer != "0":
        instance.sql(UNDO)
        instance.root(f"{LIB}/mastodon-run mastodon-owner /opt/mastodon/current bundle exec bin/tootctl cache clear")
