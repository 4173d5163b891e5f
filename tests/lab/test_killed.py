"""A first deploy is killed at random points: the next run converges, the one after finds nothing to do."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from mastodon_gov.lab.demo import REPOSITORY
from tests.lab.deployed import Deployed, wait_for
from tests.lab.edits import sign_in
from tests.lab.fresh import Fresh, specs
from tests.lab.labs import MakeLab
from tests.lab.watchers import FILES, known_secrets, watching

# A random moment within so many seconds after the role was done: the machine's speed does not decide what is hit.
KILLS = (
    ("Redis", 30),
    ("Mail", 12),
    ("Check", 3),
    ("Object storage", 6),
    ("Base", 2),
    ("SSH", 3),
    ("PostgreSQL", 15),
    ("Redis", 10),
    ("Redis", 60),
    ("Mastodon", 5),
)
POWER = (("Redis", 40), ("Mail", 12), ("PostgreSQL", 15))
ENDED = 600  # seconds until a first deploy must have ended on any machine
ROOTS = ["/etc", "/opt", "/tmp", "/var/tmp", "/usr/local", "/var/lib"]
SKIP = ["/var/lib/postgresql", "/var/lib/dpkg", "/var/lib/apt", "/opt/mastodon/releases"]
# Whose group may read a file that holds secrets; every other one is root's alone.
GROUPS = {"/etc/mastodon/mastodon.env": "mastodon", "/etc/pgbackrest.conf": "postgres"}


@pytest.fixture(scope="module")
def fresh(make_lab: MakeLab, tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    """A lab of its own, because its `social` starts from nothing each time."""
    return Fresh(make_lab("fresh", specs()), tmp_path_factory.mktemp("fresh"))


def short_first(points: tuple[tuple[str, int], ...], short: int) -> list[ParameterSet]:
    """The first ones run always, the others only in `make test-all`."""
    return [pytest.param(*v, marks=[] if n < short else [pytest.mark.long]) for n, v in enumerate(points)]


def start_deploy(deployed: Deployed, log: Path) -> subprocess.Popen[bytes]:
    """A deploy in a process group of its own."""
    words = [sys.executable, "-m", "mastodon_gov.cli", "--instance", str(deployed.directory), "deploy"]
    with log.open("wb") as out:
        return subprocess.Popen(
            words, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )


def deploy_until(deployed: Deployed, role: str, within: float, log: Path) -> subprocess.Popen[bytes]:
    """Start a deploy; come back at a random moment after this role, or at its end."""
    process = start_deploy(deployed, log)
    deadline = time.monotonic() + ENDED
    while f"\n{role} " not in f"\n{log.read_text()}" and process.poll() is None:
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.02)
    later = random.uniform(0, within)  # noqa: S311 - a moment, not a secret
    with suppress(subprocess.TimeoutExpired):
        process.wait(later)
    print(f"killed {later:.2f} s after {role}; ended before: {process.poll() is not None}; {log.read_text()[-60:]!r}")
    return process


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """The command line and pyinfra, at once, as when the control node loses power."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def converges(deployed: Deployed) -> None:
    """One run without a hand finishes what was begun; the next one has nothing to do; all of it works."""
    deployed.deploy()
    assert deployed.deploy()["changes"] == []
    deployed.cli("status")


@pytest.mark.parametrize(("role", "within"), short_first(KILLS, 1))
def test_killed_on_the_control_node(fresh: Fresh, role: str, within: int, tmp_path: Path) -> None:
    """And nothing that holds a secret was ever wider than its owner and its service's group."""
    deployed = fresh.renew()
    values = known_secrets(deployed.directory)
    known = {"ROOTS": ROOTS, "SKIP": SKIP, "GROUPS": GROUPS, "SECRETS": values}
    with watching(deployed.machine(), FILES, **known) as saw:
        kill_group(deploy_until(deployed, role, within, tmp_path / "log"))
        converges(deployed)
    assert saw["found"] == {}
    assert saw["lost"] == 0
    assert int(str(saw["looked"])) > 100


@pytest.mark.parametrize(("role", "within"), short_first(POWER, 1))
def test_whole_machine_killed(fresh: Fresh, role: str, within: int, tmp_path: Path) -> None:
    """Every process of the host ends at once. What it wrote is still in the memory of the lab's host: loss of power
    is not proved."""
    deployed = fresh.renew()
    process = deploy_until(deployed, role, within, tmp_path / "log")
    deployed.machine().kill()
    kill_group(process)
    deployed.machine().start()
    converges(deployed)


def test_the_next_deploy_waits_for_what_a_killed_one_started(instance: Deployed, tmp_path: Path) -> None:
    """The lock dies with the connection, the command it had started does not: a migration runs once at a time."""
    work = subprocess.Popen(sign_in(instance, instance.directory / "deploy_key", "deploy", "sudo sleep 900"))
    instance.root("until pgrep -fx 'sleep 900'; do sleep 0.1; done")
    work.kill()
    work.wait()
    process = start_deploy(instance, tmp_path / "log")
    try:
        instance.root("timeout 60 sh -c 'until pgrep -fx \"sleep 0.5\"; do sleep 0.1; done'")
        wait_for(lambda: "waits, for 5 minutes at most" in (tmp_path / "log").read_text(), 30, "it says so")
        assert re.search(r"has started there ends: .*sleep \(process \d+\)", (tmp_path / "log").read_text())
        assert "Base" not in (tmp_path / "log").read_text()
    finally:
        instance.root("pkill -fx 'sleep 900'")
    assert process.wait(ENDED) == 0


def test_a_person_s_open_shell_holds_up_nobody(instance: Deployed) -> None:
    """Not even one of the account that deploys: a run never has a terminal."""
    ssh, *words = sign_in(instance, instance.directory / "deploy_key", "deploy", "sudo sleep 901")
    with subprocess.Popen([ssh, "-tt", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        instance.root("timeout 60 sh -c 'until pgrep -fx \"sleep 901\"; do sleep 0.1; done'")
        try:
            assert "waits" not in instance.cli("deploy", timeout=200).stderr
        finally:
            instance.root("pkill -fx 'sleep 901'")
            shell.communicate()
