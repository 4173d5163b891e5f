"""A second repository: added to a running instance, lost and found again, taken away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

import pytest

from mastodon_gov.storage.client import connect, reached
from tests.lab.backups.place import known, said, set_secret, settled, status, unreachable
from tests.lab.deployed import Deployed, wait_for
from tests.lab.edits import edited

pytestmark = pytest.mark.long
PLACE = "/srv/backups"
SECOND = "cd / && runuser -u postgres -- pgbackrest --stanza=social --repo=2"
COPY = "/var/lib/postgresql/second"


@contextmanager
def with_second(instance: Deployed, lines: str) -> Iterator[None]:
    """Deployed with a second repository; without it afterwards."""
    settled(instance)
    with edited(instance, "  keep_full: 2\n", f"  keep_full: 2\n  second:\n{lines}"):
        instance.deploy()
        yield
        assert instance.deploy()["changes"] == []
    instance.deploy()
    settled(instance)
    assert "second" not in status(instance)
    assert instance.root("find /etc/systemd/system -name 'mfg-backup-second*'") == ""
    assert instance.root("systemctl list-units --all --no-legend 'mfg-backup-second*'") == ""
    assert instance.deploy()["changes"] == []


def arrived(instance: Deployed, wal: str, number: int) -> bool:
    """Whether a repository has this piece of the WAL."""
    tool = f"cd / && runuser -u postgres -- pgbackrest --stanza=social --repo={number}"
    return wal in instance.root(f"{tool} repo-ls --recurse archive/social")


def holds_all(instance: Deployed) -> None:
    """WAL arrives in both, and a database comes back from the second alone."""
    wal = "select pg_walfile_name(pg_switch_wal())"
    name = instance.root(f"runuser -u postgres -- psql -XAtqc 'create temp table x()' -c '{wal}'").split()[-1]
    for number in (1, 2):
        wait_for(partial(arrived, instance, name, number), 120, f"WAL in repository {number}")
    settled(instance)
    assert status(instance)["second"]["code"] == 0
    verify = instance.root(f"{SECOND} --output=text --verbose verify")
    assert "status: ok" in verify
    assert "status: valid" in verify
    options = f"--pg1-path={COPY} --archive-mode=off --type=immediate --spool-path=/tmp/s --lock-path=/tmp/l"
    try:
        instance.root(f"install -d -o postgres -g postgres -m 700 {COPY} && {SECOND} {options} restore")
        assert instance.root(f"cat {COPY}/PG_VERSION").strip() == "17"
    finally:
        instance.root(f"rm -rf {COPY} /tmp/s /tmp/l")


def restores_without_the_first(instance: Deployed) -> None:
    """A verified copy, with what was written after the backup, while the first repository gives no answer at all."""
    before = int(instance.root("date +%s"))
    holds_all(instance)
    with unreachable(instance):
        assert instance.cli("restore", "--list", check=False).returncode == 1
        assert "in the first repository only" in instance.cli("restore", "--list", "--repository", "2").stdout
        words = ["restore", "--to", "latest", "--repository", "2", "--json"]
        told = json.loads(instance.cli(*words, timeout=1500).stdout)
        instance.cli("restore", "--drop-beside")
    assert told["label"] in instance.root(f"{SECOND} info")
    report, last = told["done"]["verify"]["result"], told["done"]["recover"]["result"]
    assert (report["problems"], report["manifest"]) == ([], None)
    assert datetime.strptime(last[:19], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp() >= before


def test_a_file_system_of_another_machine(instance: Deployed) -> None:
    """Mounted, gone, and back: its backup fails instead of filling the host's disk, and nothing is lost."""
    mount = f"mount -t tmpfs -o size=1g,mode=750,uid=postgres,gid=postgres tmpfs {PLACE}"
    instance.root(f"mkdir -p {PLACE} && {mount}")
    try:
        with with_second(instance, f"    directory: {PLACE}\n"):
            restores_without_the_first(instance)
            kept = instance.root(f"cd {PLACE} && tar c . | base64 -w0")
            instance.root(f"umount {PLACE}")
            done = instance.machine().exec(["systemctl", "start", "mfg-backup-second.service"], check=False)
            assert done.returncode != 0
            assert said(instance, "The second backup repository is not in order")
            assert status(instance)["repository"]["code"] == 0
            assert instance.root(f"ls {PLACE}/backup 2>/dev/null; true") == ""
            instance.root(f"{mount} && base64 -d | tar x -C {PLACE}", stdin=kept)
            instance.root("systemctl reset-failed; systemctl start mfg-backup-second.service")
            wait_for(lambda: status(instance)["archiver"]["ready"] == 0, 120, "drained")
            holds_all(instance)
    finally:
        instance.root(f"umount {PLACE}; rmdir {PLACE}; true")


def test_another_service(instance: Deployed) -> None:
    """With a key of its own, which the first bucket does not know."""
    made = "radosgw-admin user create --uid=second --display-name=second"
    (made_key,) = json.loads(instance.machine("world").exec(["sh", "-c", made]).stdout)["keys"]
    at, values = known(instance)
    key = type(values.object_storage.backups)(**{name: made_key[name] for name in ("access_key", "secret_key")})
    with reached(at) as bundle:
        connect(at, key, bundle).create_bucket(Bucket="social-copies")
    for part in ("access_key", "secret_key"):
        set_secret(instance, f"object_storage.second.{part}", made_key[part])
    with with_second(instance, f"    endpoint: {at.object_storage.endpoint}\n    bucket: social-copies\n"):
        holds_all(instance)
