"""The copy beside the database: made, verified, looked at, removed. The running database is only asked."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from roles.restore.files import catalogue, choice, held, recovery, switching, unsent, verify
    from roles.restore.files.catalogue import Refused, Target
    from roles.restore.files.recovery import Copy
    from roles.restore.files.state import State, say
else:  # on the host the programs lie side by side
    import catalogue
    import choice
    import held
    import recovery
    import switching
    import unsent
    import verify
    from catalogue import Refused, Target
    from recovery import Copy
    from state import say

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


def restored(state: State, target: Target) -> dict[str, Any]:
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
    return state.summary


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
            say(f"The backup {state.kept['label']} cannot be restored; now the one before it, {older[0]}")
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
    return state.summary | {"psql": words}
