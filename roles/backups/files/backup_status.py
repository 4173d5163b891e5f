#!/usr/bin/python3 -B
"""Print the state of the database's backups as JSON; `--write` also keeps it for monitoring. Changes nothing else.

pgBackRest's `info` and the archiver hide failures behind exit code 0, so what they say is read, not how they end.
Times are seconds since 1970, ages are seconds. `problems` are sentences; none is good.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from roles.backups.files.backup_bucket import lock
    from roles.backups.files.backup_host import (
        CONF,
        STATE,
        Unanswered,
        as_postgres,
        psql,
        put,
        read,
        repositories,
        settings,
    )
    from roles.backups.files.backup_problems import problems
    from roles.backups.files.backup_repository import (
        archived,
        branch,
        brief,
        holes,
        info,
        leads,
        lsn_after,
        on,
        place,
        position,
    )
else:  # on the host the programs lie side by side
    from backup_bucket import lock
    from backup_host import CONF, STATE, Unanswered, as_postgres, psql, put, read, repositories, settings
    from backup_problems import problems
    from backup_repository import (
        archived,
        branch,
        brief,
        holes,
        info,
        leads,
        lsn_after,
        on,
        place,
        position,
    )

SQL = """
select json_build_object('mode', current_setting('archive_mode'), 'archived', archived_count, 'failed', failed_count,
  'last_archived_age', extract(epoch from now() - last_archived_time)::int,
  'timeout', extract(epoch from current_setting('archive_timeout')::interval)::int,
  'ready', (select count(*) from pg_ls_archive_statusdir() where name like '%.ready'),
  'waiting', (select coalesce(json_agg(left(name, 24)), '[]') from pg_ls_archive_statusdir()
    where name ~ '^[0-9A-F]{24}\\.ready$'),
  'oldest_ready_age', (select extract(epoch from now() - min(modification))::int from pg_ls_archive_statusdir()
    where name like '%.ready'),
  'directory', current_setting('data_directory') || '/pg_wal',
  'segment', pg_walfile_name(pg_current_wal_lsn()),
  'system_id', (select system_identifier::text from pg_control_system()))
from pg_stat_archiver"""
# A row whose transaction may still lie behind the end of the segment does not count: 8 kB is more than it takes.
HEARTBEAT = """
select 'select json_build_object(''written_age'', extract(epoch from now() - max(at))::int,
  ''first_age'', extract(epoch from now() - min(at))::int,
  ''repository_age'', extract(epoch from now() - max(at) filter (where lsn + 8192 < ' || quote_literal(:'reach') ||
  '))::int) from mfg.heartbeat' where to_regclass('mfg.heartbeat') is not null \\gexec
"""
CHOICES = Path(__file__).resolve().parent / "backups.json"
DROPPED = re.compile(r"(\S+ \d\d:\d\d:\d\d)\.\d+ .*WARN: dropped WAL file '([0-9A-F]+)'")


def archiver() -> dict[str, Any]:
    """PostgreSQL's own view of its WAL archive, and how full the file system of its WAL is (percent)."""
    try:
        state: dict[str, Any] = json.loads(psql(SQL))
        _, out, _ = as_postgres(["df", "--output=pcent", state.pop("directory")])
    except Unanswered as error:
        return {"error": brief(str(error))}
    return {**state, "disk_percent": int(out.split()[1].rstrip("%"))}


def stale() -> list[int]:
    """Processes of the asynchronous archiver that are older than their configuration: one that got stuck with the old
    one (a wrong port, seen for 15 minutes) holds its lock, and nothing leaves the host."""
    written, found = CONF.stat().st_mtime, []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
            ticks = int((process / "stat").read_text().rpartition(")")[2].split()[19])
        except OSError:
            continue  # it has ended
        # The unit does not see /proc/uptime (ProcSubset=pid).
        running = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
        if b"archive-push:async" in words and time.time() - running < written:
            found.append(int(process.name))
    return found


def dropped(text: str, since: float) -> list[str]:
    """WAL that was thrown away after this time: the only trace of a hole in the history is a line in a log."""
    found = [match for line in text.splitlines() if (match := DROPPED.match(line))]
    return [match[2] for match in found if time.mktime(time.strptime(match[1], "%Y-%m-%d %H:%M:%S")) > since]


def log(stanza: str) -> str:
    """Lines about dropped WAL; pgBackRest writes them nowhere else."""
    script = "grep -h 'WARN: dropped WAL file' /var/log/pgbackrest/\"$1\"-archive-push*.log; true"
    return as_postgres(["sh", "-c", script, "sh", stanza])[1]


def wal(conf: dict[str, str], backups: list[dict[str, Any]], segment: str, waiting: list[str]) -> dict[str, Any]:
    """How far a restore could go: `base` is the newest backup that leads to the timeline PostgreSQL writes (`segment`),
    `holes` segments are lost, `heartbeat` is the last sign of life that has left the host."""
    nothing: dict[str, Any] = {"base": None, "holes": None, "heartbeat": None}
    try:
        where = place(conf, backups[-1])
        path = branch(conf, where, int(segment[:8], 16))
        base = next((each for each in reversed(backups) if leads(path, each)), None)
        if base is None:
            return nothing
        start = base["archive"]["start"]
        unsent = {position(name) for name in waiting if on(path, name)}
        missing, reach = holes(archived(conf, where, start, path), position(start), unsent)
        rows = psql(HEARTBEAT, reach=lsn_after(reach))
    except Unanswered as error:
        return {**nothing, "error": brief(str(error))}
    return {"base": base["label"], "holes": len(missing), "heartbeat": json.loads(rows) if rows else None}


def manifest() -> dict[str, Any] | None:
    """The newest manifest that this host wrote: stanza, label, when, of which release; and since when it writes any."""
    copies = sorted((STATE / "manifests").glob("*.json"), key=lambda path: path.stat().st_mtime)
    if not copies:
        return None
    found = json.loads(copies[-1].read_text())
    release, since = (found["release"] or {}).get("name"), int(copies[0].stat().st_mtime)
    told = {"stanza": found["stanza"], "label": found["label"], "at": found["observed"]["at"]}
    return {**told, "release": release, "since": since}


def drill(now: int) -> dict[str, Any]:
    """How the last drill ended (`rc`), and the age of the newest good one."""
    found: dict[str, Any] = {"rc": None, "age": None}
    for path in sorted((STATE / "drills").glob("*.json"), reverse=True):
        told = json.loads(path.read_text())
        found["rc"] = told["rc"] if found["rc"] is None else found["rc"]
        if told["rc"] == 0:
            return {**found, "age": now - told["at"]}
    return found


def observe() -> dict[str, Any]:
    """Everything but the judgement."""
    conf, now, choices = settings(), int(time.time()), json.loads(CHOICES.read_text())
    repo, waiting = info(conf), archiver()
    backups = repo.pop("backups")
    full = [each["timestamp"]["stop"] for each in backups if each["type"] == "full"]
    newest = backups[-1] if backups else None
    state: dict[str, Any] = {
        "at": now,
        "stanza": conf["stanza"],
        "repository": repo,
        "archiver": waiting,
        "backups": len(backups),
        "label": newest["label"] if newest else None,
        "damaged": bool(newest and newest.get("error")),
        "last": newest["timestamp"]["stop"] if newest else None,
        "last_full": full[-1] if full else None,
        "last_full_age": now - full[-1] if full else None,
        "full_every": choices["full_every"],
        "lock_days": choices["lock_days"],
        # A store that gave no answer is not asked a second time.
        "lock": None if repo["code"] == -1 else lock(conf),
        "dropped_wal": dropped(log(conf["stanza"]), newest["timestamp"]["start"] if newest else 0),
        "stale_archiver": stale(),
        "queue_mib": int(conf["archive-push-queue-max"].removesuffix("MiB")),
        "wal": wal(conf, backups, waiting["segment"], waiting["waiting"])
        if newest and "error" not in waiting
        else None,
        "verify": read("backup-verify.json"),
        "manifest": manifest(),
        "drill": drill(now),
    }
    for name in ("waiting", "segment"):
        waiting.pop(name, None)
    if 2 in repositories(conf):
        second = info(conf, 2)
        stops = [each["timestamp"]["stop"] for each in second.pop("backups")]
        state["second"] = {**second, "last_age": now - stops[-1] if stops else None}
    return state


def main() -> None:
    """One JSON document on standard output."""
    state = observe()
    found = {**state, "problems": problems(state)}
    if sys.argv[1:] == ["--write"]:
        put(STATE / "backup-status.json", found)
    else:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
