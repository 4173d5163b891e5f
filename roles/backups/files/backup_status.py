#!/usr/bin/python3
"""Print the state of the database's backups as JSON; changes nothing.

pgBackRest's `info` and the archiver hide failures behind exit code 0, so what they say is read, not how they end.
Times are seconds since 1970, ages are seconds. `problems` are sentences; none is good.
"""

from __future__ import annotations

import configparser
import glob
import json
import os
import pwd
import re
import subprocess
import time
from typing import Any

CONF = "/etc/pgbackrest.conf"
LOG = "/var/log/pgbackrest"
# A nightly backup and two hours for it to run (control MFG-BAK-01); more waiting WAL than a busy minute makes.
FULL_AGE, READY, READY_AGE = 26 * 3600, 10, 300
ANSWER_WITHIN = 25
SQL = """
select json_build_object('mode', current_setting('archive_mode'), 'archived', archived_count, 'failed', failed_count,
  'last_archived_age', extract(epoch from now() - last_archived_time)::int,
  'ready', (select count(*) from pg_ls_archive_statusdir() where name like '%.ready'),
  'oldest_ready_age', (select extract(epoch from now() - min(modification))::int from pg_ls_archive_statusdir()
    where name like '%.ready'),
  'system_id', (select system_identifier::text from pg_control_system()))
from pg_stat_archiver"""


def become_postgres() -> None:
    """Root gives its rights up: nothing here needs them."""
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        os.initgroups("postgres", account.pw_gid)
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    os.chdir("/")


def stanza() -> str:
    """The only section beside [global]."""
    conf = configparser.ConfigParser(interpolation=None)
    with open(CONF, encoding="utf-8") as text:
        conf.read_file(text)
    return next(name for name in conf.sections() if name != "global")


def brief(message: str) -> str:
    """The first line, and the S3 service's word; what follows may be pieces of a file read with a wrong passphrase."""
    first = message.strip().split("\n")[0].rstrip(":")
    code = re.search(r"<Code>(\w+)</Code>", message)
    return f"{first} ({code[1]})" if code else first


def repository(name: str) -> dict[str, Any]:
    """What the repository holds. `code`: 0 good, 1 no stanza, 2 no backup, 3 no stanza data, 99 error, -1 no answer."""
    words = ["pgbackrest", f"--stanza={name}", "--log-level-console=off", "--log-level-file=off"]
    unknown: dict[str, Any] = {"code": -1, "backups": [], "system_ids": []}
    try:
        asked = [*words, "--log-level-stderr=error", "--output=json", "info"]
        ran = subprocess.run(asked, capture_output=True, timeout=ANSWER_WITHIN, check=False)
    except subprocess.TimeoutExpired:
        return {**unknown, "message": f"no answer within {ANSWER_WITHIN} s"}
    out, err = (text.decode(errors="replace") for text in (ran.stdout, ran.stderr))
    try:
        found = json.loads(out, strict=False)[0]
    except (ValueError, IndexError):
        return {**unknown, "message": brief(err or out) or f"exit code {ran.returncode}"}
    status = found["repo"][0]["status"] if found.get("repo") else found["status"]
    return {
        "code": status["code"],
        "message": brief(status["message"]),
        "backups": found.get("backup", []),
        "system_ids": [str(each["system-id"]) for each in found.get("db", [])],
    }


def archiver() -> dict[str, Any]:
    """PostgreSQL's own view of its WAL archive."""
    ran = subprocess.run(["psql", "-XAtqc", SQL], capture_output=True, text=True, timeout=ANSWER_WITHIN, check=False)
    if ran.returncode:
        return {"error": ran.stderr.strip()[:500]}
    state: dict[str, Any] = json.loads(ran.stdout)
    return state


def dropped(name: str, since: float) -> list[str]:
    """WAL that was thrown away after this time: the only trace of a hole in the history is a line in a log."""
    found = []
    for path in sorted(glob.glob(f"{LOG}/{name}-archive-push*.log*")):
        if path.endswith(".gz"):
            continue
        with open(path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                match = re.match(r"(\S+ \d\d:\d\d:\d\d)\.\d+ .*WARN: dropped WAL file '([0-9A-F]+)'", line)
                if match and time.mktime(time.strptime(match[1], "%Y-%m-%d %H:%M:%S")) > since:
                    found.append(match[2])
    return found


def problems(state: dict[str, Any]) -> list[str]:
    """Sentences for a person."""
    found, repo, wal = [], state["repository"], state["archiver"]
    if repo["code"] != 0:
        found.append(f"The backup repository is not in order: {repo['message']}.")
    elif state["last_full_age"] is None or state["last_full_age"] > FULL_AGE:
        found.append("The last full backup is older than 26 hours: see `journalctl -u mfg-backup.service`.")
    if state["damaged"]:
        found.append(f"Backup {state['label']} found damaged pages in the database: check the disk, then restore.")
    if "error" in wal:
        return [*found, f"PostgreSQL does not answer: {wal['error']}"]
    if wal["mode"] != "on":
        found.append("PostgreSQL does not archive WAL (archive_mode is off): run deploy.")
    if wal["ready"] > READY or (wal["oldest_ready_age"] or 0) > READY_AGE:
        found.append(f"{wal['ready']} WAL files wait for the backup store: is it reachable from this host?")
    if repo["system_ids"] and wal["system_id"] != repo["system_ids"][-1]:
        found.append("The backup repository belongs to another database cluster.")
    if state["dropped_wal"]:
        found.append(
            f"{len(state['dropped_wal'])} WAL files were thrown away since the last backup: until the next one ends "
            "there is a hole in the history. Run `systemctl start mfg-backup.service` now."
        )
    return found


def main() -> None:
    """One JSON document on standard output."""
    become_postgres()
    name = stanza()
    repo, wal = repository(name), archiver()
    backups = repo.pop("backups")
    full = [each for each in backups if each["type"] == "full"]
    last_full = full[-1]["timestamp"]["stop"] if full else None
    newest = backups[-1] if backups else None
    state = {
        "stanza": name,
        "repository": repo,
        "archiver": wal,
        "backups": len(backups),
        "label": newest["label"] if newest else None,
        "damaged": bool(newest and newest.get("error")),
        "last_full": last_full,
        "last_full_age": int(time.time()) - last_full if last_full else None,
        "dropped_wal": dropped(name, newest["timestamp"]["start"] if newest else 0),
    }
    print(json.dumps({**state, "problems": problems(state)}))


if __name__ == "__main__":
    main()
