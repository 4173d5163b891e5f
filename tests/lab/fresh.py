"""A machine `social` that can be made new again and again: what tests of a first deploy need."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from secrets import token_hex

from mastodon_gov.bootstrap import prepare
from mastodon_gov.instance.load import load
from mastodon_gov.lab.demo import bring_up, machines
from mastodon_gov.lab.lab import Lab
from mastodon_gov.lab.state import MachineSpec
from tests.lab.deployed import Deployed, copy_instance


def specs() -> list[MachineSpec]:
    """Social with a disk that is written to properly, and the world. Nobody asks from outside."""
    return [replace(spec, volatile=spec.name != "social") for spec in machines() if spec.name != "outside"]


class Fresh:
    """A lab whose `social` has never been deployed to after each `renew`."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        """Make world and instance directory; keep the machine's own files as they are before the first contact."""
        self.deployed = Deployed(bring_up(lab, copy_instance(directory), print, first_contact=False))
        self._machine = lab.machine("social")
        self._kept = lab.places.root / "social-before"
        if not self._kept.exists():
            self._machine.stop()
            _copy(self._machine.directory / "upper", self._kept)

    def renew(self) -> Deployed:
        """The machine after a first contact as root."""
        deployed = self.blank()
        key = deployed.demo.lab.root_key
        prepare(load(deployed.directory), deployed.directory, "social", "root", key, None)
        return deployed

    def blank(self) -> Deployed:
        """The machine as it was before the first contact. A database made anew is another one to pgBackRest, and the
        backups of the last one are locked: each gets a stanza of its own."""
        self._machine.kill()
        for part in ("upper", "work"):
            shutil.rmtree(self._machine.directory / part)
        _copy(self._kept, self._machine.directory / "upper")
        (self._machine.directory / "work").mkdir()
        self._machine.start()
        path = copy_instance(self.deployed.directory) / "instance.yaml"
        text = path.read_text()
        assert "backups:\n" in text
        path.write_text(text.replace("backups:\n", f"backups:\n  stanza: social-{token_hex(4)}\n"))
        return self.deployed


def _copy(source: Path, target: Path) -> None:
    """With the marks of an overlay: attributes, and the devices that stand for removed files."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)
