#!/usr/bin/python3 -B
"""Restore last night's backup with every other way out closed, look at it from every side, file the evidence.

    drill.py [--as-of TIME]

Prints the evidence (JSON), signed with the host's key beside it in /var/lib/mastodon-gov/drills. The copy belongs to an
account of its own, mfg-drill, which reaches the backup store and nothing else; it is removed at the end.
Exit code: 0 good · 1 the repository is not whole · 2 not restored · 3 not recovered · 4 an index is damaged
5 too much would be lost · 6 a page is damaged · 7 rows are missing · 8 other secrets · 9 not begun, or interrupted ·
10 a way out is open · 11 the application runs on a drill host.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from roles.backups.files.backup_repository import verified
    from roles.restore.files import catalogue, choice, recovery, verify
    from roles.restore.files.catalogue import Refused, Target
    from roles.restore.files.egress import USER, blocked, reached, rules
    from roles.restore.files.recovery import Copy
    from roles.restore.files.rehearsal import rehearsed
    from roles.restore.files.state import say
else:  # on the host the programs lie side by side
    import catalogue
    import choice
    import recovery
    import verify
    from backup_repository import verified
    from catalogue import Refused, Target
    from egress import USER, blocked, reached, rules
    from recovery import Copy
    from rehearsal import rehearsed
    from state import say

HOME = Path("/var/lib/mfg-drill")
COPY = Copy(
    data=HOME / "data", run=Path("/run/mfg-drill"), log=HOME / "server.log", user=USER, unit="mfg-drill-copy.service"
)
KEPT = Path("/var/lib/mastodon-gov/drills")
SETTINGS = Path("/usr/local/lib/mastodon-gov/drill.json")
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"
NAMESPACE = "mastodon-drill"
KEEP = 400
AHEAD = 60  # seconds; a heartbeat further ahead was written by a wrong clock
WHOLE, RESTORED, RECOVERED, INDEXES, FRESH, PAGES, ROWS, SECRETS, BEGUN, CLOSED, RESTING = range(1, 12)


class Failed(Exception):
    """A step whose failure ends the drill, with its exit code."""

    def __init__(self, code: int, sentence: str) -> None:
        """Remember the code for the exit."""
        super().__init__(sentence)
        self.code = code


def loss_problems(age: float | None, limit: int) -> list[str]:
    """What is wrong with the age of the newest heartbeat in the copy (s)."""
    if age is None:
        return ["There is no heartbeat in the copy, so what would be lost is not known. Run deploy."]
    if age < -AHEAD:
        return [
            f"The newest heartbeat in the copy lies {-age:.0f} s in the future: a clock was wrong, and what would be "
            "lost is not known. See docs/operator/backups.md."
        ]
    return [f"The newest change in the backups is {age:.0f} s old, allowed {limit}."] if age > limit else []


class Drill:
    """One drill: the evidence grows step by step, so that a failed one tells how far it came."""

    def __init__(self, target: Target) -> None:
        """Begin the evidence."""
        self.target, self.settings = target, json.loads(SETTINGS.read_text())
        self.bin = Path()
        self.evidence: dict[str, Any] = {
            "format": 1,
            "at": int(time.time()),
            "host": socket.gethostname(),
            "stanza": catalogue.configured()[0],
            "as_of": target.as_of or None,
            "steps": {},
            "problems": [],
            "rc": BEGUN,
        }

    def step(self, name: str, code: int, work: Callable[[], list[str] | None]) -> None:
        """Do a step; its sentences, or its refusal, end the drill with this code."""
        say(name)
        began = time.monotonic()
        try:
            wrong = work() or []
        except Refused as refusal:
            wrong = [str(refusal)]
        took = self.evidence["steps"][name] = round(time.monotonic() - began, 2)
        print(f"{took:7.1f} s  {name}", file=sys.stderr, flush=True)
        if wrong:
            raise Failed(code, " ".join(wrong))

    def run(self) -> None:
        """All steps in order; egress is closed and proved closed before anything is fetched."""
        self.step("close", CLOSED, self.close)
        self.step("application", RESTING, self.application)
        self.step("verify", WHOLE, self.whole)
        self.step("restore", RESTORED, self.restore)
        self.step("recover", RECOVERED, self.recover)
        self.step("heartbeat", FRESH, self.heartbeat)
        self.step("counts", ROWS, self.counts)
        self.step("secrets", SECRETS, self.secrets)
        self.step("amcheck", INDEXES, lambda: verify.damaged_indexes(COPY, self.bin))
        self.step("rehearsal", INDEXES, self.rehearsal)
        recovery.stop(COPY)
        self.step("checksums", PAGES, lambda: verify.damaged_pages(COPY, self.bin))
        self.step("still closed", CLOSED, self.still_closed)
        steps = self.evidence["steps"]
        self.evidence["rto_s"] = round(steps["restore"] + steps["recover"], 2)
        self.evidence["rc"] = 0

    def close(self) -> list[str]:
        """Load the rules, then try every way out; each must fail, and the rules must have counted it."""
        conf = catalogue.configured()[1]
        port = conf.get("repo1-storage-port", "443")
        text = rules(conf["repo1-s3-endpoint"], port)
        done = subprocess.run(["nft", "-f", "-"], input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            return [f"The rules that close every way out cannot be loaded: {catalogue.first_line(done.stderr)}."]
        return self.still_closed()

    def still_closed(self) -> list[str]:
        """Whether the drill's account gets out anywhere but to the backup store."""
        before = blocked()
        probes = self.settings["probes"]
        open_ = reached(probes)
        live = catalogue.as_user(
            USER, "psql", "-XqtAc", "select 1", "-h", "/var/run/postgresql", "-d", "mastodon_production"
        )
        open_ += ["the live database"] if live.returncode == 0 else []
        counted = blocked() - before
        self.evidence |= {
            "blocked_packets": blocked(),
            "egress": "open" if open_ else "closed",
            "probes": len(probes) + 1,
        }
        if open_:
            return [f"A copy of the database could reach {', '.join(open_)}. The drill ended before it was made."]
        return [] if counted >= len(probes) else ["The rules did not count the probes, so they were not in force."]

    def application(self) -> list[str]:
        """On a host that is for drills alone nothing of the application runs; elsewhere nothing leads from it here."""
        if not self.settings["alone"]:
            self.evidence["application"] = "runs on this host; the copy's directory and socket are closed to it"
            return []
        shown = subprocess.run(
            ["systemctl", "list-units", "--no-legend", "--plain", "--state=active", "mastodon-*"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        self.evidence["application"] = "not active"
        return [f"{shown[0]} runs on the drill host: a copy must not federate or send mail. Stop it."] if shown else []

    def whole(self) -> list[str]:
        """pgBackRest reads the backup, what it builds on and its WAL; what it prints counts, not how it ends. The newer
        WAL is read by replaying it, the other backups by the nightly backup-verify."""
        found = catalogue.repository(self.target, USER)
        self.bin = catalogue.binaries(found)
        backup = choice.choose(self.target, found, None, USER)
        self.evidence |= {
            "label": backup["label"],
            "bytes": backup["info"]["size"],
            "postgresql": found["db"][-1]["version"],
        }
        recovery.check_room(COPY, backup)
        words = ["--output=text", "--verbose", "--log-level-console=off", "--log-level-stderr=error"]
        words = catalogue.pgbackrest(self.target, *words, "--log-level-file=off", f"--set={backup['label']}", "verify")
        done = catalogue.as_user(USER, *words, timeout=None)
        good, why = verified(done.stdout)
        wrong = catalogue.first_line(done.stderr) if done.stderr.strip() else why
        return [] if good else [f"The backups are not whole: {wrong}."]

    def restore(self) -> None:
        recovery.fetch(COPY, self.target, self.evidence["label"])

    def recover(self) -> None:
        """Replay to the end, promote, still alive."""
        recovery.start(COPY, self.bin, read_only=False)
        self.evidence["last_change"] = recovery.recover(COPY, self.target)
        self.recovered_at = time.time()
        self.evidence["timeline"] = int(recovery.sql(COPY, "select timeline_id from pg_control_checkpoint()"))

    def heartbeat(self) -> list[str]:
        """Age of the newest heartbeat when the last change was read: what a loss at that moment would have cost."""
        seen = self.seen = verify.content(COPY)
        age = verify.age(seen, self.recovered_at)
        self.evidence |= {"rpo_s": age, "heartbeat_age_s": age}
        self.evidence |= {name: seen[name] for name in ("counts", "max_ids", "schema", "lock")}
        return [] if self.target.as_of else loss_problems(age, self.settings["rpo_s"])

    def counts(self) -> list[str]:
        """Against the manifest that speaks of a moment the copy must have reached."""
        self.manifest = verify.manifest_before(self.target, self.evidence["at"], USER)
        self.evidence["manifest"] = self.manifest["label"] if self.manifest else None
        return verify.count_problems(self.seen, self.manifest)

    def secrets(self) -> list[str]:
        """By fingerprint, where the host has secrets to compare; and whether they open one in the copy."""
        compared = self.manifest is not None and verify.ENVIRONMENT.exists()
        wrong = verify.fingerprint_problems(self.manifest)
        self.evidence["fingerprints"] = "different" if wrong else "equal" if compared else "not compared"
        self.evidence["secret"], unopened = verify.opened(COPY)
        return wrong + unopened

    def rehearsal(self) -> None:
        """How long the migrations of a release that waits on this host take; no part of what a drill proves."""
        self.evidence["rehearsal"] = rehearsed(COPY)


def wipe() -> None:
    """Nothing of the copy stays, and no rule."""
    recovery.stop(COPY)
    for place in (COPY.data, COPY.run):
        shutil.rmtree(place, ignore_errors=True)
    COPY.log.unlink(missing_ok=True)
    subprocess.run(["nft", "delete", "table", "inet", "mfg_drill"], capture_output=True, check=False)


def file(evidence: dict[str, Any]) -> None:
    """Write the evidence and its signature; old ones go."""
    KEPT.mkdir(mode=0o755, exist_ok=True)
    path = KEPT / time.strftime("%Y%m%dT%H%M%SZ.json", time.gmtime(evidence["at"]))
    path.write_text(json.dumps(evidence, indent=1, sort_keys=True) + "\n")
    sign = ["ssh-keygen", "-q", "-Y", "sign", "-f", HOST_KEY, "-n", NAMESPACE, str(path)]
    Path(f"{path}.sig").unlink(missing_ok=True)
    subprocess.run(sign, capture_output=True, check=False)
    for old in sorted(KEPT.glob("*.json"))[:-KEEP]:
        old.unlink()
        Path(f"{old}.sig").unlink(missing_ok=True)


def main() -> int:
    """One drill at a time; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--as-of", default="")
    asked = parser.parse_args()
    os.makedirs("/run/mastodon-gov", exist_ok=True)
    with open("/run/mastodon-gov/drill.lock", "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another drill runs on this host. Wait for it, then try again.", file=sys.stderr)
            return BEGUN
        wipe()
        recovery.prepare(COPY)
        drill = Drill(Target("latest", as_of=asked.as_of))
        try:
            drill.run()
        except Failed as failure:
            drill.evidence |= {"rc": failure.code, "problems": [str(failure)]}
            print(failure, file=sys.stderr)
        finally:
            wipe()
            file(drill.evidence)
        print(json.dumps(drill.evidence))
        return int(drill.evidence["rc"])


if __name__ == "__main__":
    sys.exit(main())
