"""One audit as a value: verdicts, what was asked, and the document that evidence, comparison and pages are made of."""

from __future__ import annotations

import getpass
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mastodon_gov.audit.exceptions import Accepted
from mastodon_gov.audit.results import Check, Session, State, Verdict, numbers, text
from mastodon_gov.audit.suite import ROOT, Asked

CLOCK_SECONDS = 5.0  # as `check`: more makes times in the report doubtful


@dataclass(frozen=True)
class Audit:
    """What was found. Times are UTC; `seconds` is wall time."""

    instance: str
    asked: Asked
    started: datetime
    seconds: float
    verdicts: tuple[Verdict, ...]
    checks: tuple[Check, ...]
    session: Session
    accepted: tuple[Accepted, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def numbers(self) -> dict[State, int]:
        """How many controls passed, failed, are excepted, were not run."""
        return numbers(self.verdicts)

    @property
    def unforeseen(self) -> list[Verdict]:
        """Controls that did not run although the pinned list does not say so."""
        return [each for each in self.verdicts if each.state is State.NOT_RUN and not each.foreseen]

    @property
    def clean(self) -> bool:
        """Nothing failed, and what did not run is what the pinned list says."""
        return not self.numbers[State.FAILED] and not self.unforeseen

    @property
    def summary(self) -> str:
        """The four numbers and what they cost, on one line."""
        as_pinned = "as pinned" if not self.unforeseen else f"{len(self.unforeseen)} of them NOT as pinned"
        return (
            f"{text(self.numbers)} ({as_pinned}); {len(self.checks)} checks, {self.session.commands} remote commands, "
            f"{self.seconds:.1f} s"
        )


def clock_notes(session: Session) -> list[str]:
    """Hosts whose clock is not ours: their times in logs, and ours in the report, do not fit."""
    return [
        f"{host}: its clock is {abs(offset):.0f} s {'ahead of' if offset > 0 else 'behind'} this machine's; times in "
        "the report are this machine's. Look at chrony on both."
        for host, offset in session.clocks.items()
        if abs(offset) > CLOCK_SECONDS
    ]


def commit(directory: Path) -> str:
    """The commit of a directory, with `+` when files differ from it; empty outside git."""
    words = ["git", "-C", str(directory), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def document(audit: Audit) -> dict[str, Any]:
    """Everything, for people and programs that were not there. It holds no secret."""
    asked = audit.asked
    return {
        "format": 1,
        "instance": audit.instance,
        "started": audit.started.isoformat(timespec="seconds"),
        "ended": datetime.fromtimestamp(audit.started.timestamp() + audit.seconds, UTC).isoformat(timespec="seconds"),
        "seconds": round(audit.seconds, 2),
        "account": asked.account,
        "operator": getpass.getuser(),
        "control_node": platform.node(),
        "level": asked.level,
        "probe": asked.probe,
        "outside_from": asked.outside_from,
        "selected": {"groups": asked.groups, "controls": asked.controls},
        "commits": {"product": commit(ROOT), "instance": commit(asked.directory)},
        "tools": {name: version(name) for name in ("mastodon-gov", "pytest", "pytest-testinfra")},
        "hosts": audit.session.hosts,
        "clocks": audit.session.clocks,
        "remote_commands": audit.session.commands,
        "numbers": {str(state): count for state, count in audit.numbers.items()},
        "checks": len(audit.checks),
        "clean": audit.clean,
        "notes": list(audit.notes),
        "exceptions": [each.model_dump(mode="json") for each in audit.accepted],
        "controls": [_control(each) for each in audit.verdicts],
    }


def _control(verdict: Verdict) -> dict[str, Any]:
    control = verdict.control
    return {
        **control.model_dump(mode="json"),
        "state": verdict.state,
        "reason": verdict.reason,
        "foreseen": verdict.foreseen,
        "checks": [asdict(check) for check in verdict.checks],
    }


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two audits: states of controls, releases, and hosts that were started anew."""
    old = {each["id"]: each for each in before["controls"]}
    new = {each["id"]: each for each in now["controls"]}
    told = []
    for id_ in [*new, *(gone for gone in old if gone not in new)]:
        was, is_ = (side.get(id_, {}).get("state", "not looked at") for side in (old, new))
        if was != is_:
            reason = new.get(id_, {}).get("reason") or new.get(id_, old.get(id_, {})).get("title", "")
            told.append(f"{id_}: {was} → {is_}: {reason}")
    return told + _host_changes(before["hosts"], now["hosts"])


def _host_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    told = []
    for name, is_ in now.items():
        was = before.get(name, {})
        if was.get("release") != is_.get("release"):
            told.append(f"{name}: release {was.get('release', 'unknown')} → {is_.get('release', 'unknown')}")
        # The kernel counts in seconds and our clock may be set by one or two.
        if abs(was.get("booted", 0) - is_.get("booted", 0)) > 5 and "booted" in is_ and "booted" in was:
            when = datetime.fromtimestamp(is_["booted"], UTC)
            told.append(f"{name}: was started anew at {when:%Y-%m-%d %H:%M:%S} UTC")
    return told


def selected(verdicts: Sequence[Verdict], state: State) -> list[Verdict]:
    """Those in one state, in the catalogue's order."""
    return [each for each in verdicts if each.state is state]
