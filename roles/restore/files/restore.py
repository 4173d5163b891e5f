#!/usr/bin/python3 -B
"""Restore the database beside the running one, verify it, then switch. Runs as root on the database's host.

    restore.py list [--as-of TIME]                    what can be restored (JSON)
    restore.py beside KIND [VALUE] [--as-of TIME]     KIND is time, name or latest; restores and verifies
    restore.py look                                   start the verified copy, for reading only
    restore.py switch [--as-of TIME]                  put the verified copy in the place of the database
    restore.py back [--as-of TIME]                    put the kept database in the place of the restored one again
    restore.py open                                   let visitors, mail and federation through again
    restore.py sign-off | drop                        remove the database that was put aside | the copy
    restore.py state                                  what was done so far (JSON)

`--repository 2`, with list and beside: the second repository. Each step is written down when it is done, so the same
command goes on where a killed one stopped. Exit 1: a sentence.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from roles.restore.files import beside, catalogue, choice, held, switching
    from roles.restore.files.catalogue import Refused, Target
    from roles.restore.files.state import State
else:
    import beside
    import catalogue
    import choice
    import held
    import switching
    from catalogue import Refused, Target
    from state import State

VERBS = ["list", "beside", "look", "switch", "back", "open", "sign-off", "drop", "state"]
STAMP = "%Y%m%dT%H%M%SZ"


def listing(as_of: str, number: int) -> dict[str, Any]:
    """Backups, restore points and the window, times in UTC. `number`: the repository."""
    target = Target("latest", as_of=as_of, repository=number)
    found = catalogue.repository(target)
    oldest, newest = choice.window(target, found, time.time() if beside.running() and not as_of else None)
    backups = [
        {
            "label": each["label"],
            "type": each["type"],
            "stop": catalogue.iso(each["timestamp"]["stop"]),
            "bytes": each["info"]["size"],
            "damaged": bool(each.get("error")),
        }
        for each in found["backup"]
    ]
    reach = {"oldest": catalogue.iso(oldest), "newest": catalogue.iso(newest)}
    return {"stanza": found["name"], "backups": backups, "points": catalogue.points(target, oldest), "window": reach}


def switch(state: State, as_of: str) -> dict[str, Any]:
    """The verified copy becomes the database; see switching.py for the steps. `as_of`: when the repository was good, if
    it was destroyed since. A way back that was begun is gone on with."""
    if "back" in state.kept:
        return go_on(state, as_of)
    if "verify" not in state.kept.get("done", {}) or state.kept["done"]["verify"]["result"]["problems"]:
        raise Refused("There is no verified copy to switch to. Run `mastodon-gov restore --to TIME` first.")
    state.kept.setdefault("before", aside("before"))
    state.save()
    return go_on(state, as_of)


def back(state: State, as_of: str) -> dict[str, Any]:
    """The kept database takes its place again, by the steps of the switch; the restored one is put aside."""
    if "back" not in state.kept:
        done = state.kept.get("done", {})
        if "swap" not in done:
            raise Refused(
                "Nothing was switched that could be taken back. A copy beside is removed with `restore --drop-beside`; "
                "a switch that was interrupted is finished with `restore --switch` first."
            )
        if switching.EMPTY in done or not switching.CURRENT.exists():
            raise Refused("This host was empty before the restore: there is no database to go back to.")
        if not Path(state.kept["before"]).exists():
            raise Refused(f"{state.kept['before']} is not there any more, so nothing leads back. Nothing was changed.")
        lost = switching.newer_rows(named_at(state.kept["before"])) if beside.running() else {}
        state.kept |= {"back": aside("given-up"), "switched": done, "done": {}, "lost": lost}
        state.save()
    return go_on(state, as_of)


def aside(word: str) -> str:
    """A name, used once, for the database that leaves its place."""
    return f"{switching.MAIN}.{word}-{time.strftime(STAMP, time.gmtime())}"


def named_at(name: str) -> float:
    """When a name was given, in seconds since 1970."""
    return datetime.strptime(name.rpartition("-")[2], STAMP).replace(tzinfo=UTC).timestamp()


def go_on(state: State, as_of: str) -> dict[str, Any]:
    """The steps of the switch, or of the way back, that are not done yet."""
    known = state.target
    # From here on the first repository must be good; when the second one was, says nothing of it.
    target = replace(known, as_of=as_of or (known.as_of if known.repository == catalogue.FIRST else ""))
    given_up, before = state.kept.get("back"), Path(state.kept["before"])
    copy, out = (replace(beside.COPY, data=before), Path(given_up)) if given_up else (beside.COPY, before)
    empty = switching.EMPTY in state.kept["done"]
    for name, work in switching.steps(copy, out, target, empty, bool(given_up)):
        state.step(name, work)
    return state.summary


def sign_off(state: State) -> dict[str, Any]:
    """Remove the database that was put aside; only after everything else was done. Where that is none, because the host
    was empty, also while the instance is held: a wrong moment is followed by another restore, not by `open`."""
    done = state.kept.get("done", {})
    if "open" not in done and not (switching.EMPTY in done and "backup" in done):
        raise Refused("The restore is not finished: `restore --switch`, look, `restore --open`, then `--sign-off`.")
    before = Path(state.kept["before"])
    gone = Path(state.kept.get("back", before))
    shutil.rmtree(gone, ignore_errors=False) if gone.exists() else None
    told = state.summary
    state.file_away(before.name)
    return told | {"state": False}


def open_(state: State) -> dict[str, Any]:
    """Let visitors, mail and federation through again; once the switch is finished, or where none is under way."""
    if not state.kept:
        held.let_through()
        return state.summary
    if "backup" not in state.kept["done"]:
        raise Refused("The switch is not finished: run `mastodon-gov restore --switch` again; it goes on.")
    state.step("open", held.let_through)
    return state.summary


def main(words: list[str]) -> dict[str, Any]:
    """Run one command under the lock that every one of them takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("kind", nargs="?", choices=["time", "name", "latest"], default="latest")
    parser.add_argument("value", nargs="?", default="")
    parser.add_argument("--as-of", default="")
    parser.add_argument("--repository", type=int, choices=[1, 2], default=1)
    asked = parser.parse_args(words)
    state = State()
    if asked.verb == "list":
        return listing(asked.as_of, asked.repository) | {"repository": asked.repository}
    if asked.verb == "state":
        return state.summary
    if asked.verb == "beside":
        return beside.restored(state, Target(asked.kind, asked.value, asked.as_of, asked.repository))
    if asked.verb == "open":
        return open_(state)
    if asked.verb in {"switch", "back"}:
        return {"switch": switch, "back": back}[asked.verb](state, asked.as_of)
    return {"look": beside.look, "sign-off": sign_off, "drop": beside.drop}[asked.verb](state)


if __name__ == "__main__":
    os.makedirs("/run/mastodon-gov", exist_ok=True)
    with open("/run/mastodon-gov/restore.lock", "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            print(json.dumps(main(sys.argv[1:])))
        except BlockingIOError:
            sys.exit(
                "Another restore works on this host. Wait for it (`mastodon-gov restore --state`), then try again."
            )
        except Refused as refusal:
            sys.exit(str(refusal))
