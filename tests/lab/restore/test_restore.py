"""Beside and switch, the worst day, a ransom: each on the same instance, one after the other."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mastodon_gov.instance.load import load
from mastodon_gov.lab.demo import REPOSITORY
from tests.lab.backups.place import settled, status
from tests.lab.deployed import LIB, Deployed, wait_for
from tests.lab.people import browser, tootctl
from tests.lab.restore.disaster import fetched, machine_gone, ransom
from tests.lab.restore.people import Staff, body, enter, home, picture, post, reads, staff, this_second

COPY = "/var/lib/postgresql/17/main.beside"
STEPS = "fetch recover verify".split()
SWITCH = (
    "hold stop-application stop-database swap start-database check migrate lock redis application feeds backup".split()
)
YEAR_2100 = 4102444800  # no job of then is due in a test
LONG = "start-database application feeds backup".split()
BACK = "hold stop-database branch swap start-database check".split()  # from there on it is the switch


@pytest.fixture(scope="module")
def known(doomed: Deployed) -> Staff:
    """The owner, with a second factor."""
    return staff(doomed)[0]


def tables(doomed: Deployed) -> str:
    """What stands in the running database."""
    return doomed.sql("select count(*), max(id) from statuses")


def killed(doomed: Deployed, words: list[str], step: str, tmp: Path) -> None:
    """Run a verb; as soon as the host begins a step, end both the verb and the host's program at once."""
    command = [sys.executable, "-m", "mastodon_gov.cli", "--instance", str(doomed.directory), *words]
    log = tmp / f"log-{step}"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    wait_for(lambda: f"... {step}" in log.read_text() or process.poll() is not None, 300, f"step {step}")
    doomed.root(f"pkill -9 -fx '/usr/bin/python3 -B {LIB}/restore.py .*'; true")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert f"... {step}\n" in log.read_text()
    assert f"s  {step}\n" not in log.read_text()


@pytest.mark.parametrize(
    ("to", "says"),
    [
        ("2026-01-01T00:00:00", "has no time zone"),
        ("2020-01-01T00:00:00Z", "before the end of the oldest backup"),
        ("nobody-made-this", "There is no restore point"),
        ("rm -rf /", "a time with zone, the name of a restore point, or latest"),
    ],
)
def test_a_target_that_cannot_be_reached_is_a_sentence(doomed: Deployed, to: str, says: str) -> None:
    """And nothing was begun."""
    done = doomed.cli("restore", "--to", to, check=False)
    assert done.returncode == 1
    assert says in done.stderr
    assert doomed.root(f"ls -d {COPY} {LIB}/../restore.json 2>/dev/null; true") == ""


def test_a_target_in_the_future_is_a_sentence(doomed: Deployed) -> None:
    later = f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
    done = doomed.cli("restore", "--to", later, check=False)
    assert (done.returncode, "lies in the future" in done.stderr) == (1, True)


def test_a_copy_beside_and_then_in_place(doomed: Deployed, known: Staff, tmp_path: Path) -> None:
    """A copy at a named point, killed on the way, is looked at while the instance serves; then it takes its place."""
    before = post(doomed, known, "before the point")
    doomed.root(f"{LIB}/restore-point risky")
    after = post(doomed, known, "after the point")
    doomed.root("systemctl start mfg-backup-incr.service")
    assert "risky" in doomed.cli("restore", "--list").stdout
    killed(doomed, ["restore", "--to", "risky"], "recover", tmp_path)
    assert redis(doomed, f"ZADD schedule {YEAR_2100} old-job") == "1"
    now = tables(doomed)
    told = json.loads(doomed.cli("restore", "--to", "risky", "--beside-only", "--json").stdout)
    report = told["done"]["verify"]["result"]
    assert (report["secret"], report["problems"], report["lost"]["statuses"]) == ("opened", [], 1)
    words = told["psql"].removeprefix("sudo -u postgres ")
    shown = doomed.root(f"cd / && runuser -u postgres -- {words} -qtAc 'table statuses'")
    assert (before in shown, after in shown) == (True, False)
    refused = doomed.root("runuser -u postgres -- psql -h /run/mfg-beside -p 5499 -c 'create table x()' 2>&1; true")
    assert "read-only transaction" in refused
    assert tables(doomed) == now
    killed(doomed, ["restore", "--switch"], "start-database", tmp_path)
    plan = doomed.cli("deploy", check=False)
    assert "a restore was interrupted while it switched databases" in plan.stderr
    doomed.cli("restore", "--switch")
    held(doomed, before)
    assert "is held" in doomed.cli("status", check=False).stdout
    doomed.cli("restore", "--open")
    assert (reads(doomed, before), reads(doomed, after)) == (200, 404)
    assert before in home(doomed, known)
    assert redis(doomed, "ZSCORE schedule old-job") == ""
    refusal, said = tootctl(doomed, "media", "remove-orphans")
    assert (refusal, "this database was restored" in said) == (1, True)
    doomed.cli("restore", "--sign-off")
    assert doomed.root("ls /var/lib/postgresql/17").split() == ["main"]
    before_the_first_backup(doomed)
    one_history(doomed)
    doomed.deploy()
    assert doomed.deploy()["changes"] == []


def one_history(doomed: Deployed) -> None:
    """The monitor follows what is written now; what was given up lies beside it in the repository."""
    settled(doomed)
    seen = status(doomed)
    assert (seen["wal"]["base"], seen["wal"]["holes"]) == (seen["label"], 0)
    doomed.root("systemctl start mfg-backup-verify.service")
    assert status(doomed)["verify"]["holes"] == 0


def redis(doomed: Deployed, words: str) -> str:
    """What Redis answers the application."""
    url = "URL=$(sed -n s/^REDIS_URL=//p /etc/mastodon/mastodon.env)"
    return doomed.root(f'{url}; redis-cli -u "$URL" --no-auth-warning {words}').strip()


def before_the_first_backup(doomed: Deployed) -> None:
    """A moment of the new history of which only an older backup knows; the newest one of that time lies on the branch
    that was given up."""
    told = json.loads(doomed.root("cd / && runuser -u postgres -- pgbackrest --repo=1 --output=json info"))
    newest = [each for each in told[0]["backup"] if each["type"] == "full"][-1]
    moment = f"{datetime.fromtimestamp(newest['timestamp']['start'] + 1, UTC):%Y-%m-%dT%H:%M:%SZ}"
    told = json.loads(doomed.cli("restore", "--to", moment, "--json", timeout=1500).stdout)
    assert told["label"] < newest["label"]
    assert told["done"]["verify"]["result"]["problems"] == []
    doomed.cli("restore", "--drop-beside")


def held(doomed: Deployed, number: str) -> None:
    """Nobody outside reaches it, and it reaches nobody: no mail, no federation."""
    assert reads(doomed, number) == 503
    relay = doomed.demo.world.address4
    for user in ("mastodon", "mastodon-owner"):
        for place in (f"{relay}/587", "1.1.1.1/443"):
            probe = f"runuser -u {user} -- timeout 5 bash -c '</dev/tcp/{place}' 2>&1; echo $?"
            assert doomed.root(probe).split()[-1] == "1", place
    counted = doomed.root("nft list counter inet mfg_held refused")
    assert int(counted.split("packets ")[1].split()[0]) >= 4


def test_the_worst_day(doomed: Deployed, known: Staff, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is deleted. From the bucket, an identity and the bundle an empty one becomes the instance again, at
    a chosen second; the same second factor opens the same account."""
    before, seen = post(doomed, known, "before the second"), picture(doomed, known)
    second = this_second(doomed)
    after = post(doomed, known, "after the second")
    doomed.root(f"{LIB}/restore-point last")
    machine_gone(doomed)
    again = fetched(doomed, tmp_path / "again", monkeypatch)
    again.cli("bootstrap", "social", "--key", str(doomed.demo.lab.root_key))
    began = time.monotonic()
    told = json.loads(again.cli("restore", "--onto-empty", "--to", second, "--json", timeout=1500).stdout)
    print(f"{time.monotonic() - began:.0f} s: {told['phases']}")
    held(again, before)
    again.cli("restore", "--open")
    assert (reads(again, before), reads(again, after), again.status_of(seen)) == (200, 404, 200)
    assert enter(browser(again), known) == 200
    again.cli("restore", "--sign-off")
    again.deploy()
    assert again.deploy()["changes"] == []
    (doomed.directory / "known_hosts").write_text((again.directory / "known_hosts").read_text())


@pytest.mark.long
def test_a_ransom_ends_with_everything_back(
    doomed: Deployed, known: Staff, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stolen key deletes and overwrites all it can, in both buckets."""
    number, seen = post(doomed, known, "before the ransom"), picture(doomed, known)
    doomed.root(f"{LIB}/restore-point safe")
    moment = ransom(doomed)
    assert "with --as-of" in doomed.cli("restore", "--list", check=False).stderr
    again = fetched(doomed, tmp_path / "again", monkeypatch, moment)
    assert (again.directory / "instance.yaml").read_text() == (doomed.directory / "instance.yaml").read_text()
    doomed.cli("restore", "--to", "latest", "--as-of", moment, "--switch", timeout=1500)
    doomed.cli("restore", "--open")
    doomed.cli("restore", "--media-to", moment)
    assert (reads(doomed, number), doomed.status_of(seen)) == (200, 200)
    assert body(doomed, seen).startswith(b"\x89PNG")
    doomed.cli("restore", "--sign-off")
    assert load(doomed.directory).backups.stanza in doomed.cli("restore", "--list", "--json").stdout


def dies(doomed: Deployed, words: list[str], step: str) -> None:
    """Run a verb whose program ends itself when a step is done and not yet written down: the worst moment of each,
    also of those that are too quick to be hit from outside."""
    program = f"{LIB}/state.py"
    line = f"            result = work(); name == {step!r} and os.kill(os.getpid(), 9)"
    doomed.root(f"cp -p {program} {program}.kept")
    try:
        doomed.root(f'sed -i "s/^            result = work()$/{line}/" {program}; ! cmp -s {program} {program}.kept')
        done = doomed.cli(*words, check=False, timeout=1500)
    finally:
        doomed.root(f"mv {program}.kept {program}")
    assert (done.returncode, f"... {step}\n" in done.stderr) == (1, True), done.stderr
    assert step not in json.loads(doomed.cli("restore", "--state", "--json").stdout)["done"]


def timelines(doomed: Deployed) -> list[int]:
    """The timeline of each full backup, oldest first."""
    told = json.loads(doomed.root("cd / && runuser -u postgres -- pgbackrest --repo=1 --output=json info"))
    return [int(each["archive"]["stop"][:8], 16) for each in told[0]["backup"] if each["type"] == "full"]


@pytest.mark.long
def test_a_wrong_moment_is_taken_back(doomed: Deployed, known: Staff) -> None:
    """Once it is open and written to, too; killed at the end of each step of its own. Then a restore to the newest
    moment, which is taken back before it is open, and one to a moment between the two ways back."""
    kept = post(doomed, known, "before the second")
    doomed.root("systemctl start mfg-backup.service")
    second = this_second(doomed)
    lost = post(doomed, known, "after the second")
    doomed.cli("restore", "--to", second, "--switch", timeout=1500)
    doomed.cli("restore", "--open")
    given_up = post(doomed, known, "on the wrong history")
    assert (reads(doomed, kept), reads(doomed, lost), reads(doomed, given_up)) == (200, 404, 200)
    for step in BACK:
        dies(doomed, ["restore", "--back"], step)
    doomed.cli("restore", "--back", timeout=1500)
    held(doomed, lost)
    doomed.cli("restore", "--open")
    assert (reads(doomed, kept), reads(doomed, lost), reads(doomed, given_up)) == (200, 200, 404)
    assert [name[:14] for name in doomed.root("ls /var/lib/postgresql/17").split()] == ["main", "main.given-up-"]
    doomed.cli("restore", "--sign-off")
    assert doomed.root("ls /var/lib/postgresql/17").split() == ["main"]
    later = post(doomed, known, "after the way back")
    between = this_second(doomed)
    latest = post(doomed, known, "after that second")
    doomed.cli("restore", "--to", "latest", "--switch", timeout=1500)
    doomed.cli("restore", "--back", timeout=1500)
    *older, newest = timelines(doomed)
    assert newest > max(older)
    doomed.cli("restore", "--open")
    doomed.cli("restore", "--sign-off")
    doomed.cli("restore", "--to", between, "--switch", timeout=1500)
    doomed.cli("restore", "--open")
    assert [reads(doomed, each) for each in (kept, lost, later, latest)] == [200, 200, 200, 404]
    doomed.cli("restore", "--sign-off")
    doomed.deploy()
    assert doomed.deploy()["changes"] == []


@pytest.mark.long
def test_killed_at_each_step_it_goes_on(doomed: Deployed, known: Staff, tmp_path: Path) -> None:
    """The same command again goes on; killed in the middle of the long steps, and at the end of every one."""
    number = post(doomed, known, "before the kills")
    for step in STEPS:
        killed(doomed, ["restore", "--to", "latest"], step, tmp_path)
        dies(doomed, ["restore", "--to", "latest"], step)
    doomed.cli("restore", "--to", "latest", timeout=1500)
    for step in SWITCH:
        if step in LONG:
            killed(doomed, ["restore", "--switch"], step, tmp_path)
        dies(doomed, ["restore", "--switch"], step)
    doomed.cli("restore", "--switch", timeout=1500)
    doomed.cli("restore", "--open")
    assert reads(doomed, number) == 200
    doomed.cli("restore", "--sign-off")
    assert doomed.root("ls /var/lib/postgresql/17").split() == ["main"]
    doomed.deploy()
    assert doomed.deploy()["changes"] == []
