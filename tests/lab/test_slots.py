"""Changing what Mastodon runs with, while people use it: nobody waits, one slot of each kind remains, and whatever
kills or breaks a swap, the old slot serves and the next swap finishes."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.deployed import LIB, Deployed
from tests.lab.edits import edited
from tests.lab.load import load

KINDS = ("web", "sidekiq", "streaming")
STALE = "touch /etc/mastodon/mastodon.env"
SETTLE = f"{LIB}/slots.py settle $(basename $(readlink /opt/mastodon/current))"
# Stands in front of systemctl and kills its caller before or after the call with a given number. Calls that only look
# are not counted: how many there are depends on how fast the machine is.
WRAPPER = """\
#!/bin/sh
case "$1" in show|is-active) exec /usr/bin/systemctl "$@";; esac
count=$(($(cat /run/kill-test/count) + 1))
echo "$count" > /run/kill-test/count
[ "$KILL" = "before $count" ] && kill -9 "$PPID" && exit
/usr/bin/systemctl "$@"
code=$?
echo "$count $*" >> /run/kill-test/log
[ "$KILL" = "after $count" ] && kill -9 "$PPID"
exit "$code"
"""
PREPARE = "mkdir -p /run/kill-test && cat > /run/kill-test/systemctl && chmod 755 /run/kill-test/systemctl"
# Puts a job in and waits until Sidekiq has taken it out: a Sidekiq that was told to be quiet leaves it there.
JOB = """\
require "sidekiq/api"
Scheduler::UserCleanupScheduler.perform_async
queue = Sidekiq::Queue.new("scheduler")
60.times { break if queue.size.zero?; sleep 0.5 }
puts(queue.size.zero? ? "DONE" : "LEFT #{queue.size}")
"""
ENDS = "/bin/false"
# It listens and lives, and every page fails.
FAILS = "/usr/bin/env DB_NAME=nowhere /usr/bin/bundle exec puma -C config/puma.rb"


def _slots(instance: Deployed) -> dict[str, str]:
    """The one active slot of each kind; fails when it is not exactly one, or older than what it reads."""
    release = "$(basename $(readlink /opt/mastodon/current))"
    told = json.loads(instance.root(f"{LIB}/slots.py status {release}"))
    active = {kind: [slot for slot, state in told["kinds"][kind].items() if state["active"]] for kind in KINDS}
    assert told["settled"], told
    assert all(len(slots) == 1 for slots in active.values()), active
    _younger_than_the_environment(instance, active)
    return {kind: slots[0] for kind, slots in active.items()}


def _younger_than_the_environment(instance: Deployed, active: dict[str, list[str]]) -> None:
    """Asked from the kernel, not from the program under test: every process of the application is one of an active
    unit's, and none is older than the environment file."""
    written = float(instance.root("stat -c %.Y /etc/mastodon/mastodon.env"))
    script = (
        "boot=$(awk '/btime/ {print $2}' /proc/stat); tick=$(getconf CLK_TCK); for pid in $(pgrep -u mastodon); do "
        'echo $(awk -v b=$boot -v t=$tick \'{sub(/.*\\) /, ""); printf "%.2f", b + $20 / t}\' /proc/$pid/stat) '
        "$(sed -n 's,.*/\\(mastodon-[a-z]*@[ab]\\).service.*,\\1,p' /proc/$pid/cgroup); done"
    )
    seen = [line.split() for line in instance.root(script).splitlines()]
    assert {unit for _, unit in seen} == {f"mastodon-{kind}@{slots[0]}" for kind, slots in active.items()}
    # The kernel counts boot time in whole seconds.
    assert min(float(since) for since, _ in seen) >= written - 1


def _settle(instance: Deployed, kill: str = "") -> subprocess.CompletedProcess[str]:
    """Swap, by the program a deploy uses; `kill` names the call of systemctl where it dies."""
    setting = f"echo 0 > /run/kill-test/count; : > /run/kill-test/log; KILL='{kill}' PATH=/run/kill-test:$PATH "
    done: subprocess.CompletedProcess[str] = instance.machine().exec((setting if kill else "") + SETTLE, check=False)
    return done


@contextmanager
def _broken(instance: Deployed, kind: str, start: str = ENDS) -> Iterator[None]:
    """The next process of this kind ends at once, or is what `start` says."""
    place = f"/run/systemd/system/mastodon-{kind}@.service.d"
    instance.root(
        f"mkdir -p {place}; cat > {place}/99-broken.conf", stdin=f"[Service]\nExecStart=\nExecStart={start}\n"
    )
    try:
        yield
    finally:
        instance.root(f"rm -r {place}; systemctl daemon-reload")


@pytest.fixture(autouse=True)
def settled(instance: Deployed) -> Iterator[None]:
    """Every test ends with exactly one slot of each kind, and nothing to do for a deploy."""
    yield
    assert _settle(instance).returncode == 0
    _slots(instance)


def test_a_changed_setting_swaps_the_slots_and_nobody_waits(instance: Deployed) -> None:
    """There and back, each by a deploy."""
    before = _slots(instance)
    with load(instance) as seen:
        with edited(instance, "\nbackups:", "\nmastodon:\n  web_threads: 4\n\nbackups:"):
            assert instance.deploy()["changes"]
        during = _slots(instance)
        assert "MAX_THREADS=4\n" in instance.root("cat /etc/mastodon/mastodon.env")
        instance.deploy()
    assert seen.failed == []
    assert len(seen.seconds) > 100
    assert before["web"] != during["web"] != _slots(instance)["web"]
    assert instance.deploy()["changes"] == []


@pytest.mark.parametrize("kind", ["web", "sidekiq", pytest.param("streaming", marks=pytest.mark.long)])
def test_a_new_slot_that_cannot_start_leaves_the_old_one_serving(instance: Deployed, kind: str) -> None:
    """A sentence with the unit's last words, exit 1, every page answered, jobs done; then it heals by itself."""
    old = _slots(instance)
    with load(instance) as seen:
        with _broken(instance, kind):
            instance.root(STALE)
            done = _settle(instance)
            assert done.returncode == 1
            assert f"mastodon-{kind}@" in done.stderr
            assert "did not become ready; the old slot still runs" in done.stderr
            assert old[kind] in _active(instance, kind)
            _jobs_are_done(instance)
        assert _settle(instance).returncode == 0
    assert seen.failed == []
    _slots(instance)
    _jobs_are_done(instance)


def test_visitors_do_not_meet_a_new_slot_that_answers_with_errors(instance: Deployed) -> None:
    """It is given up after its deadline; until then nginx takes nobody there. Shorter here than on a real host."""
    program = f"{LIB}/slots.py"
    instance.root(f"sed -i.kept 's/^READY_WITHIN = 120/READY_WITHIN = 15/' {program} && grep -q '= 15' {program}")
    try:
        with load(instance) as seen, _broken(instance, "web", FAILS):
            instance.root(STALE)
            done = _settle(instance)
    finally:
        instance.root(f"mv {program}.kept {program}")
    assert (done.returncode, "did not become ready; the old slot still runs" in done.stderr) == (1, True), done
    assert seen.failed == []
    assert len(seen.seconds) > 100
    assert "mfg_slots" not in instance.root("nft list tables")


def _active(instance: Deployed, kind: str) -> str:
    listed = f"systemctl list-units --no-legend --plain --state=active 'mastodon-{kind}@*'"
    return instance.root(f"{listed} | sed 's/.*@\\(.\\).*/\\1/'")


def _jobs_are_done(instance: Deployed) -> None:
    """One job that is put in by the application is taken by whatever Sidekiq runs."""
    run = f"{LIB}/mastodon-run mastodon /opt/mastodon/current bundle exec rails runner -"
    assert "DONE" in instance.root(run, stdin=JOB)


def _calls(instance: Deployed) -> list[str]:
    """Every call of systemctl by which one whole swap changes something."""
    instance.root(PREPARE, stdin=WRAPPER)
    instance.root(STALE)
    assert _settle(instance, "never").returncode == 0
    return instance.root("cat /run/kill-test/log").splitlines()


def _killed_at(instance: Deployed, places: list[str]) -> None:
    """Kill one swap after another; the page is served all the time, and the next swap converges."""
    with load(instance) as seen:
        for place in places:
            instance.root(STALE)
            done = _settle(instance, place)
            assert done.returncode in (-9, 137), (place, done)
            assert _settle(instance).returncode == 0
            _slots(instance)
    assert seen.failed == []


def test_a_swap_killed_where_it_matters(instance: Deployed) -> None:
    """After the new web slot started, after the old one was stopped, and before the old Sidekiq is."""
    calls = _calls(instance)
    starts = [call.split()[0] for call in calls if " restart " in call]
    stops = [call.split()[0] for call in calls if " stop " in call]
    assert (len(starts), len(stops)) == (3, 3)
    _killed_at(instance, [f"after {starts[-1]}", f"after {stops[0]}", f"before {stops[1]}"])
    _jobs_are_done(instance)


@pytest.mark.long
def test_a_swap_killed_at_each_of_its_steps(instance: Deployed) -> None:
    """Before the first call of systemctl that changes something, and after each."""
    _killed_at(instance, ["before 1", *(f"after {call.split()[0]}" for call in _calls(instance))])
    _jobs_are_done(instance)


@pytest.mark.long
def test_a_swap_killed_at_any_time(instance: Deployed) -> None:
    """Ten times, without knowledge of its steps; killed again in the second try."""
    seed = time.time_ns()
    print(f"seed {seed}")
    dice = random.Random(seed)  # noqa: S311 - chance, not secrecy
    instance.root(STALE)
    began = time.monotonic()
    assert _settle(instance).returncode == 0
    whole = time.monotonic() - began
    with load(instance) as seen:
        for _ in range(10):
            instance.root(STALE)
            for _ in range(2):
                seconds = dice.uniform(0, whole)
                instance.machine().exec(f"timeout -s KILL {seconds:.2f} {SETTLE}", check=False)
            assert _settle(instance).returncode == 0
            _slots(instance)
    assert seen.failed == []
