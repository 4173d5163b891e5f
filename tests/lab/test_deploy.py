"""Deploying: the second run changes nothing, a plan writes nothing, and pyinfra alone does the same."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from mastodon_gov.lab.demo import REPOSITORY
from tests.lab.backups.place import set_secret
from tests.lab.deployed import Deployed, files_of, written

DRIFT = 3
EVE = "eve@laptop since 2026-11-21 09:00:00 UTC"
COMMANDS = 60  # remote commands a deploy may need to learn that nothing is to do (issue 3, "Speed")


def _pyinfra(instance: Deployed, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pyinfra", str(instance.directory / "inventory.py"), "deploy.py", *words]
    return subprocess.run(
        command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def _slots(instance: Deployed) -> dict[str, str]:
    slots: dict[str, str] = json.loads(instance.cli("status", "--json", check=False).stdout)["slots"]["active"]
    return slots


def test_second_deploy_changes_nothing(instance: Deployed) -> None:
    """Idempotent or wrong."""
    report = instance.deploy()
    assert report["changes"] == []
    assert report["hosts"] == 1
    assert report["commands"] <= COMMANDS


def test_pyinfra_alone_does_the_same(instance: Deployed) -> None:
    """pyinfra stays visible: its own command line deploys, and finds nothing to do either."""
    done = _pyinfra(instance, "-y", "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(done.stdout)["results"]
    assert [row["name"] for row in results["operations"] if row["success"] or row["error"]] == []
    assert results["operations"]


def test_plan_writes_nothing_when_there_is_nothing_to_do(instance: Deployed) -> None:
    """Exit 0, and every file of the machine is as it was."""
    before = files_of(instance.machine())
    done = instance.cli("plan")
    assert written(before, files_of(instance.machine())) == set()
    assert done.stdout.startswith("0 operations would change")


def test_plan_sees_drift_and_writes_nothing(instance: Deployed) -> None:
    """A file changed by hand is drift (exit 3); the plan names it and leaves it; the next deploy heals it."""
    instance.root("echo '# by hand' >> /etc/redis/redis.conf")
    before = files_of(instance.machine())
    done = instance.cli("plan", check=False)
    assert done.returncode == DRIFT
    assert "Redis | Write files" in done.stdout
    assert written(before, files_of(instance.machine())) == set()
    # The unit that reads the file is restarted too, although the plan could not know that yet.
    assert instance.deploy()["changes"] == ["Redis | Write files", "Redis | Run units"]
    assert "by hand" not in instance.root("cat /etc/redis/redis.conf")


def test_a_package_installed_by_hand_is_no_drift(instance: Deployed) -> None:
    """What apt, dpkg and the rotation of their logs leave behind is for root, as the audit and the next deploy want."""
    instance.root(
        "apt-get -qq -y install --reinstall netbase >/dev/null && logrotate -f /etc/logrotate.d/dpkg && "
        "logrotate -f /etc/logrotate.d/alternatives && apt-get -qq -y install --reinstall netbase >/dev/null"
    )
    assert instance.root("find /var/log -maxdepth 2 -name '*.log*' -o -name 'eipp*' | wc -l") != "0\n"
    assert json.loads(instance.cli("audit", "--control", "MFG-LOG-04", "--json").stdout)["numbers"]["passed"] == 1
    assert instance.cli("plan").stdout.startswith("0 operations would change")


def test_json_is_the_only_thing_on_stdout(instance: Deployed) -> None:
    """Machines read stdout; people get plain lines, and colours only on a terminal."""
    for words in (("deploy", "--json"), ("plan", "--json"), ("status", "--json")):
        json.loads(instance.cli(*words, check=False).stdout)
    plain = instance.cli("deploy").stdout
    assert "\x1b" not in plain
    assert "PostgreSQL" in plain


def test_a_second_deploy_at_the_same_time_is_refused(instance: Deployed) -> None:
    """The second one learns who holds the lock and since when, and the first one is not disturbed."""
    hold = f"exec 9<>/run/mastodon-gov/deploy.lock; flock 9; echo '{EVE}' >&9; sleep 600"
    instance.machine().exec(["systemd-run", "--unit=other-deploy", "--collect", "sh", "-c", hold])
    try:
        done = instance.cli("deploy", check=False)
        assert done.returncode == 1
        assert EVE in done.stderr
    finally:
        instance.root("systemctl stop other-deploy")
    assert instance.deploy()["changes"] == []


def test_no_host_is_not_success(instance: Deployed) -> None:
    """pyinfra itself ends with 0 when --limit matches nothing."""
    for verb in ("deploy", "plan"):
        assert instance.cli(verb, "--limit", "nosuchhost", check=False).returncode == 4


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("object_storage.media.secret_key", "the secret key of object_storage.media"),
        ("mail.password", "refuses to sign"),
    ],
)
def test_a_wrong_secret_is_refused_before_the_host_has_it(instance: Deployed, name: str, says: str) -> None:
    """The slots never start with a key that the service does not take."""
    path = instance.directory / "secrets.age"
    kept, before, slots = path.read_bytes(), files_of(instance.machine()), _slots(instance)
    set_secret(instance, name, "notthesecretofthiskey0815notthesecret0815")
    try:
        done = instance.cli("deploy", check=False)
    finally:
        path.write_bytes(kept)
    assert done.returncode == 1
    assert says in done.stderr
    assert written(before, files_of(instance.machine())) == set()
    assert _slots(instance) == slots
    assert instance.deploy()["changes"] == []
