"""The instance's secrets are where they were declared to be, and nowhere else: not while a deploy writes them all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mastodon_gov.lab.demo import REPOSITORY
from tests.lab.deployed import Deployed
from tests.lab.watchers import PROCESSES, known_secrets, watching

# The only files of the host that hold secrets.
DECLARED = {"/etc/mastodon/mastodon.env", "/etc/msmtprc", "/etc/pgbackrest.conf"}
# The only processes that get them from systemd: Mastodon's own, as the application and as the owner of its tables.
# redis-cli is given its password by `status`, which only root can read, as it is root's.
ENVIRONMENTS = ("environment of mastodon: ", "environment of mastodon-owner: ", "environment of root: redis-cli")
WRITERS = "rm /etc/mastodon/mastodon.env /etc/msmtprc /etc/pgbackrest.conf /etc/redis/users.acl"
# Where a careless program leaves things on the control node. Labs are machines of their own; so is their world.
CONTROL = ["/tmp", "/var/tmp", "/dev/shm", "/root", str(REPOSITORY)]
LABS = "/var/tmp/mfg-lab"


def _grep_host(instance: Deployed, values: list[str]) -> set[str]:
    """Files of the whole machine that hold one of the values, and the journal."""
    patterns = "\n".join(values) + "\n"
    places = "$(ls -d /* | grep -vxE '/(proc|sys|dev)') /dev/shm"
    # Patterns come on standard input; binary files count too.
    files = instance.root(f"grep -rla --devices=skip -F -f /dev/stdin {places} 2>/dev/null; true", stdin=patterns)
    journal = instance.root(
        "cat > /run/mfg-patterns; journalctl -q --no-pager -o json-pretty -a | grep -cF -f /run/mfg-patterns; "
        "rm /run/mfg-patterns",
        stdin=patterns,
    )
    found = {path for path in files.splitlines() if path != "/run/mfg-patterns"}
    return found | ({"the journal"} if int(journal) else set())


def _grep_control(values: list[str], since: float) -> set[str]:
    """Files of the control node, written since then, that hold one of the values."""
    wanted = [value.encode() for value in values]
    found = set()
    for path in _recent(since):
        try:
            content = path.read_bytes()
        except OSError:
            continue  # gone again
        if any(value in content for value in wanted):
            found.add(str(path))
    return found


def _recent(since: float) -> Iterator[Path]:
    for place in CONTROL:
        for folder, names, files in os.walk(place):
            names[:] = [name for name in names if not f"{folder}/{name}".startswith(LABS)]
            for path in (Path(folder, name) for name in files):
                try:
                    if path.is_file() and not path.is_symlink() and path.stat().st_mtime >= since:
                        yield path
                except OSError:
                    continue


@contextmanager
def _watched(instance: Deployed, values: list[str]) -> Iterator[set[str]]:
    """Collects every process of the machine, while the block runs, that shows one of the values where others read."""
    seen: set[str] = set()
    with watching(instance.machine(), PROCESSES, SECRETS=values) as saw:
        yield seen
    assert int(str(saw["looked"])) > 100
    found = saw["found"]
    assert isinstance(found, dict)
    seen |= {where for where in found if not where.startswith(ENVIRONMENTS)}


def _pyinfra(instance: Deployed) -> str:
    """Everything that pyinfra by itself is willing to say."""
    words = [sys.executable, "-m", "pyinfra", str(instance.directory / "inventory.py"), "deploy.py"]
    done = subprocess.run(
        [*words, "-y", "--diff", "-vv", "--debug"],
        cwd=REPOSITORY,
        env=os.environ | {"PYINFRA_PROGRESS": "off"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout + done.stderr


def test_known_secrets_stay(instance: Deployed) -> None:
    """Two deploys write all of them anew, as talkative as they can be; then everything is searched."""
    values, began = known_secrets(instance.directory), time.time()
    assert len(values) > 10
    with _watched(instance, values) as shown:
        instance.root(WRITERS)
        ours = instance.cli("deploy", "-vv")
        instance.root(WRITERS)
        pyinfras = _pyinfra(instance)
        status = instance.cli("status", "--json")
    told = {"deploy -vv": ours.stdout + ours.stderr, "pyinfra --diff -vv": pyinfras, "status": status.stdout}
    assert "Write files" in told["deploy -vv"]
    assert "mastodon.env" in told["pyinfra --diff -vv"]
    assert [name for name, text in told.items() if any(value in text for value in values)] == []
    assert shown == set()
    assert _grep_host(instance, values) == DECLARED
    assert _grep_control(values, began) == set()
    assert instance.deploy()["changes"] == []


def test_the_search_finds_what_is_planted(instance: Deployed, tmp_path: Path) -> None:
    """A value that nobody knows yet, in each of the places that the test above looks at."""
    value, began = os.urandom(16).hex(), time.time()
    places = ["/tmp/planted", "/var/tmp/planted", "/dev/shm/planted", "/var/log/planted", "/opt/mastodon/planted"]
    with _watched(instance, [value]) as shown:
        instance.root(
            f"cat > /tmp/planted; for p in {' '.join(places[1:])}; do cp /tmp/planted $p; done; "
            "systemd-cat -t planted cat /tmp/planted; "
            "V=$(cat /tmp/planted) sleep 1 & sh -c 'sleep 1; :' $(cat /tmp/planted); "
            "sudo true $(cat /tmp/planted); wait",
            stdin=value,
        )
    (tmp_path / "planted").write_text(json.dumps(value))
    found = _grep_host(instance, [value])
    instance.root(f"rm {' '.join(places)}")
    assert {"arguments of root: sh", "environment of root: sleep"} <= shown
    assert {*places, "the journal", "/var/log/sudo.log"} <= found
    assert str(tmp_path / "planted") in _grep_control([value], began)
