#!/usr/bin/python3
"""Run Mastodon in two slots and swap them so that nobody waits.

    slots.py status [RELEASE]  what runs, from which release, whether it is older than what it reads, and whether
                               all of it is as `settle RELEASE` would leave it (JSON)
    slots.py settle RELEASE [STEP]
                               make exactly one slot of each kind run RELEASE with today's settings; only up to STEP:
                               start (the other slot, all of it, until it is healthy), web, sidekiq, streaming (the
                               old one stops)
    slots.py boot              start the slot that was active before the machine went down

A slot is a link to a release and the working directory of its three units. A process is stale when its release is not
the wanted one, or when it is older than the files it reads; then all of the other slot is started, checked, and only
then the old one stopped. Killed at any point, the next `settle` finishes. Exit 1: a sentence on stderr, the old slot
still runs.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from roles.mastodon.files import slots_gate
    from roles.mastodon.files.slots_seen import (
        ENV,
        KINDS,
        ROOT,
        SLOTS,
        current,
        read_by,
        release_of,
        settled,
        show,
        started,
        status,
        unit,
    )
else:  # on the host, where the programs lie side by side
    import slots_gate
    from slots_seen import ENV, KINDS, ROOT, SLOTS, current, read_by, release_of, settled, show, started, status, unit


# Web comes last: nobody meets the new release before its jobs and its streaming are there.
STARTED = ("sidekiq", "streaming", "web")
STEPS = ("start", *KINDS)
PORTS = {("web", "a"): 3000, ("web", "b"): 3001, ("streaming", "a"): 4000, ("streaming", "b"): 4001}
HEALTH = {"web": "/health", "streaming": "/api/v1/streaming/health"}
READY_WITHIN = 120  # seconds until a new slot must answer


class Refused(Exception):
    """Why the swap did not happen."""


def point(name: str, target: str) -> None:
    """Switch a link by rename, so that it always points somewhere."""
    new = ROOT / f"{name}.new"
    new.unlink(missing_ok=True)
    new.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(target, new)
    os.replace(new, ROOT / name)


def systemctl(*words: str) -> bool:
    return subprocess.run(["systemctl", *words], capture_output=True, check=False).returncode == 0


def web_name() -> str:
    """The name the application answers to; any other Host is refused by it."""
    lines = dict(line.split("=", 1) for line in ENV.read_text().splitlines() if "=" in line)
    return lines.get("WEB_DOMAIN") or lines.get("LOCAL_DOMAIN", "localhost")


def healthy(kind: str, slot: str) -> bool:
    """Whether it serves, database included: what /health says of itself is only that it lives."""
    if kind == "web":
        headers = {"Host": web_name(), "X-Forwarded-Proto": "https"}
        # 401 where only signed-in people may ask (limited federation).
        return asked(kind, slot, "/api/v2/instance", headers) in (200, 401)
    # It looks a token up in the database; 500 when it cannot.
    return asked(kind, slot, "/api/v1/streaming/user", {"Authorization": "Bearer nobody"}) == 401


def answers(kind: str, slot: str) -> bool:
    return asked(kind, slot, HEALTH[kind], {}) == 200


def asked(kind: str, slot: str, path: str, headers: dict[str, str]) -> int:
    """Status of an answer; 0 for none."""
    connection = http.client.HTTPConnection("127.0.0.1", PORTS[kind, slot], timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def start(kind: str, slot: str, *, deep: bool) -> None:
    """Start and wait until it answers, or (`deep`) is healthy; one that does not get there is stopped again."""
    systemctl("reset-failed", unit(kind, slot))
    deadline = time.monotonic() + READY_WITHIN
    up = systemctl("restart", unit(kind, slot))
    ready = healthy if deep else answers
    while up and kind in HEALTH and not ready(kind, slot):
        if time.monotonic() > deadline or not systemctl("is-active", "-q", unit(kind, slot)):
            up = False
        time.sleep(0.1)
    if up:
        return
    log = subprocess.run(
        ["journalctl", "-n", "15", "--no-pager", "-o", "cat", "-u", unit(kind, slot)],
        capture_output=True,
        text=True,
        check=False,
    )
    systemctl("stop", unit(kind, slot))
    raise Refused(f"{unit(kind, slot)} did not become ready; the old slot still runs. Its last words:\n{log.stdout}")


def start_all(kinds: list[str], slot: str, *, deep: bool) -> None:
    """All at the same time, where nobody is served yet."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda kind: start(kind, slot, deep=deep), kinds))


def choose(seen: dict[str, dict[str, dict[str, object]]], release: str) -> str:
    """The slot to run in next. A slot that is in use is chosen only when it already runs what is wanted."""
    used = [slot for slot in SLOTS if any(seen[kind][slot]["active"] for kind in KINDS)]
    for slot in used:
        running = [kind for kind in KINDS if seen[kind][slot]["active"]]
        if release_of(slot) == release and not any(seen[kind][slot]["stale"] for kind in running):
            return slot
    if len(used) < 2:
        return "b" if used == ["a"] else "a"
    # An interrupted swap to another release: first everybody onto the slot that serves, then the other one is free.
    serving = "a" if seen["web"]["a"]["ready"] else "b"
    bring_up(serving)
    for kind in KINDS:
        hand_over(kind, serving)
    return "b" if serving == "a" else "a"


def other_than(slot: str) -> str:
    return "b" if slot == "a" else "a"


def fresh(kind: str, slot: str) -> bool:
    """Whether it runs, and read nothing that was changed since."""
    seen = show(kind, slot)
    return seen["ActiveState"] == "active" and read_by(kind, slot, seen) <= started(seen)


def bring_up(slot: str) -> None:
    """Start what does not run in this slot, or runs with older files. Where one does not get healthy, those that were
    started go again, except what nobody else does: the old slot has been told nothing and goes on."""
    begun: list[str] = []
    todo = [kind for kind in STARTED if not fresh(kind, slot)]
    served = [kind for kind in STARTED if show(kind, other_than(slot))["ActiveState"] == "active"]
    try:
        if not served:
            start_all(todo, slot, deep=True)
            return
        with slots_gate.closed([PORTS[kind, slot] for kind in todo if kind in HEALTH and kind in served]):
            for kind in todo:  # one after the other: people need the processor
                begun.append(kind)
                start(kind, slot, deep=True)
    except Refused:
        for kind in begun:
            if kind in served:
                systemctl("stop", unit(kind, slot))
        raise


def hand_over(kind: str, slot: str) -> None:
    """Stop the old one. Puma ends its requests first; Sidekiq takes no new job at once, has 25 s for those it works
    on, and puts back what it could not finish."""
    old = unit(kind, other_than(slot))
    if show(kind, other_than(slot))["ActiveState"] == "inactive":
        return
    systemctl("stop", old)
    done = subprocess.run(["systemctl", "show", "-P", "Result", old], capture_output=True, text=True, check=False)
    if done.stdout.strip() == "timeout":
        lost = "Jobs it was working on are lost" if kind == "sidekiq" else "Requests it was working on had no answer"
        print(f"NOTE: {old} did not end by itself in time and was killed. {lost}; see journalctl -u {old}.")
    systemctl("reset-failed", old)


def serve_files(release: str) -> None:
    """What nginx serves: this release's files, and those of the release before it for pages that are still open."""
    before = current()
    if before and before[0] != release:
        point("previous", f"releases/{before[0]}")
    point("current", f"releases/{release}")


def settle(release: str, last: str) -> bool:
    """Bring everything to this release, up to this step; returns whether anything had to change."""
    if not (ROOT / "releases" / release).is_dir():
        raise Refused(f"{ROOT}/releases/{release} does not exist; install the release first (mastodon-gov deploy).")
    systemctl("daemon-reload")
    seen = status()
    if settled(seen, release):
        return False
    slot = choose(seen, release)
    if release_of(slot) != release:
        point(f"slot/{slot}", f"../releases/{release}")
    before = current()
    # The new slot's pages name the new files in /packs, so those are served before it answers.
    serve_files(release)
    try:
        bring_up(slot)
    except Refused:
        if before and show("web", slot)["ActiveState"] != "active":
            serve_files(before[0])
        raise
    for kind in STEPS[1 : STEPS.index(last) + 1]:
        hand_over(kind, slot)
    if last == STEPS[-1]:
        point("active", f"slot/{slot}")
    return True


def boot() -> None:
    now = current()
    if now is None:
        return  # nothing was ever active here
    start_all([kind for kind in KINDS if show(kind, now[1])["ActiveState"] != "active"], now[1], deep=False)


def main(words: list[str]) -> int:
    if words[:1] == ["status"]:
        now, seen = current(), status()
        told = {"kinds": seen, "current": now[0] if now else None, "active": now[1] if now else None}
        print(json.dumps(told | {"settled": settled(seen, words[1]) if len(words) == 2 else None}))
        return 0
    os.makedirs("/run/mastodon-gov", exist_ok=True)
    with open("/run/mastodon-gov/slots.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            slots_gate.open_all()  # a run that was killed may have left it closed
            if words == ["boot"]:
                boot()
            elif words[:1] == ["settle"] and len(words) in (2, 3) and words[-1] in (*STEPS, words[1]):
                print("swapped" if settle(words[1], words[2] if len(words) == 3 else STEPS[-1]) else "settled")
            else:
                print(__doc__, file=sys.stderr)
                return 2
        except (Refused, OSError) as refusal:
            print(refusal, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
