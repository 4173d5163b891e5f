"""The lab itself: five traps that would make every other test lie, and the ways a lab can be left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mastodon_gov.errors import Refusal
from mastodon_gov.lab import network
from mastodon_gov.lab.build import Builder
from mastodon_gov.lab.image import Cache
from mastodon_gov.lab.lab import Lab
from mastodon_gov.lab.machine import Machine
from mastodon_gov.lab.remove import reap, take_down
from mastodon_gov.lab.starter import CgroupStarter, starter
from mastodon_gov.lab.state import DEFAULT_STATE_DIR, MachineSpec, Places
from tests.lab.labs import MakeLab

REFUSES = "import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2)"


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait for a condition; fail when it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)


def reaches(source: Machine, address: str, port: int = 22) -> bool:
    """Whether `source` can open a TCP connection."""
    return source.exec(["python3", "-c", REFUSES, address, str(port)], check=False).returncode == 0


def host_hears(machine: Machine) -> bool:
    """Whether one datagram of the machine arrives at the host; a connection could not tell the directions apart."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind((network.address4(machine.number, 1), 0))
        ear.settimeout(1)
        send = "import socket,sys; socket.socket(2, 2).sendto(b'x', (sys.argv[1], int(sys.argv[2])))"
        machine.exec(["python3", "-c", send, *map(str, ear.getsockname())])
        try:
            return ear.recv(1) == b"x"
        except TimeoutError:
            return False


def processes(machine: Machine) -> set[int]:
    """Every process of the machine, as the host numbers them."""
    found: set[int] = set()
    for group in starter().groups(machine.id):
        for procs in group.rglob("cgroup.procs"):
            found |= {int(n) for n in procs.read_text().split()}
    return found


def alive(pid: int) -> bool:
    """Whether the process still runs; an ended one may stay listed until its parent takes note."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def settled(machine: Machine) -> str:
    """The state systemd ends up in after boot: running or degraded."""
    return machine.exec(["systemctl", "is-system-running", "--wait"], check=False).stdout.strip()


def traces(number: int) -> list[str]:
    """What a lab may leave on the host: control groups, interfaces, firewall tables, mounts, its claim."""
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    lines = (links + tables + Path("/proc/mounts").read_text()).splitlines()
    words = (f"mfg{number}:", f"vb-mfg{number}-", f" mfg_{number}", f"mfg{number}-")
    found = [line for line in lines if any(w in line + "\n" for w in words) and f"mfg_{number}0" not in line]
    return found + [str(g) for g in starter().groups(f"mfg{number}-*")]


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    return make_lab("lab", [MachineSpec("a"), MachineSpec("b", dns=("a", "192.0.2.53"))])


@pytest.fixture
def a(lab: Lab) -> Machine:
    lab.machine("a").start()
    return lab.machine("a")


@pytest.fixture
def b(lab: Lab) -> Machine:
    lab.machine("b").start()
    return lab.machine("b")


# --- the five traps -------------------------------------------------------------------------------------------


def test_trap_1_machines_do_not_share_a_control_group(a: Machine, b: Machine) -> None:
    """Same-named services of two machines must not be one service."""
    for machine in (a, b):
        machine.ssh("systemctl reset-failed; systemd-run --quiet --unit=twin sleep infinity")
    show = ["systemctl", "show", "--value", "-p", "MainPID", "twin"]
    before = b.ssh(show).stdout
    assert a.leader in processes(a)
    assert not processes(a) & processes(b)
    listed = a.exec(["sh", "-c", "cat /sys/fs/cgroup/system.slice/twin.service/cgroup.procs"]).stdout.split()
    assert len(listed) == 1, "the machine's own view must show its one process and nobody else's"
    a.ssh("systemctl stop twin")
    assert b.ssh(show).stdout == before
    assert b.ssh("systemctl is-active twin; systemctl stop twin").stdout.strip() == "active"


def test_trap_2_kill_ends_a_machine_whose_nspawn_is_gone(a: Machine) -> None:
    """The machine outlives its nspawn process; `kill` must find it all the same."""
    leader = a.leader
    assert leader is not None
    status = Path(f"/proc/{leader}/status").read_text()
    nspawn = int(next(line for line in status.splitlines() if line.startswith("PPid")).split()[1])
    assert "nspawn" in Path(f"/proc/{nspawn}/comm").read_text()
    os.kill(nspawn, signal.SIGKILL)
    until(lambda: not alive(nspawn))
    if isinstance(starter(), CgroupStarter):  # a systemd host ends the rest of the unit by itself
        assert alive(leader), "the trap is gone: nspawn now takes its machine along"
    a.kill()
    assert not alive(leader)
    assert a.state == "stopped"
    assert not starter().groups(a.id)


def test_trap_3_a_killed_machine_starts_again_without_failed_units(a: Machine) -> None:
    for _ in range(2):
        settled(a)
        a.kill()
        a.start()
        assert settled(a) == "running", a.exec(["systemctl", "--failed", "--plain"]).stdout


def test_trap_4_reboot_inside_comes_back_by_itself(a: Machine) -> None:
    boot_id = ["cat", "/proc/sys/kernel/random/boot_id"]  # the host's, so it cannot tell boots apart
    assert a.ssh(boot_id).returncode == 0
    leader = a.leader
    a.ssh("touch /root/kept; systemctl reboot", check=False)
    until(lambda: a.leader not in {None, leader})
    a.wait_ssh()
    assert a.ssh(["ls", "/root/kept"], options=["-o", "ControlPath=none"]).stdout.strip() == "/root/kept"


def test_trap_5_a_unit_s_address_filter_is_enforced(lab: Lab, a: Machine) -> None:
    def connect(*properties: str) -> int:
        flags = [f"--property={p}" for p in properties]
        unit = ["systemd-run", "--quiet", "--wait", "--collect", *flags]
        command = [*unit, "python3", "-c", REFUSES, lab.machine("b").address4, "22"]
        return a.ssh(command, check=False).returncode

    assert connect() == 0
    assert connect("IPAddressDeny=any") != 0
    assert connect("IPAddressDeny=any", f"IPAddressAllow={lab.machine('b').address4}") == 0


# --- identity -------------------------------------------------------------------------------------------------


def test_machines_have_their_own_identity(a: Machine, b: Machine) -> None:
    one, two = (m.ssh("cat /etc/machine-id /etc/ssh/ssh_host_*_key.pub; hostname").stdout.split() for m in (a, b))
    assert not set(one) & set(two) - {"ssh-ed25519"}
    assert one[-1] == "a"


def test_resolvers_are_the_given_ones(lab: Lab, b: Machine) -> None:
    servers = b.ssh(["cat", "/etc/resolv.conf"]).stdout.split()[1::2]
    assert servers == [lab.machine("a").address4, lab.machine("a").address6, "192.0.2.53"]


def test_an_unknown_host_key_is_refused(a: Machine) -> None:
    """The pinned key is the point: a machine with another key must not get our root session."""
    fresh = ["-o", "ControlPath=none"]
    a.exec("cd /etc/ssh && mv ssh_host_ed25519_key ../kept && ssh-keygen -q -t ed25519 -N '' -f new")
    a.exec("cd /etc/ssh && mv new ssh_host_ed25519_key && systemctl restart ssh")
    refused = a.ssh(["true"], options=fresh, check=False)
    a.exec("mv /etc/kept /etc/ssh/ssh_host_ed25519_key && systemctl restart ssh")
    assert refused.returncode == 255
    assert "host key" in refused.stderr.lower()
    until(lambda: a.ssh(["true"], options=fresh, check=False).returncode == 0)


def test_secrets_arrive_on_stdin(a: Machine) -> None:
    assert a.ssh(["cat"], stdin="multi\nline").stdout == "multi\nline"
    assert a.exec(["cat"], stdin="multi\nline").stdout == "multi\nline"


def test_a_failing_command_shows_its_error_text(a: Machine) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failure:
        a.ssh("echo spoiled >&2; exit 3")
    assert failure.value.returncode == 3
    assert any("spoiled" in note for note in failure.value.__notes__)


# --- network --------------------------------------------------------------------------------------------------


def test_both_address_families_reach_the_neighbour_and_v6_ends_at_the_lab(a: Machine, b: Machine) -> None:
    assert reaches(a, b.address4)
    assert reaches(a, b.address6)
    route = a.exec(["ip", "-6", "route", "get", "2001:db8::1"], check=False)
    assert route.returncode != 0


def test_cut_and_heal_one_machine(lab: Lab, a: Machine, b: Machine) -> None:
    lab.cut("a")
    assert not reaches(a, b.address4)
    assert not reaches(b, a.address6)
    assert not a.answers()
    assert not host_hears(a)
    assert host_hears(b)
    lab.cut("a")
    lab.heal("a")
    assert host_hears(a)
    assert reaches(a, b.address6)
    assert a.answers()
    lab.heal("a")


def test_cut_and_heal_a_pair(lab: Lab, a: Machine, b: Machine) -> None:
    lab.cut("a", "b")
    assert not reaches(a, b.address4)
    assert not reaches(b, a.address4)
    assert a.answers()
    assert b.answers()
    network.up(lab.number)
    assert not reaches(a, b.address6), "`lab up` must not heal a cut"
    lab.heal()
    assert reaches(a, b.address4)
    assert reaches(b, a.address6)


def test_a_host_that_drops_forwarded_packets_is_noticed(lab: Lab) -> None:
    """As Docker leaves it; tried in a network namespace of its own, so that the host stays as it is."""
    drop = (
        "nft 'add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'"
    )
    ask = f"{sys.executable} -c 'from mastodon_gov.lab import network; print(network.docker_warning(3))'"
    printed = [
        subprocess.run(["unshare", "-n", "sh", "-c", script], capture_output=True, text=True, check=True).stdout
        for script in (ask, f"{drop}; {ask}")
    ]
    assert printed[0] == "None\n"
    assert "-i mfg3 -j ACCEPT" in printed[1]


def test_labs_side_by_side_are_apart(lab: Lab, a: Machine, make_lab: MakeLab) -> None:
    other = make_lab("beside", [MachineSpec("a")])
    neighbour = other.machine("a")
    assert neighbour.address4 != a.address4
    assert neighbour.ssh(["hostname"]).stdout == a.ssh(["hostname"]).stdout
    assert neighbour.ssh(["cat", "/etc/machine-id"]).stdout != a.ssh(["cat", "/etc/machine-id"]).stdout
    assert not reaches(a, neighbour.address4)
    other.down()
    assert a.answers()
    assert not traces(other.number)


# --- states ---------------------------------------------------------------------------------------------------


def test_freeze_and_thaw(a: Machine) -> None:
    a.freeze()
    assert a.state == "frozen"
    assert not a.answers()
    a.thaw()
    assert a.state == "running"
    assert a.answers()


def test_stop_is_orderly_and_start_brings_back(a: Machine) -> None:
    a.ssh("mkdir -p /var/log/journal; journalctl --flush")
    leader = a.leader
    a.stop()
    assert a.state == "stopped"
    a.start()
    assert a.leader != leader
    log = a.exec(["journalctl", "-b", "-1", "-o", "cat", "_PID=1"]).stdout
    assert "Reached target" in log
    assert "Power" in log


def test_up_again_leaves_running_machines_alone(make_lab: MakeLab) -> None:
    name = f"keep-{os.getpid()}"
    try:
        first = Lab.up(name, [MachineSpec("a")])
        leader = first.machine("a").leader
        assert f"lab {name}" not in reap(DEFAULT_STATE_DIR), "a complete lab stays until `down`"
        again = Lab.up(name, [MachineSpec("a"), MachineSpec("b", volatile=False)])
        assert again.machine("a").leader == leader
        assert again.machine("b").answers()
        with pytest.raises(Refusal, match="made with volatile"):
            Lab.up(name, [MachineSpec("b")])
        with pytest.raises(Refusal, match="not a temporary"), Lab.temporary(name, []):
            pass
        assert again.machine("a").answers()
        mounts = [again.machine(m).ssh(["cat", "/proc/mounts"]).stdout.splitlines()[0] for m in ("a", "b")]
        assert ["volatile" in m for m in mounts] == [True, False]
    finally:
        take_down(Places(DEFAULT_STATE_DIR, name))
    assert not traces(again.number)
    assert not again.places.root.exists()


# --- layers ---------------------------------------------------------------------------------------------------


@pytest.fixture
def snapshot_name() -> Iterator[str]:
    name = f"test-{os.getpid()}"
    yield name
    subprocess.run(["rm", "-rf", str(Cache(DEFAULT_STATE_DIR).layer(name))], check=True)


def test_a_snapshot_is_reused_and_never_changes(lab: Lab, a: Machine, make_lab: MakeLab, snapshot_name: str) -> None:
    a.ssh("echo one >/etc/proof; rm /etc/issue; systemctl disable --now systemd-timesyncd 2>/dev/null; true")
    key = a.ssh(["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).stdout
    lab.snapshot("a", snapshot_name)
    assert a.answers(), "the machine goes on after its snapshot"
    clone_lab = make_lab("clone", [MachineSpec("clone", layer=snapshot_name)])
    clone = clone_lab.machine("clone")
    assert clone.ssh("cat /etc/proof; hostname; test ! -e /etc/issue").stdout.split() == ["one", "clone"]
    assert clone.ssh(["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).stdout != key
    upper = Cache(DEFAULT_STATE_DIR).layer(snapshot_name) / "upper"
    assert not list(upper.glob("etc/ssh/ssh_host*"))
    a.ssh("echo two >/etc/proof")
    clone.ssh("echo three >/etc/proof")
    assert (upper / "etc/proof").read_text() == "one\n"
    with pytest.raises(Refusal, match="in use by machine clone"):
        lab.snapshot("a", snapshot_name)
    clone_lab.down()


def test_a_package_layer_is_made_once_with_services_at_rest(make_lab: MakeLab) -> None:
    spec = MachineSpec("cronny", layer_packages=("cron",))
    said: list[str] = []
    base = make_lab("layer", [])
    cache = Cache(DEFAULT_STATE_DIR)
    name = base.layer(["cron"])
    made = (cache.layer(name) / "layer.json").stat().st_ino
    Builder(base.places, base.number, said.append).complete([spec])
    machine = base.machine("cronny")
    assert (cache.layer(name) / "layer.json").stat().st_ino == made
    assert settled(machine) == "running"
    # Installed, but as bare as on a machine without a layer: what runs there, a role has started.
    rest = "systemctl is-enabled cron; systemctl is-active cron; command -v cron; test ! -e /usr/sbin/policy-rc.d"
    assert machine.ssh(f"{rest} && echo gone").stdout.split() == ["disabled", "inactive", "/usr/sbin/cron", "gone"]
    assert [m.name for m in base.machines] == ["cronny"], "the machine that made the layer is gone"
    base.down()


# --- left behind ----------------------------------------------------------------------------------------------

OWNER = """
import sys, time
from mastodon_gov.lab.lab import Lab
from mastodon_gov.lab.state import MachineSpec
with Lab.temporary(sys.argv[1], [MachineSpec("a"), MachineSpec("b")], say=lambda s: print(s, flush=True)):
    print("up", flush=True)
    time.sleep(600)
"""


def reap_until_gone(places: Places) -> None:
    """A lock is freed a moment after its owner died, when a process the owner was just starting is under way."""
    until(lambda: reap(DEFAULT_STATE_DIR) is not None and not places.root.exists())


def owner(name: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", OWNER, name], stdout=subprocess.PIPE, text=True)


def test_reap_removes_the_lab_of_a_killed_owner(lab: Lab, a: Machine) -> None:
    name = f"orphan-{os.getpid()}"
    process = owner(name)
    assert process.stdout is not None
    assert any(line == "up\n" for line in process.stdout)
    orphan = Lab.open(name)
    pids = processes(orphan.machine("a"))
    with pytest.raises(Refusal, match=f"process {process.pid}"):
        orphan.down()
    assert f"lab {name}" not in reap(DEFAULT_STATE_DIR), "the owner lives"
    process.kill()
    process.wait()
    assert orphan.machine("a").answers(), "the machines outlive their owner; that is why reap exists"
    reap_until_gone(orphan.places)
    assert not any(alive(pid) for pid in pids)
    assert not traces(orphan.number)
    assert not orphan.places.lock.exists()
    assert a.answers(), "other labs stay"


@pytest.fixture
def half_made(make_lab: MakeLab, request: pytest.FixtureRequest) -> Places:
    """A lab whose owner was killed at the moment this file appeared."""
    places = Places(DEFAULT_STATE_DIR, f"half-{os.getpid()}")
    process = owner(places.name)
    until((places.root / request.param).exists)
    process.kill()
    process.wait()
    return places


@pytest.mark.parametrize("half_made", ["root_key.pub", "machines/a/upper"], indirect=True)
def test_up_completes_a_half_made_lab(half_made: Places) -> None:
    lab = Lab.up(half_made.name, [MachineSpec("a"), MachineSpec("b")])
    assert [m.ssh(["hostname"]).stdout for m in lab.machines] == ["a\n", "b\n"]
    lab.down()
    assert not half_made.root.exists()


@pytest.mark.parametrize("half_made", ["lab.json", "machines/b/machine.json"], indirect=True)
def test_reap_removes_a_half_made_lab(half_made: Places) -> None:
    numbers = network.claims_of(half_made.root)
    reap_until_gone(half_made)
    assert not [t for n in numbers for t in traces(n)]


def test_status_prints_json_only(lab: Lab, a: Machine) -> None:
    command = [sys.executable, "-m", "mastodon_gov.lab.cli", "status", "--json", "--lab", lab.name]
    printed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert printed["machines"][0] == {
        "name": "a",
        "state": "running",
        "address4": a.address4,
        "address6": a.address6,
    }
