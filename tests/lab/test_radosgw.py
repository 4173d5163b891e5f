"""The one-host Ceph survives being killed while it is made, and is never made over data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mastodon_gov.lab.machine import Machine
from mastodon_gov.lab.state import MachineSpec
from mastodon_gov.lab.world import WORLD_PACKAGES
from roles.lib.render import text
from roles.radosgw.role import CONF, PROGRAM
from tests.lab.labs import MakeLab

SOURCE = Path("roles/radosgw/files/ceph_one_host.py")
LOCK = "/run/ceph-one-host.lock"
KILLED = 137
KILL = f"""\
import importlib.machinery, importlib.util, os, signal, sys
loader = importlib.machinery.SourceFileLoader("program", "{PROGRAM}")
program = importlib.util.module_from_spec(importlib.util.spec_from_loader("program", loader))
loader.exec_module(program)
real, left = program.run, int(sys.argv[1])
def run(*command, **options):
    global left
    left -= 1
    if left == 0 and sys.argv[2] == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    answer = real(*command, **options)
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
program.run = run
program.alone()
program.cluster()
"""


# A kill at each boundary; `make test` builds the same role once, as the world of every lab.
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def storage(make_lab: MakeLab) -> Machine:
    """A machine with Ceph's packages and what the role writes, but no cluster."""
    machine = make_lab("radosgw", [MachineSpec("storage", layer_packages=WORLD_PACKAGES)]).machine("storage")
    machine.ssh(f"cat > {CONF}", stdin=text("radosgw/ceph.conf", name="s3.world.test", size=10))
    write = f"mkdir -p {Path(PROGRAM).parent} && cat > {PROGRAM} && chmod 755 {PROGRAM}"
    machine.ssh(write, stdin=SOURCE.read_text())
    return machine


@pytest.fixture(scope="module")
def cluster(storage: Machine) -> Machine:
    """The cluster, made by runs that were killed at every boundary between two programs that they start.

    Each run gets one program further than the last; when a part is complete, they begin with one again. The last run,
    when no part is missing any more, is left alone.
    """
    killed, step, left = 0, 0, -1
    while missing := len(json.loads(storage.ssh([PROGRAM, "state"]).stdout)["missing"]):
        step, left = (step + 1 if missing == left else 2), missing
        when = "after" if step % 2 else "before"
        done = storage.ssh(f"python3 - {step // 2} {when}; exit $?", stdin=KILL, check=False)
        assert done.returncode == KILLED, f"{killed} runs were killed, then: {done.stderr}"
        killed += 1
    assert killed > 25, "too few runs were killed: this test proved nothing"
    storage.ssh([PROGRAM, "cluster"])
    return storage


def identity(machine: Machine) -> str:
    """All keys and the OSD's number: what a second cluster would have different. Only a digest leaves the machine."""
    return machine.ssh("{ ceph auth ls -f json; ceph osd ls; } 2>/dev/null | sha256sum").stdout


def test_killed_runs_end_in_one_whole_cluster(cluster: Machine) -> None:
    assert cluster.ssh(["ceph", "health"]).stdout.startswith("HEALTH_OK")
    assert cluster.ssh(["ceph", "osd", "ls"]).stdout.split() == ["0"]
    assert '"missing": []' in cluster.ssh([PROGRAM, "state"]).stdout


def test_done_again_it_is_the_same_cluster(cluster: Machine) -> None:
    before = identity(cluster)
    cluster.ssh([PROGRAM, "cluster"])
    assert identity(cluster) == before


def test_second_run_waits_for_the_first(cluster: Machine) -> None:
    assert cluster.ssh(f"flock {LOCK} timeout 2 {PROGRAM} cluster", check=False).returncode == 124


def test_keys_are_for_ceph_and_root_only(cluster: Machine) -> None:
    where = "find /var/lib/ceph /etc/ceph -type f"
    assert len(cluster.ssh(f"{where} -name '*keyring'").stdout.split()) == 5
    readable = cluster.ssh(f"runuser -u nobody -- {where} -readable 2>/dev/null", check=False).stdout.split()
    assert set(readable) <= {CONF, "/etc/ceph/rbdmap"}


@pytest.mark.parametrize("part", ["/var/lib/ceph/osd/ceph-0/ready", "/var/lib/ceph/mon/ceph-a/store.db"])
def test_lost_part_is_not_made_anew_over_data(cluster: Machine, part: str) -> None:
    cluster.ssh([PROGRAM, "user", "kept", "-1"])
    before = cluster.ssh(["radosgw-admin", "user", "info", "--uid=kept"]).stdout
    cluster.ssh(f"mv {part} {part}.away")
    done = cluster.ssh([PROGRAM, "cluster"], check=False)
    cluster.ssh(f"mv {part}.away {part} && systemctl restart ceph-mon@a")
    assert done.returncode == 1
    assert part.removesuffix("/store.db") in done.stderr
    assert cluster.ssh(["radosgw-admin", "user", "info", "--uid=kept"], timeout=60).stdout == before
