"""A reboot, and services that are away in the middle of a deploy: a sentence in bounded time, and healing."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mastodon_gov.lab.cgroups import wait_until
from tests.lab.deployed import MEDIA, WEB, Deployed
from tests.lab.edits import edited

BOUND = 240  # seconds in which a deploy must say that something is away, with other tests beside it
S3, SUBMISSION, ACME = 443, 587, 14000


@contextmanager
def silent(instance: Deployed, port: int) -> Iterator[None]:
    """The world answers nothing on this port, neither to the hosts nor to us: packets get lost."""

    def nft(rules: str) -> None:
        words = ["nsenter", "--net", f"--target={instance.machine('world').leader}", "nft", "-f", "-"]
        subprocess.run(words, input=rules, text=True, check=True)

    nft(
        "table inet away {\n chain input {\n  type filter hook input priority -300;\n"
        f"  meta l4proto {{ tcp, udp }} th dport {port} drop\n }}\n}}\n"
    )
    try:
        yield
    finally:
        nft("delete table inet away")


def _refused(instance: Deployed, *words: str) -> str:
    """What a deploy says that ends with 1, in time and without a traceback."""
    began = time.monotonic()
    done = instance.cli("deploy", *words, check=False)
    print(f"ended after {time.monotonic() - began:.0f} s: {done.stderr}")
    assert done.returncode == 1
    assert time.monotonic() - began < BOUND
    assert "Traceback" not in done.stdout + done.stderr
    return done.stderr


def _heals(instance: Deployed) -> None:
    instance.deploy()
    assert instance.deploy()["changes"] == []


def test_storage_away(instance: Deployed) -> None:
    """The deploy that has something to do changes nothing of it: the buckets come first."""
    settings = "stat -c %Y /etc/mastodon/mastodon.env"
    before = instance.root(settings)
    with edited(instance, "  port: 587\n", "  port: 587\n  reply_to: answers@agency.test\n"):
        with silent(instance, S3):
            said = _refused(instance)
        assert "https://s3.world.test" in said
        assert "object_storage.endpoint" in said
        assert instance.root(settings) == before
        _heals(instance)
    _heals(instance)


def test_storage_away_from_the_host_only(instance: Deployed) -> None:
    """We reach it, the host does not: its backups cannot be looked at, and that is the sentence."""
    instance.demo.lab.cut("social", "world")
    try:
        said = _refused(instance)
    finally:
        instance.demo.lab.heal("social", "world")
    assert "bucket social-backups at https://s3.world.test" in said
    assert "the way from the host to the service" in said
    _heals(instance)


def test_relay_away(instance: Deployed) -> None:
    """A deploy sends no mail to a host that is ours and ends; `check` tries the relay and names it."""
    with silent(instance, SUBMISSION):
        began = time.monotonic()
        assert instance.deploy()["changes"] == []
        done = instance.cli("check", check=False)
    assert time.monotonic() - began < BOUND
    assert done.returncode == 1
    assert "mail.world.test" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert instance.cli("check").returncode == 0


def test_authority_away(instance: Deployed) -> None:
    """A host that lost its certificate goes on with a placeholder, says why, and gets a new one later."""
    with silent(instance, ACME):
        instance.root(f"certbot delete -n --cert-name {WEB}")
        said = _refused(instance)
    assert f"https://acme.world.test:14000/dir gave no certificate for {WEB}, {MEDIA}" in said
    assert "certificates.acme in instance.yaml" in said
    _heals(instance)
    assert instance.status_of(f"https://{WEB}/about") == 200


def test_reboot(instance: Deployed) -> None:
    """Everything comes back by itself: the same slot, the firewall, the page, and nothing to deploy."""
    before = json.loads(instance.cli("status", "--json").stdout)
    rules = instance.root("nft -s list ruleset")
    leader = instance.machine().leader
    instance.machine().exec(["systemctl", "reboot"], check=False)
    wait_until(lambda: instance.machine().leader not in (leader, None), 90, "social did not start again")
    wait_until(lambda: instance.cli("status", check=False).returncode == 0, 180, "not everything was well again")
    after = json.loads(instance.cli("status", "--json").stdout)
    assert after["slots"]["active"] == before["slots"]["active"]
    assert after["slots"]["current"] == before["slots"]["current"]
    assert instance.root("nft -s list ruleset") == rules
    assert instance.status_of(f"https://{WEB}/about") == 200
    assert instance.deploy()["changes"] == []
