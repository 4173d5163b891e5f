"""The audit without a host: catalogue and suite, exceptions, states and numbers, facts that cannot be read."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from mastodon_gov.audit.catalogue import CONTROLS, Collected, Control, Pinned, faults, load, load_pinned, read_carefully
from mastodon_gov.audit.cli import Progress
from mastodon_gov.audit.document import PAGE, page
from mastodon_gov.audit.exceptions import Accepted, apply, read_exceptions
from mastodon_gov.audit.facts import CouldNotLook, Facts, _read, hosts_of
from mastodon_gov.audit.results import Check, State, Verdict, numbers, verdict
from mastodon_gov.audit.suite import Asked, run_suite
from mastodon_gov.errors import Refusal
from mastodon_gov.instance.yaml_file import read
from roles.lib.render import facts_roles
from tests.compliance import conftest as suite
from tests.unit.instance_sample import ADDRESSES, good_directory

SSH = "MFG-SSH-01"
NONE = Pinned(format=1, always={}, lab={})


def check(state: State, *, control: str = SSH, foreseen: bool = False, reason: str = "") -> Check:
    return Check(control, "test_it", "ssh", "h", state, "seen", "wanted", "sshd -T", reason, foreseen=foreseen)


def control(id_: str = SSH) -> Control:
    return load()[id_]


def test_the_catalogue_reads_carefully_too() -> None:
    """The fast way does not see a key that stands twice."""
    assert read(CONTROLS).problems == []
    assert len(load()) >= 130
    assert {each.role for each in load().values()} >= set(facts_roles())


def test_the_page_is_the_catalogue() -> None:
    assert PAGE.read_text() == page(load().values()), "python -m mastodon_gov.audit.document"


def test_every_control_names_a_norm() -> None:
    for each in load().values():
        assert any(each.mappings.model_dump().values()), each.id


def test_the_suite_fits_the_catalogue() -> None:
    """Collection itself refuses what does not fit; it needs no host."""
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--collect-only", "tests/compliance"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=CONTROLS.parents[2], check=False)
    assert done.returncode == 0, done.stdout[-2000:]


WRONG_SUITES = {
    "no row": ([Collected("t.py::a", "ssh", ("MFG-SSH-99",))], "MFG-SSH-99 is not in controls.yaml"),
    "no mark": ([Collected("t.py::a", "ssh", ())], "has 0 marks"),
    "two marks": ([Collected("t.py::a", "ssh", (SSH, SSH))], "has 2 marks"),
    "other role": ([Collected("t.py::a", "redis", (SSH,))], "belongs to the role ssh"),
    "xfail": ([Collected("t.py::a", "ssh", (SSH,), xfail=True)], "xfail is not allowed"),
    "no test": ([Collected("t.py::a", "ssh", ("MFG-SSH-02",))], f"{SSH}: has neither a test nor a reason"),
}


@pytest.mark.parametrize("name", WRONG_SUITES)
def test_a_suite_that_does_not_fit_is_refused(name: str) -> None:
    tests, sentence = WRONG_SUITES[name]
    known = {id_: load()[id_] for id_ in (SSH, "MFG-SSH-02")}
    assert any(sentence in fault for fault in faults(known, NONE, tests))


def test_a_pinned_control_has_no_test() -> None:
    pinned = Pinned(format=1, always={SSH: "Not yet."}, lab={})
    test = Collected("t.py::a", "ssh", (SSH,))
    assert "Take it off" in faults({SSH: control()}, pinned, [test])[0]
    assert faults({SSH: control()}, NONE, [test]) == []
    assert faults({SSH: control()}, pinned, []) == []


def test_a_single_module_need_not_be_everything() -> None:
    known = {id_: load()[id_] for id_ in (SSH, "MFG-RED-01")}
    test = Collected("t.py::a", "ssh", (SSH,))
    assert faults(known, NONE, [test], everything=False) == []
    assert len(faults(known, NONE, [test])) == 1


WRONG_EDITS = {
    "level": ("level: base", "level: basic", "level: found"),
    "id": ("id: MFG-SSH-01", "id: SSH-1", "an id such as MFG-SSH-01"),
    "unknown key": (
        "    level: base\n    role: ssh",
        "    levle: base\n    level: base\n    role: ssh",
        "Did you mean level",
    ),
    "key twice": ("    level: base\n    role: ssh", "    level: base\n    level: base\n    role: ssh", "each key once"),
    "tab": ("    level: base", "\tlevel: base", "a tab"),
    "no title": ('    title: "Nobody signs in as root"\n', "", "title: found nothing"),
}


@pytest.mark.parametrize("name", WRONG_EDITS)
def test_a_wrong_edit_of_the_catalogue_is_a_sentence(name: str, tmp_path: Path) -> None:
    from mastodon_gov.audit.catalogue import Catalogue

    old, new, sentence = WRONG_EDITS[name]
    text = CONTROLS.read_text()
    begin = text.index("  - id: MFG-SSH-01")
    entry = text[begin : text.index("  - id: MFG-SSH-02")]
    assert old in entry
    path = tmp_path / "controls.yaml"
    path.write_text("format: 1\ncontrols:\n" + entry.replace(old, new, 1))
    with pytest.raises(Refusal) as refused:
        read_carefully(path, Catalogue)
    assert sentence in str(refused.value)
    assert re.match(r"controls\.yaml, line \d+", str(refused.value))


def test_an_id_that_stands_twice_is_refused(tmp_path: Path) -> None:
    text = CONTROLS.read_text()
    entry = text[text.index("  - id: MFG-SSH-01") : text.index("  - id: MFG-SSH-02")]
    path = tmp_path / "controls.yaml"
    path.write_text("format: 1\ncontrols:\n" + entry + entry)
    with pytest.raises(Refusal, match="MFG-SSH-01 2 times"):
        load(path)


def test_a_pinned_id_must_be_known(tmp_path: Path) -> None:
    path = tmp_path / "not_run.yaml"
    path.write_text('format: 1\nalways:\n  MFG-SSH-77: "Not yet."\nlab: {}\n')
    with pytest.raises(Refusal, match=r"MFG-SSH-77.*Correct or remove"):
        load_pinned(path)


STATES: dict[str, tuple[list[Check], State, bool]] = {
    "all passed": ([check(State.PASSED), check(State.PASSED)], State.PASSED, False),
    "one failed": ([check(State.PASSED), check(State.FAILED), check(State.NOT_RUN)], State.FAILED, False),
    "one could not look": ([check(State.PASSED), check(State.NOT_RUN)], State.NOT_RUN, False),
    "a probe without --probe": ([check(State.PASSED), check(State.NOT_RUN, foreseen=True)], State.PASSED, False),
    "nothing but a probe": ([check(State.NOT_RUN, foreseen=True)], State.NOT_RUN, True),
    "no test ran": ([], State.NOT_RUN, False),
}


@pytest.mark.parametrize("name", STATES)
def test_what_could_not_look_is_never_passed(name: str) -> None:
    checks, state, foreseen = STATES[name]
    found = verdict(control(), checks, {})
    assert (found.state, found.foreseen) == (state, foreseen)


def test_a_pinned_control_is_not_run_as_foreseen() -> None:
    found = verdict(control(), [], {SSH: "The product has none yet."})
    assert (found.state, found.foreseen, found.reason) == (State.NOT_RUN, True, "The product has none yet.")


def accepted(expires: str = "2027-03-31") -> Accepted:
    return Accepted.model_validate(
        {"control": SSH, "reason": "Old client.", "owner": "A. One", "accepted_by": "B. Two", "expires": expires}
    )


def excepted(state: State, expires: str = "2027-03-31") -> tuple[Verdict, list[str]]:
    judged, notes = apply([Verdict(control(), state, (check(state),))], {SSH: accepted(expires)}, date(2026, 11, 21))
    return judged[0], notes


def test_an_exception_holds_until_its_day() -> None:
    assert excepted(State.FAILED)[0].state is State.EXCEPTED
    assert excepted(State.FAILED, "2026-11-21")[0].state is State.EXCEPTED
    late, _ = excepted(State.FAILED, "2026-11-20")
    assert late.state is State.FAILED
    assert "B. Two accepted expired on 2026-11-20" in late.reason


def test_an_exception_of_what_passes_is_reported() -> None:
    judged, notes = excepted(State.PASSED)
    assert judged.state is State.PASSED
    assert notes == [f"{SSH} passes: take its exception out of exceptions.yaml."]


def test_an_exception_never_excuses_not_looking() -> None:
    assert excepted(State.NOT_RUN)[0].state is State.NOT_RUN


GOOD = """format: 1
exceptions:
  - control: MFG-SSH-01
    reason: An old client.
    owner: A. One
    accepted_by: B. Two
    expires: 2027-03-31
"""
WRONG_EXCEPTIONS = {
    "unknown control": ("MFG-SSH-01", "MFG-SSH-77", "a control of docs/auditor/controls.md"),
    "no day": ("2027-03-31", "soon", 'a day such as "2027-03-31"'),
    "no owner": ("    owner: A. One\n", "", "owner: found nothing"),
    "accepts himself": ("B. Two", "A. One", "two people"),
    "unknown key": ("    owner:", "    ticket: 7\n    owner:", "an unknown key"),
    "key twice": ("    owner:", "    reason: Another.\n    owner:", "each key once"),
    "no list": ("exceptions:", "exceptions: none\nother:", "a list"),
    "empty": (GOOD, "", "exceptions.yaml"),
}


def test_exceptions_are_read(tmp_path: Path) -> None:
    assert read_exceptions(tmp_path) == {}
    (tmp_path / "exceptions.yaml").write_text(GOOD)
    assert read_exceptions(tmp_path)[SSH].expires == date(2027, 3, 31)


@pytest.mark.parametrize("name", WRONG_EXCEPTIONS)
def test_wrong_exceptions_are_sentences(name: str, tmp_path: Path) -> None:
    old, new, sentence = WRONG_EXCEPTIONS[name]
    assert old in GOOD
    (tmp_path / "exceptions.yaml").write_text(GOOD.replace(old, new, 1))
    with pytest.raises(Refusal) as refused:
        read_exceptions(tmp_path)
    assert sentence in str(refused.value)


def test_a_control_twice_is_refused(tmp_path: Path) -> None:
    entry = GOOD.partition("exceptions:\n")[2]
    (tmp_path / "exceptions.yaml").write_text(GOOD + entry)
    with pytest.raises(Refusal, match="twice"):
        read_exceptions(tmp_path)


def test_facts_that_were_not_seen_stop_a_check() -> None:
    """At any depth, and by whichever way they are taken out."""
    facts = Facts({"good": {"a": [1]}, "bad": {"error": "no such program"}, "deep": {"x": {"error": "gone"}}})
    assert facts["good"]["a"] == [1]
    takes: list[Any] = [
        lambda: facts["bad"],
        lambda: facts.get("bad"),
        lambda: facts["deep"]["x"],
        lambda: dict(facts["deep"].items()),
        lambda: list(facts["deep"].values()),
        lambda: facts["never told"],
    ]
    for take in takes:
        with pytest.raises(CouldNotLook):
            take()
    assert facts.get("never told", "default") == "default"


ANSWERS = {
    "junk": ((0, "Hello\n", ""), "6 characters that are not JSON"),
    "a list": ((0, "[1]", ""), "not a group of facts"),
    "a traceback": ((1, "", "Traceback (most recent call last):\n  File x\nKeyError: 'a'"), "KeyError: 'a'"),
    "no program": ((1, "", "sudo: /usr/local/lib/mastodon-gov/facts/redis: command not found"), "deploy."),
    "no right": ((1, "", "sudo: a password is required"), "may not run"),
    "too slow": ((124, "", ""), "ended with 124"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_program_that_says_nothing_useful_is_an_error(name: str) -> None:
    (code, out, err), sentence = ANSWERS[name]
    told = _read("social", "redis", code, out, err)
    assert set(told) == {"error"}
    assert sentence in told["error"]
    assert "social" in told["error"]


def test_what_junk_says_is_not_shown() -> None:
    """It may be anything, a secret too."""
    assert "hunter2" not in _read("social", "redis", 0, "hunter2", "")["error"]


def test_roles_have_hosts_without_secrets(tmp_path: Path) -> None:
    """An auditor has neither the identity nor the release."""
    from mastodon_gov.inventory import members

    known = members(good_directory(tmp_path / "instance"))
    assert hosts_of("ssh", known) == ["social"]
    assert hosts_of("postgresql", {**known, "database": ["db1"]}) == ["db1"]
    with pytest.raises(Refusal, match="no host"):
        hosts_of("ssh", {})


def test_the_auditor_may_run_the_facts_programs_and_nothing_else() -> None:
    """Exactly these, without arguments."""
    from roles.base import role as base
    from tests.unit.test_roles import sample

    text = next(entry.content for entry in base.files(sample()) if entry.path == "/etc/sudoers.d/10-mfg")  # type: ignore[union-attr]  # it is a file
    rules = [line for line in text.splitlines() if "mfg-audit" in line]
    programs = [f"/usr/local/lib/mastodon-gov/facts/{role}" for role in facts_roles()]
    assert rules == [f'%mfg-audit ALL=(root) NOPASSWD: {program} ""' for program in programs]


def test_numbers_count_controls() -> None:
    verdicts = [Verdict(control(), state) for state in (State.PASSED, State.PASSED, State.FAILED)]
    assert numbers(verdicts) == {State.PASSED: 2, State.FAILED: 1, State.EXCEPTED: 0, State.NOT_RUN: 0}


def test_a_role_without_host_and_a_host_that_is_away_are_not_run(tmp_path: Path) -> None:
    """Half of the roles are missing and nothing answers: no check passes, and every one says why."""
    directory = good_directory(tmp_path / "instance")
    (directory / "addresses.yaml").write_text(ADDRESSES.replace("10.99.0.11", "127.0.0.9"))
    (directory / "known_hosts").write_text("")
    inventory = directory / "inventory.py"
    inventory.write_text(inventory.read_text().replace('"redis": ["social"],', ""))
    checks, session = run_suite(Asked(directory, groups=("RED", "SSH"), controls=("MFG-RED-01", SSH)), lambda _: None)
    assert {check.state for check in checks} == {State.NOT_RUN}
    why = {check.control: check.reason for check in checks}
    assert why["MFG-RED-01"] == "No host of inventory.py has the role redis."
    assert why[SSH].startswith("social: no SSH connection")
    assert set(session.unreachable) == {"social"}


def test_a_terminal_obeys_nothing_a_host_says(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither escape sequences nor rich's own marks."""
    told = Check(SSH, "test_it", "ssh", "h", State.FAILED, "\x1b]0;evil\x07[/] [bold]" + "x" * 9999, "no", "sshd -T")
    progress = Progress(Console(force_terminal=False))
    progress(told)
    progress.close_role()
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "[bold]" in shown
    assert "1 failed" in shown
    assert len(shown) < 1000


def ended(state: str, error: BaseException | None, *, seen: bool) -> tuple[str, State | None, str]:
    """How the suite ends a check: pytest's outcome, our state, the reason."""
    item = SimpleNamespace(stash=pytest.Stash(), path=Path("test_ssh.py"), config=None)
    item.stash[suite.RECORD] = {"observed": "no"} if seen else {}
    call = SimpleNamespace(start=0.0, when="call", excinfo=SimpleNamespace(value=error) if error else None)
    report = SimpleNamespace(outcome=state, longrepr=None)
    running: Any = suite.pytest_runtest_makereport(item, call)  # type: ignore[arg-type]  # as much of them as is used
    next(running)
    with pytest.raises(StopIteration):
        running.send(report)
    record = item.stash[suite.RECORD]
    return report.outcome, record.get("state"), record.get("reason", "")


def test_a_check_that_records_nothing_fails() -> None:
    assert ended("passed", None, seen=True) == ("passed", None, "")
    assert ended("passed", None, seen=False) == ("failed", State.FAILED, "The check recorded no evidence.")


def test_only_an_assertion_is_a_failure() -> None:
    """A check that breaks has not looked."""
    assert ended("failed", AssertionError("no is yes"), seen=True)[:2] == ("failed", State.FAILED)
    for error in (CouldNotLook("gone"), KeyError("a"), TypeError("b"), Refusal("c")):
        assert ended("failed", error, seen=True)[:2] == ("skipped", State.NOT_RUN)
    assert "KeyError" in ended("failed", KeyError("a"), seen=True)[2]


def test_the_example_of_the_page_is_right(tmp_path: Path) -> None:
    text = (PAGE.parent / "exceptions.md").read_text().split("```\n")[1]
    (tmp_path / "exceptions.yaml").write_text(text)
    assert list(read_exceptions(tmp_path)) == ["MFG-SSH-04"]
