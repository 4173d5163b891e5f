"""`make demo` as a person runs it, by the verb `lab demo`: from no machines at all to a server that was audited."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mastodon_gov.lab import preflight
from mastodon_gov.lab.demo import REPOSITORY
from mastodon_gov.lab.lab import Lab
from tests.lab.deployed import copy_instance, instance_name

pytestmark = pytest.mark.long


@pytest.fixture
def name() -> Iterator[str]:
    """A lab that is taken down after the test."""
    preflight.check_host()
    name = instance_name("demo")
    yield name
    _run("lab", "down", "--lab", name)


def _run(*words: str) -> str:
    command = [sys.executable, "-m", "mastodon_gov.cli", *words]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_ends_with_the_way_on_and_a_second_run_changes_nothing(name: str, tmp_path: Path) -> None:
    """The address answers with the certificate of the lab's authority, the owner gets in, the audit finds nothing."""
    directory = copy_instance(tmp_path / "demo")
    said = _run("--instance", str(directory), "lab", "demo", "--lab", name)
    assert "0 failed" in re.findall(r"^audited: .*", said, re.MULTILINE)[0]
    address = re.findall(r"^  (https://\S+)  \(address ([\d.]+);", said, re.MULTILINE)[0]
    lab = Lab.open(name)
    assert address[1] == lab.machine("social").address4
    ca = (directory / "lab-ca.pem").read_text()
    lab.machine("outside").exec(["sh", "-c", "cat > /root/ca.pem"], stdin=ca)
    asked = ["curl", "-sS", "--cacert", "/root/ca.pem", "-o", "/dev/null", "-w", "%{http_code}", f"{address[0]}/about"]
    assert lab.machine("outside").exec(asked).stdout == "200"
    first_step = re.findall(r"^The owner's first step: mastodon-gov (\S+)", said, re.MULTILINE)
    assert re.search(r"password", _run("--instance", str(directory), *first_step, "--yes"), re.IGNORECASE)
    again = _run("--instance", str(directory), "lab", "demo", "--lab", name)
    assert "\n0 operations changed on 1 host(s)" in again
