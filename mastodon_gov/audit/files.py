"""Evidence as files: JSON, OSCAL, HTML, JUnit and CSV beside each other, with their digests and one signature."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mastodon_gov.audit.oscal import assessment_results
from mastodon_gov.audit.suite import ROOT
from mastodon_gov.errors import Refusal

SIGNED = "SHA256SUMS"
NAMESPACE = "mastodon-audit"
# Excel and LibreOffice take a cell that begins so for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")
COLUMNS = ("control", "level", "state", "host", "name", "observed", "expected", "command", "at", "seconds", "reason")
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def refuse_unwritable(place: Path) -> None:
    """Before the audit runs: whether its evidence can be kept. Raises Refusal."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise Refusal(
            f"--evidence {place}: found a directory that cannot be written ({error.strerror}). Allowed: one that this "
            "account may write. Correct its owner, or name another."
        ) from None


def write_evidence(report: Mapping[str, Any], place: Path, key: Path) -> Path:
    """Write and sign everything into a new directory named after the time; it appears whole or not at all.

    Raises Refusal when the key cannot sign or the disk is full.
    """
    name = re.sub(r"\+.*", "Z", report["started"]).replace(":", "-")
    final = place / name
    count = 1
    while final.exists():
        count += 1
        final = place / f"{name}-{count}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=place))
        try:
            for file, text in rendered(report).items():
                (new / file).write_text(text, encoding="utf-8")
            _sign(new, key)
            new.chmod(0o755)
            new.rename(final)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
    except OSError as error:
        raise Refusal(f"--evidence {place}: the evidence could not be written ({error.strerror}).") from None
    return final


def rendered(report: Mapping[str, Any]) -> dict[str, str]:
    """Every file by name."""
    return {
        "evidence.json": json.dumps(report, indent=1, ensure_ascii=False) + "\n",
        "assessment-results.json": json.dumps(assessment_results(report), indent=1) + "\n",
        "report.html": html(report),
        "junit.xml": junit(report),
        "checks.csv": table(report),
    }


def html(report: Mapping[str, Any]) -> str:
    """One page without scripts and without anything from elsewhere; it prints to A4."""
    pages = Environment(loader=FileSystemLoader(ROOT / "templates"), undefined=StrictUndefined, autoescape=True)
    digest = sha256(json.dumps(report, sort_keys=True).encode()).hexdigest()
    return pages.get_template("audit/report.html.j2").render(report=report, digest=digest)


def junit(report: Mapping[str, Any]) -> str:
    """As continuous integration reads it; what is excepted or did not run is skipped, never passed."""
    top = Xml.Element("testsuites", name=report["instance"])
    for control in report["controls"]:
        suite = Xml.SubElement(top, "testsuite", name=control["id"], tests=str(max(len(control["checks"]), 1)))
        for check in control["checks"] or [{"name": "", "host": "", "seconds": 0.0}]:
            case = Xml.SubElement(suite, "testcase", classname=control["id"], name=check["name"] or control["title"])
            case.set("time", str(check["seconds"]))
            _outcome(case, control, check)
    return Xml.tostring(top, encoding="unicode", xml_declaration=True)


def _outcome(case: Xml.Element, control: Mapping[str, Any], check: Mapping[str, Any]) -> None:
    state = check.get("state", "not run")
    if state == "failed" and control["state"] != "excepted":
        Xml.SubElement(case, "failure", message=_printable(check["reason"] or control["remedy"]))
    elif state != "passed":
        why = control["reason"] if state == "failed" else check.get("reason") or control["reason"]
        Xml.SubElement(case, "skipped", message=_printable(f"{control['state']}: {why}"))
    if check.get("observed"):
        out = Xml.SubElement(case, "system-out")
        out.text = _printable(f"observed {check['observed']}\nexpected {check['expected']}\n{check['command']}")


def _printable(text: str) -> str:
    return NOT_XML.sub("\ufffd", text)


def table(report: Mapping[str, Any]) -> str:
    """One row for each check, and for each control without any."""
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(COLUMNS)
    for control in report["controls"]:
        for check in control["checks"] or [{"reason": control["reason"]}]:
            state = control["state"] if control["state"] == "excepted" else check.get("state", "not run")
            values = {**check, "control": control["id"], "level": control["level"], "state": state}
            rows.writerow(_cell(str(values.get(column, ""))) for column in COLUMNS)
    return out.getvalue()


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text


def _sign(place: Path, key: Path) -> None:
    """Digests of all files, and one signature over them; a key with a passphrase asks its agent or the terminal."""
    files = sorted(place.iterdir())
    sums = "".join(f"{sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)
    (place / SIGNED).write_text(sums)
    words = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(place / SIGNED)]
    done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode or not (place / f"{SIGNED}.sig").exists():
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise Refusal(
            f"The evidence could not be signed with {key}: {last[0]}. Nothing was kept. Give another key: --sign-with."
        )
    for file in place.iterdir():
        os.chmod(file, 0o644)


def newest(place: Path) -> Path | None:
    """evidence.json of the newest audit kept in a directory; None without any."""
    kept = sorted(place.glob("[0-9]*/evidence.json")) if place.is_dir() else []
    return kept[-1] if kept else None


def read_report(path: Path) -> dict[str, Any]:
    """An earlier audit's evidence.json. Raises Refusal when it is none."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["format"] == 1 and isinstance(told["controls"], list) and isinstance(told["hosts"], dict):
            return dict(told)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise Refusal(f"--compare {path}: found no evidence of an audit. Allowed: an evidence.json of --evidence.")
