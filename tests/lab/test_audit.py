"""The audit of the deployed demo: clean, the same for the auditor, read-only, and red or not run when it must be."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mastodon_gov.lab.demo import REPOSITORY
from tests.lab.deployed import LIB, Deployed, files_of, written
from tests.lab.edits import edited, sign_in
from tests.lab.watchers import known_secrets

FACTS = f"{LIB}/facts"
Report = dict[str, Any]


def audit(instance: Deployed, *words: str, code: int | None = 0) -> Report:
    """The JSON of an audit that must end with this exit code."""
    done = instance.cli("audit", "--json", *words, check=False)
    assert done.stdout, done.stderr[-3000:]
    told: Report = json.loads(done.stdout)
    assert code is None or done.returncode == code, f"{done.returncode}: {failed(told)} {reasons(told)} {told['notes']}"
    return told


def states(report: Report) -> dict[str, str]:
    return {each["id"]: each["state"] for each in report["controls"]}


def failed(report: Report) -> set[str]:
    return {id_ for id_, state in states(report).items() if state == "failed"}


def reasons(report: Report) -> dict[str, str]:
    """Why controls did not run although the pinned list does not say so."""
    return {c["id"]: c["reason"] for c in report["controls"] if c["state"] == "not run" and not c["foreseen"]}


def test_the_base_level_is_clean_and_the_auditor_sees_the_same(instance: Deployed) -> None:
    """As deploy, as the auditor: the same states; and nothing was written on the host."""
    before = files_of(instance.machine())
    ours = audit(instance)
    theirs = audit(instance, "--as-auditor")
    assert written(before, files_of(instance.machine())) == set()
    assert ours["numbers"]["failed"] == 0
    assert not reasons(ours)
    assert states(theirs) == states(ours)
    assert theirs["account"] == "auditor"
    # One remote command for each role, however many checks it has.
    assert ours["remote_commands"] <= 12 < ours["checks"]


def test_the_auditor_can_do_nothing_else(instance: Deployed) -> None:
    key = instance.directory / "auditor_key"

    def tried(*words: str) -> int:
        return subprocess.run(sign_in(instance, key, "auditor", *words), capture_output=True, check=False).returncode

    assert tried(f"sudo -n {FACTS}/ssh") == 0
    for words in (
        "sudo -n true",
        "sudo -n cat /etc/shadow",
        f"sudo -n {FACTS}/ssh --help",
        f"sudo -n {FACTS}/../status.py",
        f"sudo -n -u postgres {FACTS}/ssh",
        f"sudo -n PYTHONPATH=/tmp {FACTS}/ssh",
        "cat /etc/mastodon/mastodon.env",
        f"touch {FACTS}/evil",
    ):
        assert tried(words) != 0, words


def test_no_facts_program_tells_a_secret(instance: Deployed) -> None:
    """Whoever may run them may read none of the instance's secrets."""
    told = instance.root(f"for program in {FACTS}/*; do $program; done")
    assert '"sshd"' in told
    assert not any(value in told for value in known_secrets(instance.directory))


@contextmanager
def excepting(instance: Deployed, control: str, expires: str) -> Iterator[None]:
    path = instance.directory / "exceptions.yaml"
    path.write_text(
        f"format: 1\nexceptions:\n  - control: {control}\n    reason: An old client of the press office.\n"
        f"    owner: A. One\n    accepted_by: B. Two\n    expires: {expires}\n"
    )
    try:
        yield
    finally:
        path.unlink()


def test_a_broken_setting_is_red_excepted_and_told_once(instance: Deployed, tmp_path: Path) -> None:
    """What sshd does counts, not what our file says. The history tells a change when it comes and when it goes."""
    key = str(instance.directory / "deploy_key")
    only = ("--group", "SSH", "--history", str(tmp_path), "--sign-with", key)

    def history() -> tuple[int, str]:
        done = instance.cli("audit", *only, check=False)
        return done.returncode, done.stdout

    code, told = history()
    assert (code, "0 failed" in told) == (0, True)
    assert history() == (0, "")
    dropin = "/etc/ssh/sshd_config.d/00-a.conf"
    instance.root(f"echo 'PasswordAuthentication yes' > {dropin} && systemctl reload ssh")
    try:
        code, told = history()
        assert code == 1
        assert told.startswith("changed: MFG-SSH-02: passed → failed")
        assert told.count("\n") == 1
        assert history() == (1, "")
        today = datetime.now(UTC).date()
        with excepting(instance, "MFG-SSH-02", f"{today + timedelta(days=30)}"):
            assert states(audit(instance, "--group", "SSH"))["MFG-SSH-02"] == "excepted"
        with excepting(instance, "MFG-SSH-02", f"{today - timedelta(days=1)}"):
            expired = audit(instance, "--group", "SSH", code=1)
            assert failed(expired) == {"MFG-SSH-02"}
    finally:
        instance.root(f"rm {dropin} && systemctl reload ssh")
    code, told = history()
    assert (code, told.count("\n")) == (3, 1)
    assert "MFG-SSH-02: failed → passed" in told


def test_a_listed_account_that_is_not_there(instance: Deployed) -> None:
    """Compared only where organisations.yaml lists accounts."""
    only = ("--control", "MFG-APP-07")
    assert states(audit(instance, *only)) == {"MFG-APP-07": "not run"}
    entry = "accounts:\n  - handle: nobody_here\n    kind: office\n    organisation: agency\n    owner: a@agency.test\n"
    with edited(instance, "organisations:\n", f"{entry}organisations:\n", file="organisations.yaml"):
        found = audit(instance, *only, code=1)
    assert "@nobody_here, listed only" in next(each["reason"] for each in found["controls"] if each["checks"])


def test_an_officer_who_is_not_named(instance: Deployed) -> None:
    """Read from instance.yaml on the control node."""
    with edited(instance, "  security: security@agency.test\n", ""):
        found = audit(instance, "--control", "MFG-GOV-01", code=1)
    assert failed(found) == {"MFG-GOV-01"}
    assert states(audit(instance, "--control", "MFG-GOV-01")) == {"MFG-GOV-01": "passed"}


def test_what_cannot_be_looked_at_is_not_run(instance: Deployed) -> None:
    """Junk, a program that raises, one that is missing, one that sudo refuses; and a locale that is not ours."""
    instance.root(
        f"cd {FACTS} && cp -p ssh ssh.kept && cp -p base base.kept && cp -p /etc/sudoers.d/10-mfg /root/10-mfg.kept && "
        "cp -p /etc/default/locale /root/locale.kept 2>/dev/null; "
        f"echo 'echo Hello' > {FACTS}/ssh; "
        f"sed -i 's/^def sysctl.*/&\\n    raise ValueError(\"broken on purpose\")/' {FACTS}/base; "
        "echo 'LC_ALL=tr_TR.UTF-8' > /etc/default/locale"
    )
    try:
        found = audit(instance, "--as-auditor", code=1)
        why = reasons(found)
        assert not failed(found)
        assert "not JSON" in why["MFG-SSH-01"]
        assert "broken on purpose" in why["MFG-OS-13"]
        assert states(found)["MFG-OS-02"] == "passed"
        instance.root(f"rm {FACTS}/ssh; sed -i '\\,facts/base,d' /etc/sudoers.d/10-mfg")
        why = reasons(audit(instance, "--as-auditor", "--group", "SSH", "--group", "OS", code=1))
        assert "deploy" in why["MFG-SSH-01"]
        assert "may not run" in why["MFG-OS-13"]
    finally:
        instance.root(
            f"mv {FACTS}/ssh.kept {FACTS}/ssh; mv {FACTS}/base.kept {FACTS}/base; "
            "mv /root/10-mfg.kept /etc/sudoers.d/10-mfg; "
            "rm -f /etc/default/locale; mv /root/locale.kept /etc/default/locale 2>/dev/null; true"
        )
    assert reasons(audit(instance, "--as-auditor", "--group", "SSH", "--group", "OS")) == {}


def test_a_host_that_is_away_is_a_sentence(instance: Deployed) -> None:
    """Exit code 4, soon, and no traceback."""
    address = instance.machine().address4
    network = address.rpartition(".")[0]
    with edited(instance, f'social: ["{address}"', f'social: ["{network}.250"', file="addresses.yaml"):
        began = time.monotonic()
        done = instance.cli("audit", "--group", "SSH", check=False)
    assert done.returncode == 4
    assert "social: no SSH connection" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert time.monotonic() - began < 60


def test_from_outside_only_the_web_answers(instance: Deployed) -> None:
    """Asked from the stranger's machine, where SSH must not answer; with the probe."""
    config = str(instance.demo.lab.ssh_config)
    place = ("--from", "outside", "--ssh-config", config, "--probe")
    found = audit(instance, "--group", "FW", "--group", "WEB", "--group", "CRT", *place, code=None)
    assert not failed(found)
    shown = next(each for each in found["controls"] if each["id"] == "MFG-FW-02")["checks"][0]
    assert "22" not in shown["expected"]
    assert states(found)["MFG-WEB-07"] == "passed"
    instance.root("nft insert rule inet mfg input tcp dport 22 accept")
    try:
        assert "MFG-FW-02" in failed(audit(instance, "--control", "MFG-FW-02", *place[:-1], code=1))
    finally:
        instance.root("nft -f /etc/nftables.conf")


# Commands of the page that other tests of this file run.
ELSEWHERE = ("--key INSTANCE/auditor_key", "--json")
PAGE = REPOSITORY / "docs/auditor/audit.md"


def test_the_auditors_page_works(instance: Deployed, tmp_path: Path) -> None:
    """Every command of the page, in its order, with the page's own words; the evidence verifies as it says."""
    blocks = re.findall(r"^```\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith(("mastodon-gov ", "cd "))]
    assert len(lines) == 8, "a command was added to the page or taken out: look at this test"
    signers = tmp_path / "allowed_signers"
    signers.write_text(f"auditor {(instance.directory / 'auditor_key.pub').read_text()}")
    program = f"{sys.executable} -m mastodon_gov.cli"
    for line in lines:
        if line.endswith(ELSEWHERE):
            continue
        words = line.replace("mastodon-gov", program, 1) if line.startswith("mastodon-gov") else line
        words = words.replace("INSTANCE", str(instance.directory)).replace("ALLOWED_SIGNERS", str(signers))
        done = subprocess.run(["sh", "-c", words], cwd=tmp_path, capture_output=True, text=True, check=False)
        # Nobody promises that a demo fulfils the strict level.
        assert done.returncode == 0 or ("strict" in line and "passed, " in done.stdout), (
            f"{line}\n{done.stdout[-2000:]}{done.stderr}"
        )
    report = next(tmp_path.glob("evidence/*/report.html")).read_text()
    assert "<h1>Audit of social.agency.test</h1>" in report


@pytest.mark.long
def test_ten_thousand_files_and_units(instance: Deployed) -> None:
    """A host with very many of both is slower, not wrong."""
    place = "/run/systemd/system"
    instance.root(
        "mkdir -p /var/log/many && cd /var/log/many && seq 10000 | xargs touch && chmod 640 *; "
        f"for n in $(seq 10000); do printf '[Service]\\nExecStart=true\\n' > {place}/many-$n.service; done; "
        "systemctl daemon-reload"
    )
    try:
        found = audit(instance)
        assert not failed(found)
        assert not reasons(found)
    finally:
        instance.root(f"rm -rf /var/log/many {place}/many-*.service; systemctl daemon-reload")
