"""organisations.yaml on the deployed instance: who leaves the file, and how many it can hold."""

from __future__ import annotations

import json

import pytest

from tests.lab.deployed import Deployed
from tests.lab.officials import official

COUNCIL = """\
  - id: council
    name: Council of Demonstrations
    domains: [council.test]
"""


def test_an_organisation_with_living_accounts_cannot_go(instance: Deployed) -> None:
    """Refused before anything is changed, and the accounts are named; off-boarded ones do not hold it back."""
    file = instance.directory / "organisations.yaml"
    kept = file.read_text()
    assert COUNCIL in kept
    with official(instance, domain="council.test") as account:
        file.write_text(kept.replace(COUNCIL, ""))
        try:
            refused = instance.cli("plan", check=False)
            assert refused.returncode == 1
            assert f"found no organisation council, but 1 of its accounts live: @{account.name}" in refused.stderr
            instance.cli("offboard", f"@{account.name}", "--why", "the council leaves")
            would = instance.cli("plan", check=False)
            assert (would.returncode, "Lock the database" in would.stdout) == (3, True), would.stderr
        finally:
            file.write_text(kept)


@pytest.mark.parametrize("state", ["domain dropped", "requested"])
def test_a_domain_with_living_accounts_cannot_go(instance: Deployed, state: str) -> None:
    """Where its organisation stays: nothing is changed, and no sweep disables them."""
    file = instance.directory / "organisations.yaml"
    kept = file.read_text()
    changed = {"domain dropped": "domains: [other.test]", "requested": "domains: [council.test]\n    state: requested"}
    with official(instance, domain="council.test") as account:
        file.write_text(kept.replace("domains: [council.test]", changed[state]))
        try:
            refused = instance.cli("plan", check=False)
            assert refused.returncode == 1
            assert "the domain council.test no more, or the state `requested`" in refused.stderr
            assert f"@{account.name}" in refused.stderr
            assert account.column("disabled") == "f"
        finally:
            file.write_text(kept)


@pytest.mark.long
def test_300_organisations_settle(instance: Deployed) -> None:
    """The second deploy changes nothing."""
    file = instance.directory / "organisations.yaml"
    kept = file.read_text()
    bodies = (f"  - id: b{n}\n    name: Body {n}\n    domains: [b{n}.test, mail.b{n}.test]\n" for n in range(300))
    file.write_text(kept + "".join(bodies))
    try:
        instance.deploy()
        assert instance.deploy()["changes"] == []
        known = json.loads(instance.sql("SELECT gov.status() -> 'organisations'"))
        assert len(known) == 302
    finally:
        file.write_text(kept)
        instance.deploy()
