"""A change that locks us out: the deploy says so, and within a minute the host is as it was."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mastodon_gov.lab.demo import REPOSITORY
from tests.lab.deployed import Deployed
from tests.lab.edits import edited, keypair, may_sign_in

BACK_WITHIN = 70  # seconds: the host waits 60 for our confirmation
TIMERS = "systemctl is-active mfg-ssh-rollback.timer mfg-firewall-rollback.timer mfg-deploy-keys-rollback.timer; true"


def _deploy(instance: Deployed, product: Path = REPOSITORY) -> str:
    """pyinfra alone, because the preflight might be faster than the host; returns what it said."""
    words = [sys.executable, "-m", "pyinfra", str(instance.directory / "inventory.py"), "deploy.py", "-y"]
    environment = os.environ | {"PYTHONPATH": str(product), "PYINFRA_PROGRESS": "off"}
    done = subprocess.run(
        words,
        cwd=product,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    return done.stdout + done.stderr


def _comes_back(instance: Deployed, live: str, before: str) -> None:
    """We cannot sign in now; soon we can, the old state is live, and a deploy has nothing left to do after one."""
    key = instance.directory / "deploy_key"
    deadline = time.monotonic() + BACK_WITHIN
    assert not may_sign_in(instance, key, "deploy")
    while not may_sign_in(instance, key, "deploy"):
        assert time.monotonic() < deadline
    assert instance.root(live) == before
    assert "active" not in instance.root(TIMERS).split()
    instance.deploy()
    assert instance.deploy()["changes"] == []


def test_firewall_without_the_control_node(instance: Deployed) -> None:
    """The rules that no longer know us are taken back by the host itself."""
    rules = "nft -s list ruleset"
    before = instance.root(rules)
    with edited(instance, "networks: [control]", "networks: [192.0.2.0/28]"):
        said = _deploy(instance)
    assert "Check access.networks and access.deploy_keys in instance.yaml" in said
    _comes_back(instance, rules, before)


@pytest.mark.long
def test_a_restart_before_the_confirmation(instance: Deployed) -> None:
    """The timer is gone with the restart; what nobody confirmed is taken back all the same."""
    rules = "nft -s list ruleset"
    before = instance.root(rules)
    with edited(instance, "networks: [control]", "networks: [192.0.2.0/28]"):
        _deploy(instance)
    instance.machine().kill()
    instance.machine().start()
    assert instance.root(rules) == before
    instance.deploy()
    assert instance.deploy()["changes"] == []


@pytest.mark.long
def test_keys_without_ours(instance: Deployed, tmp_path: Path) -> None:
    """A list of deploy keys that lacks the one we came with."""
    key, public = keypair(tmp_path, "other")
    keys = "cat /etc/ssh/keys/deploy"
    before = instance.root(keys)
    with edited(instance, "deploy_keys: [deploy_key.pub]", f'deploy_keys: ["{public}"]'):
        said = _deploy(instance)
    assert "The host restores the old state" in said
    _comes_back(instance, keys, before)
    assert not may_sign_in(instance, key, "deploy")


@pytest.mark.long
def test_sshd_that_refuses_our_group(instance: Deployed, tmp_path: Path) -> None:
    """A mistake of ours: a copy of the product whose sshd lets other groups in."""
    product = tmp_path / "product"
    for name in ("mastodon_gov", "roles", "templates"):
        shutil.copytree(REPOSITORY / name, product / name)
    shutil.copy(REPOSITORY / "deploy.py", product)
    (product / "releases").symlink_to(REPOSITORY / "releases")
    template = product / "templates/ssh/etc/ssh/sshd_config.d/10-mfg.conf.j2"
    text = template.read_text()
    assert text.count("AllowGroups mfg-admin mfg-deploy") == 1
    template.write_text(text.replace("AllowGroups mfg-admin mfg-deploy", "AllowGroups mfg-admin"))
    settings = "sshd -T | sort"
    before = instance.root(settings)
    assert "a new SSH connection failed" in _deploy(instance, product)
    _comes_back(instance, settings, before)
