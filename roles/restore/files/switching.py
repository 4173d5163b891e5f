"""The steps from a verified copy to a serving instance. Each can be repeated; restore.py writes down which are done."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from roles.restore.files.catalogue import FIRST, Refused, Target, as_user, first_line, iso, run
    from roles.restore.files.held import hold
    from roles.restore.files.recovery import Copy, recover, start, stop
    from roles.restore.files.ruins import check_archive
else:
    from catalogue import FIRST, Refused, Target, as_user, first_line, iso, run
    from held import hold
    from recovery import Copy, recover, start, stop
    from ruins import check_archive

MAIN = Path("/var/lib/postgresql/17/main")
PROGRAMS = Path("/usr/lib/postgresql") / MAIN.parent.name / "bin"
UNIT = "postgresql@17-main.service"
LIB = "/usr/local/lib/mastodon-gov"
CURRENT = Path("/opt/mastodon/current")
DATABASE = "mastodon_production"
REDIS = Path("/var/lib/redis")
EMPTY = "empty-host"
ANSWER_WITHIN = 120  # seconds for a service to come up
# People's own things with a time; what others sent us comes again by itself.
NEWER = {
    "statuses": "(uri is null or local)",
    "media_attachments": "true",
    "users": "true",
    "invites": "true",
    "favourites": "true",
    "follows": "true",
    "reports": "true",
}
NUMBERED = ("statuses", "media_attachments")


def psql(text: str, database: str = "postgres") -> str:
    """Rows of a statement on the running database."""
    words = ["psql", "-XqtA", "-v", "ON_ERROR_STOP=1", "-d", database, "-f", "-"]
    done = as_user("postgres", *words, given=text, timeout=300)
    if done.returncode:
        raise Refused(f"The database does not answer: {first_line(done.stderr)}.")
    return str(done.stdout).strip()


def archive_all() -> bool:
    """Send off everything up to now. The transaction is there so that a target just before now is passed."""
    wal = psql("select pg_current_xact_id(); select pg_walfile_name(pg_switch_wal());").splitlines()[-1]
    deadline = time.monotonic() + ANSWER_WITHIN
    while psql(f"select coalesce(last_archived_wal >= '{wal}', false) from pg_stat_archiver") != "t":  # noqa: S608
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def newer_rows(when: float) -> dict[str, int | None]:
    """Rows of the running database that are younger than a moment: what a restore to it would lose. None: too many to
    count in a minute."""
    known = "select table_name from information_schema.columns where table_schema = 'public' and column_name = "
    columns = psql(f"{known} 'created_at'", DATABASE).splitlines()
    found: dict[str, int | None] = {}
    for table in (name for name in NEWER if name in columns):
        # The number of a post or a picture begins with its time in ms; there is no index over the time itself.
        since = f"id >= {int(when * 1000) << 16}" if table in NUMBERED else f"created_at > timestamp '{iso(when)[:19]}'"
        text = f"set statement_timeout = '60s'; select count(*) from public.{table} where {since} and "  # noqa: S608
        try:
            found[table] = int(psql(text + NEWER[table], DATABASE))
        except Refused:
            found[table] = None
    return found


def steps(
    copy: Copy, before: Path, target: Target, empty: bool, back: bool = False
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Name and work of each step, in order. `empty`: the host held no instance, and a deploy filled it meanwhile.
    `back`: the copy is the database that an earlier switch put aside."""
    yield "hold", lambda: hold(needed=target.repository == FIRST)
    yield "stop-application", stop_application
    yield "stop-database", lambda: stop_database(copy)
    if back:
        yield "branch", lambda: branch(copy)
    yield "swap", lambda: swap(copy, before)
    yield "start-database", start_database
    # Before anybody writes: what is acknowledged from here on must leave this host.
    yield "check", lambda: check_archive(replace(target, repository=FIRST))
    if not CURRENT.exists():
        yield EMPTY, lambda: None
        return
    yield "migrate", migrate
    yield "lock", check_lock
    if not empty:  # there, Redis is new and the deploy started the application
        yield "redis", empty_redis
        yield "application", start_application
    # The instance serves; what the old history has is still in the repository, and the new one arrives there.
    yield "feeds", feeds
    yield "backup", full_backup


def stop_application() -> None:
    """Every slot, and the timers that would work on the database."""
    run("systemctl", "stop", "mastodon-web@*", "mastodon-sidekiq@*", "mastodon-streaming@*", "mfg-*.timer")


def stop_database(copy: Copy) -> None:
    """The copy too, should somebody be looking at it."""
    stop(copy)
    run("systemctl", "stop", UNIT)


def branch(copy: Copy) -> None:
    """Let the old database begin a timeline of its own where it was stopped. The repository has the history of the one
    that is given up now, and PostgreSQL follows the newest: on its old number nothing that comes could be restored."""
    stop(copy)  # an interrupted run left it running
    wal = copy.data / "pg_wal"
    # Timelines whose numbers are taken, also where their histories did not reach the repository yet.
    for path in (MAIN / "pg_wal").glob("*.history"):
        if not (wal / path.name).exists():
            shutil.copyfile(path, wal / path.name)
            shutil.chown(wal / path.name, "postgres", "postgres")
    # What was stopped is complete: the repository is not asked.
    write_settings(copy.data, "restore_command = 'false'", "recovery_target_timeline = 'current'")
    (copy.data / "recovery.signal").touch(mode=0o600)
    shutil.chown(copy.data / "recovery.signal", "postgres", "postgres")
    start(copy, PROGRAMS, read_only=True)
    recover(copy, Target("latest"))
    stop(copy)
    # None may be missing in the repository: PostgreSQL looks for the newest one number after the other.
    to_be_sent(wal, [path.name for path in wal.glob("*.history")])


def write_settings(data: Path, *added: str) -> None:
    """Rewrite the file of ALTER SYSTEM without what a recovery had put there: with it the new primary would not
    archive. `added`: what the next recovery needs."""
    lines = data / "postgresql.auto.conf"
    if lines.exists():
        only_then = ("archive_mode", "restore_command", "recovery_target")
        kept = [line for line in lines.read_text().splitlines() if not line.strip().startswith(only_then)]
        lines.write_text("\n".join([*kept, *added]) + "\n")
        shutil.chown(lines, "postgres", "postgres")


def swap(copy: Copy, before: Path) -> None:
    """Two renames; whichever a kill came after, the rest can still be told from what lies there."""
    if copy.data.exists():
        to_be_archived(copy.data)
    write_settings(copy.data)
    if copy.data.exists() and MAIN.exists() and not before.exists():
        MAIN.rename(before)
    if copy.data.exists():
        copy.data.rename(MAIN)
    shutil.rmtree(copy.run, ignore_errors=True)


def to_be_archived(data: Path) -> None:
    """Tell PostgreSQL to archive what the copy wrote while it did not archive: above all the history of its timeline.
    Without that no restore could follow from an older backup, and the next would take the timeline's number again."""
    wal = data / "pg_wal"
    told = run("env", "LC_ALL=C", f"{PROGRAMS}/pg_controldata", str(data))
    current = re.findall(r"^Latest checkpoint's REDO WAL file: +([0-9A-F]{24})$", told, re.M)[0]
    full = [each.name for each in wal.glob(f"{current[:8]}*") if re.fullmatch("[0-9A-F]{24}", each.name)]
    history = f"{current[:8]}.history"
    to_be_sent(wal, [name for name in full if name < current] + ([history] if (wal / history).exists() else []))


def to_be_sent(wal: Path, names: list[str]) -> None:
    """Mark files of the WAL as waiting for the archiver, where they carry no mark yet."""
    for name in names:
        marks = [wal / "archive_status" / f"{name}.{end}" for end in ("ready", "done")]
        if not any(mark.exists() for mark in marks):
            marks[0].touch(mode=0o600)
            shutil.chown(marks[0], "postgres", "postgres")


def start_database() -> None:
    """Up, and out of recovery, as a primary that archives."""
    run("systemctl", "reset-failed", UNIT) if failed(UNIT) else None
    run("systemctl", "start", UNIT)
    deadline = time.monotonic() + ANSWER_WITHIN
    while True:
        try:
            if psql("select pg_is_in_recovery(), current_setting('archive_mode')") == "f|on":
                return
        except Refused:
            pass
        if time.monotonic() > deadline:
            raise Refused(f"PostgreSQL does not come up as a primary that archives; see `journalctl -u {UNIT}`.")
        time.sleep(0.2)


def failed(unit: str) -> bool:
    return subprocess.run(["systemctl", "is-failed", "-q", unit], check=False).returncode == 0


def migrate() -> str:
    """Bring an older schema to the installed release; its post-deployment migrations are left to the next deploy, so
    that `rollback` can go back from a point before them."""
    known = {path.name.split("_")[0] for path in (CURRENT / "db/migrate").glob("*_*")}
    have = set(psql("select version from schema_migrations", DATABASE).splitlines())
    if not known - have:
        return "nothing to do"
    rails("bundle", "exec", "rails", "db:migrate", SKIP_POST_DEPLOYMENT_MIGRATIONS="true")
    return f"{len(known - have)} migrations"


def rails(*words: str, **environment: str) -> None:
    """A program of the release, as the owner of the tables; mastodon-run hands on the variables it knows."""
    given = [f"{name}={value}" for name, value in environment.items()]
    run("env", *given, f"{LIB}/mastodon-run", "mastodon-owner", str(CURRENT.resolve()), *words, timeout=None)


def check_lock() -> None:
    """Closed until opened: no process of the application runs on a database without its lock."""
    told = json.loads(psql("select coalesce(gov.status()->'failed', '[]')", DATABASE))
    if told:
        raise Refused(
            f"The lock in the restored database is not whole: {', '.join(told)}. The application stays stopped. Run "
            "`mastodon-gov deploy`, which mends it, then `mastodon-gov restore --switch` again."
        )


def empty_redis() -> None:
    """Jobs of a time that no longer is must not run."""
    run("systemctl", "stop", "redis-server")
    for each in REDIS.iterdir():
        shutil.rmtree(each) if each.is_dir() else each.unlink()
    run("systemctl", "start", "redis-server")


def feeds() -> None:
    """Mastodon builds only the feeds of those who were away for a week by itself. The cache went with Redis."""
    rails("bundle", "exec", "bin/tootctl", "feeds", "build", "--all")


def start_application() -> None:
    """The slot that was active, and the timers."""
    run("systemctl", "restart", "mastodon.service")
    listed = run("systemctl", "list-unit-files", "--no-legend", "--state=enabled", "mfg-*.timer")
    run("systemctl", "start", *(line.split()[0] for line in listed.splitlines()))


def full_backup() -> None:
    """The new timeline gets a backup of its own at once."""
    run("systemctl", "start", "mfg-backup.service", timeout=None)
