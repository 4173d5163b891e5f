#!/usr/bin/python3
"""The journal of upgrades, rollbacks and maintenance on this host: who, what, from, to, each step's start and end.

    journal.py step RELEASE WHO STEP -- COMMAND...   run a step; recorded when the host is on its way to RELEASE
    journal.py close RELEASE WHO [held]              the way to RELEASE is done (or stops before what cannot be undone)
    journal.py last                                  the last attempt as JSON; null when there is none

One JSON object a line, appended and synced, readable by root. A step without an end was killed. An attempt is a way
from one release to another; whoever goes on with it after a kill, or goes back, writes to the same file.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

JOURNAL = Path("/var/lib/mastodon-gov/journal/upgrades.jsonl")
ROOT = Path("/opt/mastodon")


def records(journal: Path = JOURNAL) -> list[dict[str, Any]]:
    """All lines; one that was cut off by a power failure is left out."""
    found = []
    for line in journal.read_text().splitlines() if journal.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def append(record: dict[str, Any], journal: Path = JOURNAL) -> None:
    """One line, on the disk before this returns. It begins with a newline where the last line was cut off."""
    journal.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    line = json.dumps({"at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"} | record) + "\n"
    descriptor = os.open(journal, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
    try:
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        os.write(descriptor, (b"\n" if torn else b"") + line.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def serving() -> str | None:
    """The release that pages come from."""
    link = ROOT / "current"
    return os.path.basename(os.readlink(link)) if link.is_symlink() else None


def digest(release: str | None) -> str | None:
    """SHA-256 of a release's manifest."""
    path = ROOT / "releases" / (release or "") / "MANIFEST.sha256"
    return hashlib.sha256(path.read_bytes()).hexdigest() if release and path.is_file() else None


def attempt(release: str) -> dict[str, Any] | None:
    """Which way a step to this release belongs to; None when the host is there already and nothing is unfinished."""
    last = (records() or [{"event": "closed"}])[-1]
    unfinished = last["event"] != "closed"
    if unfinished and last["to"] == release:
        return {key: last[key] for key in ("attempt", "from", "to")}
    start = last["to"] if unfinished else serving()
    if start in (None, release):
        return None
    return {"attempt": f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}", "from": start, "to": release}


def told(output: str) -> dict[str, Any]:
    """What a step says of itself: a JSON document on its last line, and sentences that begin with NOTE."""
    lines = output.strip().splitlines()
    notes = [line.removeprefix("NOTE: ") for line in lines if line.startswith("NOTE: ")]
    try:
        said = json.loads(lines[-1]) if lines else None
    except ValueError:
        said = None
    return ({"told": said} if isinstance(said, dict) else {}) | ({"notes": notes} if notes else {})


def step(release: str, who: str, name: str, command: list[str]) -> int:
    """Run the command; its output goes where ours goes."""
    way = attempt(release)
    if way is None:
        return subprocess.run(command, check=False).returncode
    append({"event": "start", "step": name, "who": who} | way)
    began = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    sys.stdout.write(done.stdout)
    seconds = round(time.monotonic() - began, 2)
    end = {"event": "end", "step": name, "who": who, "code": done.returncode, "seconds": seconds}
    append(end | told(done.stdout) | way)
    return done.returncode


def close(release: str, who: str, event: str) -> None:
    """The last line of an attempt, with what the releases' manifests are."""
    way = attempt(release)
    last = (records() or [{}])[-1]
    if way and last.get("event") != event:
        digests = {"from_manifest": digest(way["from"]), "to_manifest": digest(way["to"])}
        append({"event": event, "who": who, "result": "held" if event == "held" else "done"} | digests | way)


def summary(lines: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The last attempt: its steps with their seconds, and how it stands. Times are ISO 8601 in UTC."""
    if not lines:
        return None
    last = lines[-1]
    mine = [line for line in lines if line["attempt"] == last["attempt"]]
    steps: dict[str, dict[str, Any]] = {}
    for line in mine:
        if line["event"] in ("start", "end"):
            steps[line["step"]] = {k: line[k] for k in ("code", "seconds", "told", "notes") if k in line}
    state = {"closed": "done", "held": "held", "start": "interrupted"}.get(last["event"], "unfinished")
    if last["event"] == "end" and last["code"]:
        state = "failed"
    same = {key: last[key] for key in ("attempt", "from", "to", "who")}
    return {
        **same,
        "began": mine[0]["at"],
        "last": last["at"],
        "state": state,
        "step": last.get("step"),
        "steps": steps,
    }


def main(words: list[str]) -> int:
    """Do one thing; the exit code of a step is its command's."""
    os.umask(0o027)
    if words[:1] == ["step"] and words[4:5] == ["--"]:
        return step(words[1], words[2], words[3], words[5:])
    if words[:1] == ["close"] and len(words) in (3, 4):
        close(words[1], words[2], "held" if words[3:] == ["held"] else "closed")
        return 0
    if words == ["last"]:
        print(json.dumps(summary(records())))
        return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
