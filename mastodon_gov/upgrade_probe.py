"""What an upgrade must know of a host: one JSON document. Reads, never writes; standard library only (Debian 13).

Runs on the host, as `host_probe` does. Sizes in MiB, times in seconds since 1970 or ISO 8601.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
from pathlib import Path
from typing import Any

LIB = "/usr/local/lib/mastodon-gov"
HOME = Path("/opt/mastodon")
HELD = Path("/var/lib/mastodon-gov/upgrade-held")
DRILLS = Path("/var/lib/mastodon-gov/drills")
JOURNAL = Path("/var/lib/mastodon-gov/journal/upgrades.jsonl")
DEPLOY_LOCK = Path("/run/mastodon-gov/deploy.lock")
PLACES = ("/opt/mastodon", "/home", "/var", "/var/lib/postgresql")
SMALL = 100_000  # rows up to which counting takes no time anybody notices
SQL = """SELECT json_build_object(
  'server', current_setting('server_version_num')::int,
  'versions', (SELECT json_agg(version) FROM public.schema_migrations),
  'tables', (SELECT json_object_agg(relname, json_build_object('rows', reltuples,
      'mib', pg_total_relation_size(oid) >> 20)) FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')),
  'transactions', (SELECT json_agg(format('process %s (%s, user %s) for %s s', pid,
      coalesce(nullif(application_name, ''), backend_type), usename, extract(epoch FROM now() - xact_start)::int))
    FROM pg_stat_activity WHERE datname = current_database() AND xact_start < now() - interval '30 s'))"""
# What a restore to a moment would lose: made, or changed by hand, since then.
LOST = """SELECT json_build_object(
  'posts', (SELECT count(*) FROM public.statuses WHERE created_at > moment AND local),
  'accounts', (SELECT count(*) FROM public.users WHERE created_at > moment),
  'media', (SELECT count(*) FROM public.media_attachments WHERE created_at > moment AND coalesce(remote_url, '') = ''))
FROM (SELECT :'moment'::timestamptz AT TIME ZONE 'UTC' AS moment) m"""


def output(*words: str, given: str = "") -> str:
    """What a program printed; its own words when it failed."""
    done = subprocess.run(words, input=given, capture_output=True, text=True, timeout=60, check=False, cwd="/")
    if done.returncode:
        raise OSError(f"{words[0]} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def sql(text: str, **values: str) -> Any:
    """A JSON answer of the database, as postgres."""
    given = [word for name, value in values.items() for word in ("-v", f"{name}={value}")]
    words = ["runuser", "-u", "postgres", "--", "psql", "-qtAX", "-v", "ON_ERROR_STOP=1", *given]
    return json.loads(output(*words, "-d", "mastodon_production", "-f", "-", given=text) or "null")


def pointer(name: str) -> str | None:
    """The release that a link leads to."""
    link = HOME / name
    return os.path.basename(os.readlink(link)) if link.is_symlink() else None


def migrations() -> list[str]:
    """Paths of the migrations of every installed release, such as 4.6.5-0123abcd/db/migrate/20260101000000_add_x.rb."""
    home = HOME / "releases"
    return [str(path.relative_to(home)) for path in sorted(home.glob("[0-9]*/db/*migrate/[0-9]*"))]


def disks() -> dict[str, dict[str, int]]:
    """Free MiB and the file system's number; places may share one."""
    found = {}
    for place in PLACES:
        space = os.statvfs(place)
        free = (space.f_bavail * space.f_frsize) >> 20
        found[place] = {"free": free, "device": os.stat(place).st_dev}
    return found


def memory() -> dict[str, int]:
    """What is available, and what the application's processes use now: a second slot needs as much again."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    used = 0
    # Exit code 1 where nothing of it runs.
    found = subprocess.run(["pgrep", "-u", "mastodon"], capture_output=True, text=True, timeout=60, check=False)
    for pid in found.stdout.split():
        with contextlib.suppress(OSError):  # it has ended
            shares = Path(f"/proc/{pid}/smaps_rollup").read_text()
            used += next(int(line.split()[1]) for line in shares.splitlines() if line.startswith("Pss:"))
    return {"available": int(lines["MemAvailable"].split()[0]) >> 10, "application": used >> 10}


def deploying() -> str:
    """Who holds the host's lock; "" for nobody."""
    if not DEPLOY_LOCK.exists():
        return ""
    with DEPLOY_LOCK.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return lock.read().strip() or "somebody"
    return ""


def rehearsals() -> list[dict[str, Any]]:
    """What drills measured on a restored copy, the newest last: release, seconds, and when."""
    found = []
    for path in sorted(DRILLS.glob("*.json")):
        told = json.loads(path.read_text())
        if told.get("rehearsal"):
            found.append(told["rehearsal"] | {"at": told["at"]})
    return found


def migrating() -> bool:
    """Whether migrations are at work, also of a run whose control node has gone (migrate.py)."""
    return subprocess.run(["systemctl", "is-active", "-q", "mfg-migrate"], timeout=60, check=False).returncode == 0


def journal() -> list[dict[str, Any]]:
    """Every line that is whole."""
    found = []
    for line in JOURNAL.read_text().splitlines() if JOURNAL.exists() else []:
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def look(asked: dict[str, Any]) -> dict[str, Any]:
    """All of it; `asked` is empty."""
    return {
        "serving": pointer("current"),
        "previous": pointer("previous"),
        "slots": json.loads(output(f"{LIB}/slots.py", "status", pointer("current") or "none")),
        "migrations": migrations(),
        "database": sql(SQL),
        "backup": json.loads(output(f"{LIB}/backup-status")),
        "disks": disks(),
        "memory": memory(),
        "deploying": deploying(),
        "migrating": migrating(),
        "rehearsals": rehearsals(),
        "held": HELD.read_text().strip() if HELD.exists() else "",
        "journal": journal(),
    }


def count(asked: dict[str, Any]) -> dict[str, int]:
    """Rows of these tables: counted where they are few, PostgreSQL's estimate where they are many."""
    known = sql(SQL)["tables"]
    few = [name for name in asked["tables"] if name in known and known[name]["rows"] <= SMALL]
    rows = {name: int(known[name]["rows"]) for name in asked["tables"] if name in known}
    if few:
        counts = (f"'{name}', (SELECT count(*) FROM public.\"{name}\")" for name in few)  # noqa: S608  names as found
        rows |= sql(f"SELECT json_build_object({', '.join(counts)})")
    return rows


def lost(asked: dict[str, Any]) -> dict[str, int]:
    """Rows that came after a moment (ISO 8601)."""
    found: dict[str, int] = sql(LOST, moment=asked["moment"])
    return found
