"""Runs a few roles on one machine, without the rest of an instance: pyinfra over a small deploy file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from mastodon_gov.lab.demo import REPOSITORY
from mastodon_gov.lab.lab import Lab


def run_roles(lab: Lab, deploy: Path, told: Path, values: dict[str, Any], *options: str) -> tuple[Any, str]:
    """Run `deploy` on the lab's `social`; it finds `values` in the file `told`. Returns its report and log."""
    told.touch(mode=0o600)
    told.write_text(json.dumps(values))
    data = {
        "told": told,
        "ssh_user": "root",
        "ssh_key": lab.root_key,
        "ssh_known_hosts_file": lab.known_hosts,
        "ssh_strict_host_key_checking": "yes",
    }
    address = lab.machine("social").address4
    words = [sys.executable, "-m", "pyinfra", "--json", address, str(deploy), *(options or ["-y"])]
    words += [word for key, value in data.items() for word in ("--data", f"{key}={value}")]
    done = subprocess.run(
        words,
        cwd=REPOSITORY,
        env=os.environ | {"PYINFRA_PROGRESS": "off", "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return json.loads(done.stdout or "null"), done.stderr


def changed(report: Any) -> list[str]:
    """Names of the operations that changed something; fails when there is no report or a host failed."""
    assert report
    assert report["results"]["failed_hosts"] == []
    return [each["name"] for each in report["results"]["operations"] if each["success"]]
