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
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from roles.restore.files import catalogue, choice, held, recovery, switching, unsent, verify
    from roles.restore.files.catalogue import Refused, Target
    from roles.restore.files.recovery import Copy
    from roles.restore.files.state import State
else:
    import catalogue
    import choice
    import held
    import recovery
    import switching
    import unsent
    import verify
    from catalogue import Refused, Target
    from recovery import Copy
    from state import State

VERBS = ["list", "beside", "look", "switch", "back", "open", "sign-off", "drop", "state"]
STAMP = "%Y%m%dT%H%M%SZ"
COPY = Copy(
    data=Path("/var/lib/postgresql/17/main.beside"),
    run=Path("/run/mfg-beside"),
    log=Path("/var/log/postgresql/mfg-beside.log"),
    user="postgres",
    unit="mfg-beside.service",
)


def running() -> bool:
    """Whether the database of this host answers."""
    asked = ["runuser", "-u", "postgres", "--", "psql", "-XqtAc", "select 1"]
    return subprocess.run(asked, capture_output=True, cwd="/", check=False).stdout == b"1\n"


def listing(as_of: str, number: int) -> dict[str, Any]:
    """Backups, restore points and the window, times in UTC. `number`: the repository."""
    target = Target("latest", as_of=as_of, repository=number)
    found = catalogue.repository(target)
    oldest, newest = choice.window(target, found, time.time() if running() and not as_of else None)
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


def beside(state: State, target: Target) -> dict[str, Any]:
    """Restore the copy and verify it. Everything that can be refused is refused before the first file is written."""
    asked = vars(target)
    if state.kept and (state.target != target or "back" in state.kept or "swap" in state.kept["done"]):
        raise Refused(
            f"A restore to {state.target.words} is under way. Finish it (`restore --switch`, then `--sign-off`), undo "
            "its switch (`restore --back`), or remove the copy (`restore --drop-beside`)."
        )
    alive = running()
    if "verify" in state.kept.get("done", {}) and "before" not in state.kept:
        counted_anew(state, alive)
    if target.kind == "time" and catalogue.seconds(target.value) > time.time():
        raise Refused(f"{target.words} lies in the future. Nothing was changed.")
    found = catalogue.repository(target)
    backups = choice.candidates(target, found, time.time() if alive and not target.as_of else None)
    bin_ = catalogue.binaries(found)
    if not state.kept:
        recovery.check_room(COPY, backups[0])
        state.kept = {"target": asked, "label": backups[0]["label"], "asked": catalogue.iso(time.time()), "done": {}}
        state.save()
    if not target.as_of:
        state.step("archive", lambda: unsent.send(target, found, alive))
    # Asked once: what the instance archives from here on, the copy need not have.
    until = state.step("newest", lambda: choice.newest_wal(target, found)) if target.kind == "latest" else None
    state.step("fetch", lambda: fetched(state, [each["label"] for each in backups]))
    try:
        state.step("recover", lambda: recovered(target, bin_, until))
    except Refused:
        drop(state)  # so that another moment can be asked for at once
        raise
    last = state.kept["done"]["recover"]["result"]
    report = state.step("verify", lambda: verified(target, bin_, last))
    if report["problems"]:
        kept = "The running database was not touched. Remove the copy with `mastodon-gov restore --drop-beside`."
        raise Refused("\n".join([*report["problems"], kept]))
    return summary(state)


def counted_anew(state: State, alive: bool) -> None:
    """A copy that was finished earlier: what a switch to it would lose now. Where it was made of the newest moment, and
    is not that any more or nobody can tell, it is not handed out as such."""
    done = state.kept["done"]
    report = done["verify"]["result"]
    when = catalogue.moment(state.target, done["recover"]["result"])
    report["lost"] = switching.newer_rows(when) if alive else {}
    state.save()
    newer = any(count != 0 for count in report["lost"].values()) if alive else switching.CURRENT.exists()
    if state.target.kind == "latest" and not state.target.as_of and newer:
        raise Refused(
            f"A copy of the newest moment lies beside already; it ends at {report['moment']}, and "
            f"{'the instance has written since' if alive else 'the database that could tell does not answer'}. Take it "
            "as it is (`restore --switch`), or remove it (`restore --drop-beside`) and restore again."
        )


def fetched(state: State, labels: list[str]) -> None:
    """Restore the files of the backup that was chosen; where it is damaged, of the full one before it."""
    while True:
        try:
            recovery.fetch(COPY, state.target, state.kept["label"])
        except recovery.Damaged:
            older = [label for label in labels if label < state.kept["label"]]
            if not older:
                raise
            told = f"backup {state.kept['label']} cannot be restored; now the one before it, {older[0]}"
            print(f"... {told}", file=sys.stderr, flush=True)
            state.kept.setdefault("damaged", []).append(state.kept["label"])
            state.kept["label"] = older[0]
            state.save()
            shutil.rmtree(COPY.data, ignore_errors=True)
        else:
            return


def recovered(target: Target, bin_: Path, until: str | None) -> str | None:
    """Start the copy, wait for the target. A copy that another run left running is asked, not started again. `until`:
    the WAL that it must come to."""
    if not recovery.runs(COPY):
        recovery.start(COPY, bin_, read_only=False)
    last = recovery.recover(COPY, target)
    if until:
        choice.check_end(recovery.history(COPY), until, last)
    return last


def verified(target: Target, bin_: Path, last: str | None) -> dict[str, Any]:
    """Look at the copy from every side, then stop it and look at its pages. `last` is the time of its last change."""
    if not recovery.runs(COPY):  # an interrupted look stopped it
        recovery.start(COPY, bin_, read_only=False)
        recovery.recover(COPY, target)
    seen = verify.content(COPY)
    when = catalogue.moment(target, last)
    told = verify.manifest_before(target, when)
    word, unopened = verify.opened(COPY)
    wrong = [*verify.fingerprint_problems(told), *verify.count_problems(seen, told), *verify.schema_problems(seen)]
    wrong += [*unopened, *verify.damaged_indexes(COPY, bin_)]
    lost = switching.newer_rows(when) if running() else {}
    recovery.stop(COPY)
    wrong += verify.damaged_pages(COPY, bin_)
    manifest = told["label"] if told else None
    report = {**seen, "secret": word, "manifest": manifest, "lost": lost, "problems": wrong}
    return report | {"moment": catalogue.iso(when)}


def summary(state: State) -> dict[str, Any]:
    """What a person needs to decide."""
    return {"state": bool(state.kept), **state.kept}


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
        lost = switching.newer_rows(named_at(state.kept["before"])) if running() else {}
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
    copy, out = (replace(COPY, data=before), Path(given_up)) if given_up else (COPY, before)
    empty = switching.EMPTY in state.kept["done"]
    for name, work in switching.steps(copy, out, target, empty, bool(given_up)):
        state.step(name, work)
    return summary(state)


def sign_off(state: State) -> dict[str, Any]:
    """Remove the database that was put aside; only after everything else was done. Where that is none, because the host
    was empty, also while the instance is held: a wrong moment is followed by another restore, not by `open`."""
    done = state.kept.get("done", {})
    if "open" not in done and not (switching.EMPTY in done and "backup" in done):
        raise Refused("The restore is not finished: `restore --switch`, look, `restore --open`, then `--sign-off`.")
    before = Path(state.kept["before"])
    gone = Path(state.kept.get("back", before))
    shutil.rmtree(gone, ignore_errors=False) if gone.exists() else None
    told = summary(state)
    state.file_away(before.name)
    return told | {"state": False}


def open_(state: State) -> dict[str, Any]:
    """Let visitors, mail and federation through again; once the switch is finished, or where none is under way."""
    if not state.kept:
        held.let_through()
        return summary(state)
    if "backup" not in state.kept["done"]:
        raise Refused("The switch is not finished: run `mastodon-gov restore --switch` again; it goes on.")
    state.step("open", held.let_through)
    return summary(state)


def drop(state: State) -> dict[str, Any]:
    """Remove the copy; refused once it is the database."""
    if "back" in state.kept or "stop-application" in state.kept.get("done", {}):
        raise Refused("The switch has begun, so the copy is no longer only a copy. Finish it: `restore --switch`.")
    recovery.stop(COPY)
    if "before" in state.kept:  # a switch was begun and stopped nothing for good: it may hold, and services may be down
        held.let_through()
        switching.start_application() if switching.CURRENT.exists() else None
    for place in (COPY.data, COPY.run):
        shutil.rmtree(place, ignore_errors=True)
    COPY.log.unlink(missing_ok=True)
    state.remove()
    return {"dropped": state.kept.get("target")}


def look(state: State) -> dict[str, Any]:
    """Start the copy for reading; returns the command that opens it."""
    if "verify" not in state.kept.get("done", {}) or "stop-application" in state.kept["done"]:
        raise Refused("There is no copy beside to look at. Run `mastodon-gov restore --to TIME --beside-only` first.")
    if not recovery.runs(COPY):
        recovery.start(COPY, catalogue.binaries(catalogue.repository(state.target)), read_only=True)
        recovery.recover(COPY, state.target)
    words = f"sudo -u postgres psql -h {COPY.run} -p {recovery.PORT} {verify.DATABASE}"
    return summary(state) | {"psql": words}


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
        return summary(state)
    if asked.verb == "beside":
        return beside(state, Target(asked.kind, asked.value, asked.as_of, asked.repository))
    if asked.verb == "open":
        return open_(state)
    if asked.verb in {"switch", "back"}:
        return {"switch": switch, "back": back}[asked.verb](state, asked.as_of)
    return {"look": look, "sign-off": sign_off, "drop": drop}[asked.verb](state)


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
