"""The deployed instance keeps the contract: every check that real Mastodon 4.6.5 passes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mastodon_gov.lab.demo import REPOSITORY
from tests.lab.deployed import LIB, WEB, Deployed

SHARED = REPOSITORY.parent / "shared"
CONTRACT = SHARED / "contract/contract.py"
COLUMNS = SHARED / "reference/data/columns-4.6.5.tsv"
PORTS = {"a": (3000, 4000), "b": (3001, 4001)}
PLACE = "/run/contract"


def _copy(instance: Deployed, file: Path) -> str:
    place = f"{PLACE}/{file.name}"
    instance.root(f"mkdir -p {PLACE}; cat > {place}", stdin=file.read_text())
    return place


@pytest.mark.skipif(not CONTRACT.exists(), reason=f"the contract's checks are not here: {CONTRACT} does not exist")
def test_the_instance_keeps_the_contract(instance: Deployed) -> None:
    """No check differs. It runs on the host as root, past nginx, against the active slot."""
    active = json.loads(instance.root(f"{LIB}/slots.py status"))["active"].removeprefix("slot/")
    web, streaming = PORTS[active]
    words = ["python3", _copy(instance, CONTRACT), "--release", "/opt/mastodon/current", "--json", "--host", WEB]
    words += ["--env-file", "/etc/mastodon/mastodon.env", "--staff-domain", "agency.test"]
    words += ["--operator-user", "mastodon-owner", "--columns", _copy(instance, COLUMNS)]
    words += ["--web", f"127.0.0.1:{web}", "--streaming", f"127.0.0.1:{streaming}"]
    done = instance.machine().exec(words, check=False)
    instance.root(f"rm -r {PLACE}")
    told = json.loads(str(done.stdout))
    assert [row for row in told["rows"] if row[1] == "DIFFERS"] == []
    assert told["count"]["ok"] >= 30, told["count"]
    assert done.returncode == 0, done.stderr
