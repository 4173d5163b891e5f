"""What is taken out of the instance's files is gone from the host; what can never change is refused untouched."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mastodon_gov.lab.demo import REPOSITORY
from tests.lab.deployed import Deployed, files_of, written
from tests.lab.edits import edited, keypair, may_sign_in, sign_in

ANSWERS = "answers@agency.test"


@pytest.fixture(autouse=True)
def put_back(instance: Deployed) -> Iterator[None]:
    """Every test here leaves an instance with nothing to do."""
    yield
    instance.deploy()
    assert instance.deploy()["changes"] == []


def test_administrator_removed(instance: Deployed, tmp_path: Path) -> None:
    """Account, key, group and running sessions go; the home directory stays, as it may be evidence."""
    key, public = keypair(tmp_path, "alice")
    person = f'administrators:\n    - name: alice\n      keys: ["{public}"]'
    with edited(instance, "administrators: []", person):
        instance.deploy()
        assert may_sign_in(instance, key, "alice")
        assert "alice" in instance.root("getent group mfg-admin")
        session = subprocess.Popen(sign_in(instance, key, "alice", "sudo sleep 900 & echo in; sleep 900"))
    try:
        instance.root("until pgrep -u alice sleep; do sleep 0.1; done")
        instance.deploy()
        assert session.wait(30) != 0
    finally:
        session.kill()
    assert not may_sign_in(instance, key, "alice")
    assert instance.root("getent passwd alice; getent group alice; true") == ""
    assert "alice" not in instance.root("getent group mfg-admin")
    assert instance.root("ls /etc/ssh/keys").split() == ["auditor", "deploy"]
    assert instance.root("pgrep -f '[s]leep 900'; true") == ""
    assert instance.root("ls -d /home/alice").strip() == "/home/alice"


def test_staff_domain_removed(instance: Deployed) -> None:
    """From the register in the database, and from what the running application reads."""
    register = "SELECT domain FROM gov.staff_domain ORDER BY domain"
    assert instance.sql(register).split() == ["agency.test", "council.test"]
    council = "  - id: council\n    name: Council of Demonstrations\n    domains: [council.test]\n"
    with edited(instance, council, "", file="organisations.yaml"):
        instance.deploy()
        assert instance.sql(register).split() == ["agency.test"]
        assert "EMAIL_DOMAIN_ALLOWLIST=agency.test\n" in instance.root("cat /etc/mastodon/mastodon.env")
        running = instance.root("for p in $(pgrep -u mastodon); do tr '\\0' '\\n' < /proc/$p/environ; done")
        assert "EMAIL_DOMAIN_ALLOWLIST=agency.test\n" in running
        assert "council.test" not in running


def test_optional_settings_removed(instance: Deployed) -> None:
    """A setting with a value of its own and one that replaces a default: no file remembers them."""
    traces = f"grep -rlF -e {ANSWERS} -e 'Unattended-Upgrade \"0\"' /etc /usr/local /opt/mastodon/slot; true"
    answers = edited(instance, "  port: 587\n", f"  port: 587\n  reply_to: {ANSWERS}\n")
    with answers, edited(instance, "backups:\n", "updates:\n  automatic: false\nbackups:\n"):
        instance.deploy()
        assert len(instance.root(traces).split()) >= 2
    instance.deploy()
    assert instance.root(traces) == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("handle: agency.test ", "handle: council.test "),
        ("web: social.agency.test ", "web: other.agency.test "),
    ],
    ids=["handle", "web"],
)
def test_names_never_change(instance: Deployed, old: str, new: str) -> None:
    """Refused with the reason, before anything is written on the host or in the database."""
    kept = "runuser -u postgres -- pg_dump -n gov mastodon_production | grep -v restrict | sha256sum"
    before, database = files_of(instance.machine()), instance.root(kept)
    with edited(instance, old, new):
        done = instance.cli("deploy", check=False)
    assert done.returncode == 1
    sentence = done.stdout + done.stderr
    assert "can never change" in sentence
    assert old.split()[1] in sentence
    assert "Traceback" not in sentence
    # The lock under /run, named without a path, is taken by a deploy that is refused, too.
    assert {path for path in written(before, files_of(instance.machine())) if path.startswith("/")} == set()
    assert instance.root(kept) == database


def test_colours_only_on_a_terminal(instance: Deployed) -> None:
    """A terminal shows the operation at work, and colours; a log gets plain lines."""
    command = [sys.executable, "-m", "mastodon_gov.cli", "--instance", str(instance.directory), "deploy"]
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color"}
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as run:
        os.close(theirs)
        shown = _read(ours)
    assert run.returncode == 0, shown
    assert "\x1b[32msettled" in shown
    # The line that is overwritten while a role works; it is drawn a dozen times a second, so quick ones are missed.
    assert re.search(r"(Base|PostgreSQL|Mastodon): [A-Z][a-z]", shown)
    plain = instance.cli("deploy")
    assert "\x1b" not in plain.stdout + plain.stderr
    assert "Write files" not in plain.stdout


def _read(descriptor: int) -> str:
    """Everything until the other end is closed, which Linux reports as an error."""
    shown = b""
    try:
        while part := os.read(descriptor, 65536):
            shown += part
    except OSError:
        pass
    os.close(descriptor)
    return shown.decode()
