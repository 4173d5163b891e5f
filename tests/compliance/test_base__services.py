"""The sandboxes that services run in: systemd's settings, and what the kernel says of the running process."""

from __future__ import annotations

import pytest

from mastodon_gov.audit.facts import Facts
from mastodon_gov.instance import Instance
from mastodon_gov.instance.flows import reaches_public
from tests.compliance.conftest import Evidence
from tests.compliance.expect import holds, none, same

# systemd's score: the measured figures. PostgreSQL's archiver may have to reach public addresses, and then no list of
# addresses closes its unit (docs/decisions/sandbox-exceptions.md).
EXPOSURE = {"web": 1.1, "sidekiq": 1.2, "streaming": 1.0, "postgresql": 1.0, "redis": 0.9, "nginx": 2.5}
PUBLIC_STORE = 0.1
# nginx's master opens ports below 1024, reads keys and hands its workers to www-data.
CAPABILITIES = {"nginx": 1 << 10 | 1 << 7 | 1 << 6 | 1 << 0 | 1 << 1}
COMPILES = {"web", "sidekiq", "streaming"}
OURS = ("/etc/systemd/system/", "/usr/lib/systemd/system/")

kinds = pytest.mark.parametrize("kind", EXPOSURE)


def running(facts: Facts, evidence: Evidence, kind: str) -> Facts:
    """The service's active unit; one that does not run has failed the check."""
    if kind not in facts["services"]:
        holds(evidence, False, "not running", "running", f"systemctl status {kind}")
    found: Facts = facts["services"][kind]
    return found


@kinds
@pytest.mark.control("MFG-SBX-01")
def test_the_sandbox_is_tight(kind: str, facts: Facts, evidence: Evidence, instance: Instance) -> None:
    unit, most = running(facts, evidence, kind), EXPOSURE[kind]
    if kind == "postgresql" and reaches_public(instance, "postgres"):
        most = round(most + PUBLIC_STORE, 1)
    good = unit["exposure"] <= most
    holds(evidence, good, unit["exposure"], f"{most} or less", f"systemd-analyze security {unit['Id']}")


@kinds
@pytest.mark.control("MFG-SBX-02")
def test_the_process_has_no_rights(kind: str, facts: Facts, evidence: Evidence) -> None:
    process = running(facts, evidence, kind)["process"]
    more = (int(process["CapEff"], 16) | int(process["CapBnd"], 16)) & ~CAPABILITIES.get(kind, 0)
    observed = {"more capabilities": f"{more:x}", "NoNewPrivs": process["NoNewPrivs"], "Seccomp": process["Seccomp"]}
    same(evidence, observed, {"more capabilities": "0", "NoNewPrivs": "1", "Seccomp": "2"}, "/proc/PID/status")


@kinds
@pytest.mark.control("MFG-SBX-03")
def test_the_process_cannot_change_programs(kind: str, facts: Facts, evidence: Evidence) -> None:
    none(evidence, running(facts, evidence, kind)["process"]["writable"], "/proc/PID/mountinfo")


@kinds
@pytest.mark.control("MFG-SBX-04")
def test_the_unit_is_ours(kind: str, facts: Facts, evidence: Evidence) -> None:
    unit = running(facts, evidence, kind)
    wrong = [path for path in unit["DropInPaths"].split() if not path.endswith("/60-mfg.conf")]
    wrong += [path for path in [unit["FragmentPath"]] if not path.startswith(OURS)]
    none(evidence, wrong, f"systemctl show {unit['Id']}")


@kinds
@pytest.mark.control("MFG-SBX-04")
def test_the_unit_is_what_is_written(kind: str, facts: Facts, evidence: Evidence) -> None:
    unit = running(facts, evidence, kind)
    same(evidence, unit["NeedDaemonReload"], "no", f"systemctl show {unit['Id']}")


@kinds
@pytest.mark.control("MFG-SBX-05")
def test_the_unit_has_limits(kind: str, facts: Facts, evidence: Evidence) -> None:
    unit = running(facts, evidence, kind)
    observed = {key: unit[key] for key in ("MemoryMax", "TasksMax", "LimitNOFILE", "Restart")}
    again = observed["Restart"] in ("always", "on-failure")
    good = again and "infinity" not in (observed["MemoryMax"], observed["TasksMax"], observed["LimitNOFILE"])
    holds(evidence, good, observed, "limits, and started again", f"systemctl show {unit['Id']}")


@kinds
@pytest.mark.control("MFG-SBX-06")
def test_only_compilers_write_programs(kind: str, facts: Facts, evidence: Evidence) -> None:
    expected = "no" if kind in COMPILES else "yes"
    same(evidence, running(facts, evidence, kind)["MemoryDenyWriteExecute"], expected, "systemctl show")
