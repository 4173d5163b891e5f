#!/usr/bin/python3
"""Run the migrations of a release that the database lacks, as their owner, without making people wait.

    migrate.py RELEASE before|after

A statement that waits 3 s for a lock gives up, because everybody else waits behind it; then the whole is tried again,
six times in all. Migrations that were done stay done; one that was left half done goes on (migrate.rake). A run that
was killed may still be at work on the host, then this one waits for it. Exit 1: a sentence on stderr.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

LIB = "/usr/local/lib/mastodon-gov"
DATABASE = "mastodon_production"
LOCK_TIMEOUT = 3  # seconds
PAUSES = (1, 2, 4, 8, 16)  # seconds between the tries
UNIT = "mfg-migrate"  # one at a time, and `rollback` waits for its end
LEFT_FOR = 600  # seconds we wait for one that a killed run has left at work
# PostgreSQL ends one of two that wait for each other, and it may be ours. The last is Rails' own lock: only one
# migrates at a time.
NO_LOCK = re.compile(
    r"lock timeout|LockNotAvailable|LockWaitTimeout|deadlock detected|TRDeadlockDetected|another migration process"
)
HOLDERS = """SELECT format('process %s (%s, user %s), in a transaction for %s s', pid,
    coalesce(nullif(application_name, ''), backend_type), usename, extract(epoch FROM now() - xact_start)::int)
  FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
   AND xact_start < now() - interval '3 s' ORDER BY xact_start LIMIT 3"""


def psql(sql: str) -> list[str]:
    """Lines of an answer, as postgres; none when there was no answer, or it had to wait for a lock."""
    words = ["runuser", "-u", "postgres", "--", "psql", "-qtAX", "-d", DATABASE, "-c", sql]
    env = os.environ | {"PGOPTIONS": f"-c lock_timeout={LOCK_TIMEOUT}s"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd="/", env=env)
    return done.stdout.splitlines()


def migrate(release: str, half: str) -> subprocess.CompletedProcess[str]:
    """One try."""
    env = os.environ | {"PGOPTIONS": f"-c lock_timeout={LOCK_TIMEOUT}s", "MFG_UNIT": UNIT}
    if half == "before":
        env["SKIP_POST_DEPLOYMENT_MIGRATIONS"] = "true"
    run = [f"{LIB}/mastodon-run", "mastodon-owner", f"/opt/mastodon/releases/{release}"]
    rake = ["bundle", "exec", "rake", "-f", f"{LIB}/migrate.rake", "db:migrate"]
    return subprocess.run([*run, *rake], capture_output=True, text=True, check=False, env=env)


def at_work() -> bool:
    """Whether a migration runs now."""
    return subprocess.run(["systemctl", "is-active", "-q", UNIT], check=False).returncode == 0


def wait_for_another() -> bool:
    """Let one that was left at work come to its end; false when it does not."""
    deadline = time.monotonic() + LEFT_FOR
    while at_work():
        if time.monotonic() > deadline:
            return False
        time.sleep(1)
    return True


def failed(release: str, output: str) -> str:
    """Which migration, and its own words: of a traceback only the error."""
    begun = re.findall(r"^==\s+(\d+ \w+): migrating", output, re.MULTILINE)
    lines = [line for line in output.splitlines() if not re.search(r":\d+:in [`'][^']*'$", line)]  # no backtrace
    words = [line for line in lines if re.search(r"error|PG::|denied|refuse", line, re.IGNORECASE)]
    which = f"migration {begun[-1]}" if begun else "the migrations"
    return (
        f"{which} of {release} failed; what runs was not touched. Its words:\n"
        + "\n".join((words or lines)[:8])
        + "\nMend the cause and run the same command again, or go back with `mastodon-gov rollback`."
    )


def main(words: list[str]) -> int:
    """Try, wait, try again."""
    release, half = words
    if not wait_for_another():
        print(
            f"Migrations that an earlier run began are still at work after {LEFT_FOR} s: `systemctl status {UNIT}`. "
            "Wait until they have ended, then run the same command again.",
            file=sys.stderr,
        )
        return 1
    began, pauses = time.monotonic(), list(PAUSES)
    while (done := migrate(release, half)).returncode:
        output = done.stdout + done.stderr
        if not NO_LOCK.search(output):
            print(failed(release, output), file=sys.stderr)
            return 1
        if not pauses:
            print(
                f"The migrations of {release} got no lock in {len(PAUSES) + 1} tries within "
                f"{time.monotonic() - began:.0f} s; what runs was not touched. Who may hold it: "
                f"{'; '.join(psql(HOLDERS)) or 'nobody any more'}. "
                "Wait until they have ended, or end them, then run the same command again.",
                file=sys.stderr,
            )
            return 1
        print(f"NOTE: a migration got no lock within {LOCK_TIMEOUT} s; tried again after {pauses[0]} s.")
        time.sleep(pauses.pop(0))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
