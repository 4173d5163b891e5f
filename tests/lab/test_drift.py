"""The drift timer of the control node (docs/decisions/drift.md): silent while nothing changes; a reboot of the host is
told, and followed by an audit that is kept."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from mastodon_gov.lab.cgroups import wait_until
from mastodon_gov.lab.demo import REPOSITORY
from tests.lab.deployed import Deployed

UNITS = REPOSITORY / "templates/drift"


def drift(instance: Deployed, history: Path) -> tuple[int, list[str]]:
    """Run what the unit runs: exit code, and the changes that it told."""
    found = re.search(
        r"^ExecStart=/bin/sh -c '(.*?)'$", (UNITS / "mastodon-gov-drift@.service").read_text(), re.M | re.S
    )
    assert found
    script = found[1].replace("\\\n", "").replace("$$", "$")
    script = script.replace("/srv/%i-audits", str(history)).replace("/srv/%i", str(instance.directory))
    assert "%" not in script
    done = subprocess.run(["sh", "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3), f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.returncode, [line for line in done.stdout.splitlines() if line.startswith("changed: ")]


def test_a_reboot_is_told_and_audited(instance: Deployed, tmp_path: Path) -> None:
    """Once, as the only change; every run leaves its evidence."""
    history, host = tmp_path / "audits", instance.machine()
    assert drift(instance, history)[0] == 0
    assert drift(instance, history) == (0, [])
    leader = host.leader
    host.exec(["systemctl", "reboot"], check=False)
    wait_until(lambda: host.leader not in (leader, None), 90, "social did not start again")
    wait_until(lambda: instance.cli("status", check=False).returncode == 0, 180, "not everything was well again")
    code, told = drift(instance, history)
    assert code == 3
    assert len(told) == 1, told
    assert told[0].startswith("changed: social: was started anew at ")
    assert drift(instance, history) == (0, [])
    assert len(list(history.glob("*/report.html"))) == 4


def test_the_units_are_right(instance: Deployed) -> None:
    """As systemd reads them. The timer also runs soon after the control node itself was started."""
    host = instance.machine()
    for unit in ("service", "timer"):
        text = (UNITS / f"mastodon-gov-drift@.{unit}").read_text()
        host.exec(["sh", "-c", f"cat > /run/systemd/system/mastodon-gov-drift@.{unit}"], stdin=text)
    try:
        said = host.exec(["systemd-analyze", "verify", "mastodon-gov-drift@demo.timer"], check=False)
        assert (said.returncode, said.stderr) == (0, "")
        asked = ["systemctl", "show", "-P", "TimersMonotonic", "mastodon-gov-drift@demo.timer"]
        assert "OnBootUSec=5min" in host.exec(["sh", "-c", f"systemctl daemon-reload && {' '.join(asked)}"]).stdout
    finally:
        host.exec(["sh", "-c", "rm /run/systemd/system/mastodon-gov-drift@.*; systemctl daemon-reload"])
