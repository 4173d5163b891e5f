"""After a switch: prove that WAL of the new timeline arrives; put back the index of a repository that was destroyed.

For switching.py. Nothing is ever removed from the repository. Its index files are written anew only when it is known
that somebody destroyed them: the operator names a time (`--as-of`), with this host's key and passphrase the repository
is good as of that time, and as of now its index is gone or unreadable. A store that is away, a wrong key and a wrong
passphrase look like a ruin at first sight; there a sentence is all that happens.
"""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from roles.restore.files.catalogue import (
        FIRST,
        Refused,
        Target,
        alone,
        configured,
        first_line,
        listing,
        pgbackrest,
        repository,
        status,
    )
else:  # on the host the programs lie side by side
    from catalogue import FIRST, Refused, Target, alone, configured, first_line, listing, pgbackrest, repository, status

WAL = Path("/var/lib/postgresql/17/main/pg_wal")
INDEX = ("archive/{}/archive.info", "backup/{}/backup.info")
# `code` of pgBackRest's info: no stanza, no stanza data; 99 is any error.
GOOD, GONE, ERROR = (0, 2), (1, 3), 99
UNREADABLE = re.compile(r"FormatError|CryptoError|ChecksumError|FileMissingError")
# One of these beside them: not the files are bad, but the way to them.
AWAY = re.compile(r"ProtocolError|ServiceError|HostConnectError|FileReadError|FileOpenError|<Code>|timeout")
WITHIN = 120  # seconds the archiver may hold the stanza's lock
AGAIN = "Nothing in the repository was touched. Run `mastodon-gov restore --switch` again; it goes on."


def check_archive(target: Target) -> str:
    """Prove that WAL arrives in the first repository; returns what had to be put back."""
    done = "nothing to put back"
    if destroyed(target):
        put_back(target)
        done = f"index as of {target.as_of}"
    deadline = time.monotonic() + WITHIN
    # 50: PostgreSQL's archiver holds the stanza's lock just now.
    while (ran := tool("check")).returncode:
        if ran.returncode != 50 or time.monotonic() > deadline:
            said = first_line((ran.stdout + ran.stderr).decode(errors="replace"))
            raise Refused(f"WAL does not arrive in the backup repository: {said}. Put that right. {AGAIN}")
        time.sleep(1)
    while not (there := history_arrived()) and time.monotonic() < deadline:
        time.sleep(1)
    if not there:
        raise Refused(f"The history of the new timeline does not arrive in the backup repository. {AGAIN}")
    return done


def history_arrived() -> bool:
    """Whether the repository knows how the new timeline began: without that no older backup leads to it."""
    names = sorted(path.name for path in WAL.glob("*.history"))
    found = repository(Target("latest"))
    place = f"archive/{found['name']}/{found['archive'][-1]['id']}"
    return not names or names[-1] in listing(Target("latest"), place)


def destroyed(target: Target) -> bool:
    """Whether the repository was destroyed after `as_of`. Refused where it is not good and that is not known."""
    try:
        code, message = status(Target("latest"))
    except Refused as refusal:
        raise Refused(f"{refusal} {AGAIN}") from None
    if code in GOOD:
        return False
    if not target.as_of:
        raise Refused(
            f"The database is in its place, and the backup repository is not in order: {first_line(message)}. If the "
            "store is away, or key or passphrase are wrong, put that right and run `mastodon-gov restore --switch` "
            "again. If somebody deleted or overwrote the backups: `mastodon-gov restore --switch --as-of TIME`, with a "
            "time before that. Nothing in the repository was touched."
        )
    try:
        then, why = status(target)
    except Refused as refusal:
        raise Refused(f"{refusal} {AGAIN}") from None
    if then not in GOOD:
        raise Refused(
            f"As of {target.as_of} the backup repository is not in order either: {first_line(why)}. Check key and "
            f"passphrase, or give another time with --as-of. {AGAIN}"
        )
    if code in GONE or (code == ERROR and UNREADABLE.search(message) and not AWAY.search(message)):
        return True
    raise Refused(f"The backup repository cannot be read just now: {first_line(message)}. {AGAIN}")


def put_back(target: Target) -> None:
    """The index as it was then, byte for byte. The bucket keeps what stood in its place as an older version."""
    for name in (f"{each.format(configured()[0])}{end}" for each in INDEX for end in ("", ".copy")):
        then = tool("--raw", "repo-get", name, target=target)
        if then.returncode or not then.stdout:
            raise Refused(f"{name} as of {target.as_of} cannot be read: {first_line(then.stderr.decode())}. {AGAIN}")
        done = tool("--raw", "repo-put", name, given=then.stdout, target=replace(target, as_of=""))
        if done.returncode:
            raise Refused(
                f"{name} cannot be put back: {first_line(done.stderr.decode())}. "
                "Run `mastodon-gov restore --switch` again; it goes on."
            )


def tool(*words: str, given: bytes = b"", target: Target | None = None) -> subprocess.CompletedProcess[bytes]:
    """pgBackRest as postgres, in bytes; without `target` for the commands that ask every repository they know."""
    if target:
        quiet = ["--log-level-console=off", "--log-level-file=off", "--log-level-stderr=error"]
        return _as_postgres(pgbackrest(target, *quiet, *words), given)
    with alone(FIRST) as conf:
        return _as_postgres(["pgbackrest", f"--stanza={configured()[0]}", conf, *words], given)


def _as_postgres(command: list[str], given: bytes) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["timeout", "300", "runuser", "-u", "postgres", "--", *command],
            input=given,
            capture_output=True,
            check=False,
            cwd="/",
        )
    except OSError as error:
        raise Refused(f"pgbackrest cannot be started: {error}.") from None
