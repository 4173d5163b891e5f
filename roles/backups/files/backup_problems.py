"""What is wrong with the backups, as sentences for a person. A pure function of what backup_status observed."""

from __future__ import annotations

from typing import Any

# Two hours for a nightly backup to run (control MFG-BAK-01); more waiting WAL than a busy minute makes (seconds,
# segments, percent of the disk, percent of what may wait).
LATE, READY, READY_AGE, DISK, QUEUE = 2 * 3600, 10, 300, 60, 25
VERIFY_AGE = 3 * 86400
# A lost host loses archive_timeout, the upload, the minute between two heartbeats, and a margin.
UPLOAD, BEAT, MARGIN = 60, 60, 60
# Clocks are set by a little now and then; a time that lies further ahead (seconds) was written by a wrong one.
AHEAD = 60
RUN_BACKUP = "Run `systemctl start mfg-backup-incr.service` now."

# `code` of an empty repository: no stanza, no backup, no stanza data.
EMPTY = (1, 2, 3)


def vanished(state: dict[str, Any]) -> bool:
    """Whether this host made backups of this stanza, which an empty repository then should have."""
    return bool((state.get("manifest") or {}).get("stanza") == state["stanza"])


def problems(state: dict[str, Any]) -> list[str]:
    """No sentence is good."""
    return [
        *_repository(state),
        *_archiver(state),
        *_history(state),
        *_verified(state),
        *_locked(state),
        *_clock(state),
        *_second(state),
    ]


def _repository(state: dict[str, Any]) -> list[str]:
    repo, age = state["repository"], state["last_full_age"]
    if repo["code"] in EMPTY and vanished(state):
        return [
            f"The backups have gone: this host made {state['manifest']['label']}, and the repository says "
            f'"{repo["message"]}". Somebody removed them with the key of the backups. The lock keeps their versions: '
            'see docs/operator/restore.md, "after a ransom". Do not make new backups before.'
        ]
    if repo["code"] != 0:
        return [f"The backup repository is not in order: {repo['message']}."]
    hours = (state["full_every"] * 86400 + LATE) // 3600
    if age is None or age > hours * 3600:
        return [f"The last full backup is older than {hours} hours: see `journalctl -u mfg-backup.service`."]
    return []


def _archiver(state: dict[str, Any]) -> list[str]:
    wal, repo, found = state["archiver"], state["repository"], []
    if state["damaged"]:
        found.append(f"Backup {state['label']} found damaged pages in the database: check the disk, then restore.")
    if "error" in wal:
        return [*found, f"PostgreSQL does not answer: {wal['error']}"]
    if wal["mode"] != "on":
        found.append("PostgreSQL does not archive WAL (archive_mode is off): run deploy.")
    if wal["ready"] > READY or (wal["oldest_ready_age"] or 0) > READY_AGE:
        found.append(f"{wal['ready']} WAL files wait for the backup store: is it reachable from this host?")
        if (used := 1600 * wal["ready"] // state["queue_mib"]) > QUEUE:
            found.append(
                f"That is {used} % of what may wait ({state['queue_mib']} MiB, backups.queue_gib). More is thrown "
                "away, which leaves a hole in the history: open the way to the backup store before."
            )
        if wal["disk_percent"] > DISK:
            found.append(
                f"The disk of the WAL is {wal['disk_percent']} % full while WAL waits: PostgreSQL stops when it is "
                "full. Open the way to the backup store, or enlarge the disk. Delete nothing in pg_wal."
            )
    if repo["system_ids"] and wal["system_id"] != repo["system_ids"][-1]:
        found.append("The backup repository belongs to another database cluster.")
    return found


def _history(state: dict[str, Any]) -> list[str]:
    """Holes in the WAL, and how old the newest sign of life in the repository is."""
    found, wal = [], state["wal"] or {}
    if "error" in wal and state["repository"]["code"] == 0:
        found.append(f"What a lost host would lose is not known: {wal['error']}.")
    elif wal and wal.get("base") is None:
        found.append(
            "No backup leads to what is written now: a restore went back to before the last one. Take a full backup "
            "(`systemctl start mfg-backup.service`); until it ends nothing newer can be restored."
        )
    if state["dropped_wal"]:
        found.append(
            f"{len(state['dropped_wal'])} WAL files were thrown away since the last backup: until the next one ends "
            f"there is a hole in the history. {RUN_BACKUP}"
        )
    elif wal.get("holes"):
        found.append(
            f"{wal['holes']} WAL files are missing from the repository since backup {wal['base']}: until the next "
            f"one ends nobody can restore what came after them. {RUN_BACKUP}"
        )
    beat = wal.get("heartbeat")
    if wal.get("base") and not beat and state["at"] - state["last"] > 2 * BEAT + MARGIN:
        found.append("No heartbeat was ever written: see `journalctl -u mfg-heartbeat.service`, then run deploy.")
    if beat:
        limit = 2 * state["archiver"]["timeout"] + UPLOAD + BEAT + MARGIN
        age = beat["repository_age"] if beat["repository_age"] is not None else beat["first_age"]
        if beat["written_age"] > 2 * BEAT + MARGIN:
            found.append(
                f"The last heartbeat was written {beat['written_age']} s ago: see "
                "`journalctl -u mfg-heartbeat.service`. Without it nobody knows what a lost host would lose."
            )
        elif age > limit:
            found.append(
                f"If this host were lost now, the last {age} s would be lost with it (at most {limit} are expected): "
                "is the backup store reachable from this host?"
            )
    return found


def _verified(state: dict[str, Any]) -> list[str]:
    verify, found = state["verify"], []
    since = verify["at"] if verify else (state["manifest"] or {}).get("since", state["at"])
    if verify and verify["wrong"]:
        found.append(
            f"The backups do not verify: {verify['wrong']}. Take a full backup (`systemctl start mfg-backup.service`), "
            "and ask who or what changed the repository."
        )
    elif state["at"] - since > VERIFY_AGE:
        last = "were last verified more than 3 days ago" if verify else "were never verified"
        found.append(f"The backups {last}: see `journalctl -u mfg-backup-verify`.")
    if verify and verify["holes"]:
        found.append(
            f"{verify['holes']} WAL files are missing between the oldest and the newest backup: nobody can restore a "
            "moment from there to the next backup. It stays so until the older backups have expired. If the store was "
            "not away then, ask who removed them."
        )
    if state["label"] and (state["manifest"] or {}).get("label") != state["label"]:
        found.append(
            f"Backup {state['label']} has no manifest, so nobody knows which release and secrets belong to it. "
            "Run `systemctl start mfg-backup-manifest.service`."
        )
    return found


def _locked(state: dict[str, Any]) -> list[str]:
    lock, days = state["lock"] or {}, state["lock_days"]
    if state["repository"]["code"] != 0 or not lock:
        return []
    if "error" in lock:
        return [f"Whether the bucket still locks the backups is not known: {lock['error']}. Run deploy."]
    if lock["mode"] == "COMPLIANCE" and lock["days"] >= days:
        return []
    seen = f"{lock['days']} days {lock['mode']}" if lock["mode"] else "none"
    return [
        f"The backups are not protected as they should be: the bucket's lock is {seen}, wanted {days} days COMPLIANCE. "
        "Run deploy, and ask who changed it."
    ]


def _clock(state: dict[str, Any]) -> list[str]:
    """A time that lies ahead makes everything after it look fresh."""
    beat = (state["wal"] or {}).get("heartbeat") or {}
    ages = {
        "heartbeat": beat.get("written_age"),
        "full backup": state["last_full_age"],
        "verification": state["at"] - state["verify"]["at"] if state["verify"] else None,
        "drill": state["drill"]["age"],
    }
    ahead = [f"the last {what} {-age} s" for what, age in ages.items() if age is not None and age < -AHEAD]
    if not ahead:
        return []
    return [
        f"Times lie in the future: {', '.join(ahead)}. The clock of this host was wrong then, or is wrong now "
        "(`timedatectl`), and until these times have passed nobody knows how old the backups are. What to do: "
        "docs/operator/backups.md."
    ]


def _second(state: dict[str, Any]) -> list[str]:
    repo = state.get("second")
    if repo and repo["code"] != 0:
        return [f"The second backup repository is not in order: {repo['message']}."]
    if repo and (repo["last_age"] is None or repo["last_age"] > 86400 + LATE):
        return [
            "The second backup repository has no backup of the last 26 hours: "
            "see `journalctl -u mfg-backup-second.service`."
        ]
    return []
