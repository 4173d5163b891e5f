"""The drill on the deployed instance, which it leaves as it was; and a drill whose ways out are not closed."""

from __future__ import annotations

import json
import subprocess

import pytest

from mastodon_gov.instance.load import load
from tests.lab.deployed import LIB, Deployed

SETTINGS = f"{LIB}/drill.json"


@pytest.mark.usefixtures("owner")
def test_a_drill_restores_and_its_evidence_is_signed(instance: Deployed) -> None:
    """Closed and counted, within the promised loss, a second factor opened, and nothing is left of the copy."""
    assert json.loads(instance.root(f"{LIB}/restore-point before_drill"))["archived"] is True
    told = json.loads(instance.cli("drill", "--json").stdout)
    assert (told["rc"], told["egress"], told["problems"]) == (0, "closed", [])
    assert told["blocked_packets"] >= told["probes"] - 1
    assert told["counts"]["users"] >= 1
    assert told["secret"] == "opened"
    assert 0 <= told["rpo_s"] <= 2 * load(instance.directory).backups.archive_timeout + 120
    evidence = max((instance.directory / "drills").glob("*.json"))
    signers = instance.directory / "drills" / "signers"
    signers.write_text(f"operator {(instance.directory / 'deploy_key.pub').read_text()}")
    signature = evidence.with_name(f"{evidence.name}.operator.sig")
    check = [
        "ssh-keygen",
        "-Y",
        "verify",
        "-f",
        str(signers),
        "-I",
        "operator",
        "-n",
        "mastodon-drill",
        "-s",
        str(signature),
    ]
    assert subprocess.run(check, input=evidence.read_bytes(), capture_output=True, check=False).returncode == 0
    forged = evidence.read_bytes().replace(b'"rc": 0', b'"rc": 1')
    assert subprocess.run(check, input=forged, capture_output=True, check=False).returncode != 0
    assert (
        instance.root("ls -A /var/lib/mfg-drill; ls -d /run/mfg-drill 2>/dev/null; nft list tables | grep drill; true")
        == ""
    )
    seen = json.loads(instance.cli("status", "--json", check=False).stdout)
    assert seen["drill"]["last"]["rc"] == 0


def test_a_way_out_ends_the_drill_before_anything_is_fetched(instance: Deployed) -> None:
    """The probe leads to the one place that is open: the drill must notice that something answers."""
    kept = instance.root(f"cat {SETTINGS}")
    opened = json.loads(kept) | {"probes": [[instance.demo.world.address4, 443]]}
    try:
        instance.root(f"cat > {SETTINGS}", stdin=json.dumps(opened))
        done = instance.cli("drill", "--json", check=False)
        told = json.loads(done.stdout)
        assert (done.returncode, told["rc"], told["egress"]) == (1, 10, "open")
        assert "restore" not in told["steps"]
    finally:
        instance.root(f"cat > {SETTINGS}", stdin=kept)
        instance.root("rm /var/lib/mastodon-gov/drills/$(ls /var/lib/mastodon-gov/drills | grep json$ | tail -1)*")
