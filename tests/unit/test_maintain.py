"""What maintenance reads from apt and the kernel, and what stands against it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from mastodon_gov.maintain import against, new_problems
from roles.lib.files import ManagedFile
from roles.mastodon.files import maintain
from roles.mastodon.files.journal import records
from roles.nginx import role as nginx
from tests.unit.storage_sample import node

APT = """\
Inst libssl3t64 [3.5.1-1] (3.5.4-1~deb13u1 Debian-Security:13/stable-security [amd64]) []
Inst linux-image-6.12.57+deb13-amd64 (6.12.57-1 Debian:13.2/stable [amd64])
Conf libssl3t64 (3.5.4-1~deb13u1 Debian-Security:13/stable-security [amd64])
Remv gone [1.0]
"""


def test_what_apt_would_do_is_read_from_its_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintain, "output", lambda *words: APT)
    assert maintain.upgrades() == [
        {"package": "libssl3t64", "from": "3.5.1-1", "to": "3.5.4-1~deb13u1"},
        {"package": "linux-image-6.12.57+deb13-amd64", "from": "", "to": "6.12.57-1"},
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, []),
        ({"backup": ["The last full backup is older than 26 hours."]}, ["backup: The last full backup"]),
        ({"free_mib": {"/": 4000, "/var": 1000}}, ["1000 MiB are free at /var"]),
    ],
)
def test_what_stands_against_maintenance(changes: dict[str, Any], said: list[str]) -> None:
    seen = {"backup": [], "free_mib": {"/": 4000, "/var": 4000}} | changes
    found = against(seen, without_backup=False)
    assert [words in sentence for words, sentence in zip(said, found, strict=True)] == [True] * len(said)
    assert [each for each in against(seen, without_backup=True) if each.startswith("backup")] == []


def test_what_was_wrong_before_does_not_keep_maintenance_from_its_end() -> None:
    """Begun without a fresh backup, or with a disk that fills: the same sentence with other numbers is no news."""
    before = ["The last full backup is 30 hours old.", "/ is 86 % full"]
    assert new_problems(["The last full backup is 31 hours old."], before) == []
    assert new_problems([*before, "mastodon-web@a.service has failed"], before) == ["mastodon-web@a.service has failed"]


def test_packages_that_install_restart_nothing_and_the_ban_goes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(maintain, "POLICY", policy)
    seen = []

    def fails() -> None:
        with maintain.packages_restart_nothing():
            seen.append(policy.stat().st_mode & 0o777)
            raise maintain.Failed("apt-get ended with 100")

    with pytest.raises(maintain.Failed):
        fails()
    assert seen == [0o755]
    assert not policy.exists()


def test_steps_are_written_down_with_how_they_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = tmp_path / "maintenance.jsonl"
    monkeypatch.setattr(maintain, "JOURNAL", journal)

    def fails() -> None:
        raise maintain.Failed("a held package")

    maintain.recorded("anna", "m1", "restore point", lambda: None)
    with pytest.raises(maintain.Failed):
        maintain.recorded("anna", "m1", "packages", fails)
    lines = records(journal)
    assert [(line["step"], line["event"], line.get("code")) for line in lines] == [
        ("restore point", "start", None),
        ("restore point", "end", 0),
        ("packages", "start", None),
        ("packages", "end", 1),
    ]
    assert lines[-1]["said"] == "a held package"


def test_nginx_is_renewed_by_the_number_in_its_own_pid_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that its configuration and its unit name; the successor writes its number there."""
    texts = [each.content for each in nginx.files(node()) if isinstance(each, ManagedFile) and "pid" in each.content]
    named = set(re.findall(r"^(?:pid |PIDFile=)([^;\n]+)", "\n".join(texts), re.MULTILINE))
    assert named == {str(maintain.NGINX_PID)}
    pid = tmp_path / "nginx.pid"
    pid.write_text("11\n")
    signals: list[tuple[int, int]] = []

    def kill(process: int, signal: int) -> None:
        signals.append((process, signal))
        pid.write_text("12\n")

    monkeypatch.setattr(maintain, "NGINX_PID", pid)
    monkeypatch.setattr(os, "kill", kill)
    maintain.renew_nginx()
    assert signals == [(11, 12), (11, 3)]


def test_a_job_that_runs_with_old_files_is_left_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a new libc everything maps an old one: the run itself and the nightly backup too."""
    told = {
        "mfg-maintain-1.service": "Type=simple\nTransient=yes\n",
        "mfg-backup.service": "Type=oneshot\nTransient=no\n",
        "redis-server.service": "Type=notify\nTransient=no\n",
    }
    restarted: list[str] = []

    def output(*words: str) -> str:
        if words[1] == "restart":
            restarted.append(words[2])
        return told[words[-1]] if words[1] == "show" else ""

    monkeypatch.setattr(maintain, "output", output)
    monkeypatch.setattr(maintain, "outdated", lambda: sorted(told))
    maintain.restart()
    assert restarted == ["redis-server.service"]
