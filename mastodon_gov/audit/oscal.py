"""The audit as OSCAL assessment results (NIST), JSON.

Structure: the metaschema of OSCAL 1.2.1. It knows no "skipped": what did not run is an observation without a finding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from uuid import NAMESPACE_URL, uuid4, uuid5

OSCAL = "1.2.1"
NAMESPACE = "https://mastodon-gov.invalid/ns/oscal"  # of our own properties; a name that nobody can own
PLAN = "docs/auditor/controls.md"  # our plan is the catalogue; OSCAL wants an address of it


def assessment_results(report: Mapping[str, Any]) -> dict[str, Any]:
    """The document of `report.document` in OSCAL's words."""
    hosts = {name: str(uuid5(NAMESPACE_URL, f"{report['instance']}/{name}")) for name in _hosts(report)}
    observations, findings = [], []
    for control in report["controls"]:
        seen = [_observation(control, check, hosts) for check in control["checks"] if check["name"]]
        observations += seen or [_unseen(control, report)]
        if control["state"] != "not run":
            findings.append(_finding(control, seen))
    result: dict[str, Any] = {
        "uuid": str(uuid4()),
        "title": f"Audit of {report['instance']}",
        "description": _numbers(report),
        "start": report["started"],
        "end": report["ended"],
        "reviewed-controls": {"control-selections": [_selection(report)]},
    }
    if hosts:
        items = [{"uuid": uuid, "description": f"host {name}"} for name, uuid in hosts.items()]
        result["local-definitions"] = {"inventory-items": items}
    result["observations"] = observations
    if findings:
        result["findings"] = findings
    metadata = {
        "title": f"Audit of {report['instance']}",
        "last-modified": report["ended"],
        "version": report["ended"],
        "oscal-version": OSCAL,
    }
    return {
        "assessment-results": {
            "uuid": str(uuid4()),
            "metadata": metadata,
            "import-ap": {"href": PLAN},
            "results": [result],
        }
    }


def _hosts(report: Mapping[str, Any]) -> list[str]:
    named = (check["host"] for control in report["controls"] for check in control["checks"] if check["host"])
    return list(dict.fromkeys([*report["hosts"], *named]))


def _numbers(report: Mapping[str, Any]) -> str:
    return ", ".join(f"{count} {state}" for state, count in report["numbers"].items())


def _selection(report: Mapping[str, Any]) -> dict[str, Any]:
    """The NIST controls that were looked at; OSCAL refuses an empty selection."""
    names = {
        control_id(name)
        for control in report["controls"]
        if control["state"] != "not run"
        for name in control["mappings"]["nist_800_53r5"]
    }
    if not names:
        return {"include-all": {}}
    return {"include-controls": [{"control-id": name} for name in sorted(names)]}


def control_id(name: str) -> str:
    """NIST's own spelling in OSCAL: AC-6(2) is ac-6.2."""
    return re.sub(r"\((\d+)\)", r".\1", name.lower())


def _observation(control: Mapping[str, Any], check: Mapping[str, Any], hosts: Mapping[str, str]) -> dict[str, Any]:
    told = {
        "uuid": str(uuid4()),
        "title": f"{control['id']} {check['name']}",
        "description": f"{control['title']}. {control['text']}",
        "methods": ["TEST"],
        "subjects": [{"subject-uuid": hosts[check["host"]], "type": "inventory-item"}],
        "collected": check["at"],
    }
    if check["state"] == "not run":
        return {**told, "remarks": f"Not run: {check['reason']}"}
    evidence = f"observed: {check['observed']}; expected: {check['expected']}; command: {check['command']}"
    told["relevant-evidence"] = [{"href": "evidence.json", "description": evidence}]
    return told


def _unseen(control: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "uuid": str(uuid4()),
        "title": control["id"],
        "description": f"{control['title']}. {control['text']}",
        "methods": ["TEST"],
        "collected": report["ended"],
        "remarks": f"Not run: {control['reason']}",
    }


def _finding(control: Mapping[str, Any], seen: list[dict[str, Any]]) -> dict[str, Any]:
    state = "satisfied" if control["state"] == "passed" else "not-satisfied"
    finding: dict[str, Any] = {
        "uuid": str(uuid4()),
        "title": control["title"],
        "description": control["reason"] or control["expected"],
        "target": {
            "type": "objective-id",
            "target-id": f"{control['id'].lower()}_obj",
            "status": {"state": state},
        },
    }
    if control["state"] == "excepted":
        finding["props"] = [{"name": "exception", "ns": NAMESPACE, "value": control["id"]}]
    if seen:
        finding["related-observations"] = [{"observation-uuid": each["uuid"]} for each in seen]
    return finding
