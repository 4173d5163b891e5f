"""What the programs of the backups share: pgBackRest's configuration, and commands as postgres with their words.

Root gives its rights up in every command: nothing of PostgreSQL or pgBackRest needs them.
"""

from __future__ import annotations

import configparser
import json
import os
import subprocess
from pathlib import Path
from typing import Any

CONF = Path("/etc/pgbackrest.conf")
STATE = Path("/var/lib/mastodon-gov")
ANSWER_WITHIN = 25


class Unanswered(Exception):
    """PostgreSQL, pgBackRest or the store gave no usable answer; the text says why."""


def settings() -> dict[str, str]:
    """pgbackrest.conf's [global], and `stanza`: the only section beside it."""
    conf = configparser.ConfigParser(interpolation=None)
    with CONF.open(encoding="utf-8") as text:
        conf.read_file(text)
    stanza = next(name for name in conf.sections() if name != "global")
    return {**conf["global"], "stanza": stanza}


def repositories(conf: dict[str, str]) -> list[int]:
    """Numbers of the repositories: 1, and 2 where a second one is set."""
    return [number for number in (1, 2) if f"repo{number}-type" in conf]


def as_postgres(words: list[str], stdin: str = "", timeout: float = ANSWER_WITHIN) -> tuple[int, str, str]:
    """Exit code, output and errors of a command; raises Unanswered after `timeout` seconds."""
    account: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []}
    try:
        ran = subprocess.run(
            words,
            input=stdin.encode(),
            capture_output=True,
            timeout=timeout,
            check=False,
            cwd="/",
            **(account if os.geteuid() == 0 else {}),
        )
    except subprocess.TimeoutExpired:
        raise Unanswered(f"no answer within {timeout:.0f} s") from None
    return ran.returncode, ran.stdout.decode(errors="replace"), ran.stderr.decode(errors="replace")


def psql(sql: str, database: str = "postgres", **values: str) -> str:
    """Output of SQL given on standard input, where psql puts in values and quotes them."""
    given = [word for name, value in values.items() for word in ("-v", f"{name}={value}")]
    words = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database, *given, "-f", "-"]
    code, out, err = as_postgres(words, sql)
    if code:
        raise Unanswered(err.strip()[:500])
    return out.strip()


def pgbackrest(conf: dict[str, str], *words: str, timeout: float = ANSWER_WITHIN) -> tuple[int, str, str]:
    """A command of pgBackRest that writes nothing: no log file, errors on standard error."""
    quiet = ["--log-level-console=off", "--log-level-file=off", "--log-level-stderr=error"]
    return as_postgres(["pgbackrest", f"--stanza={conf['stanza']}", *quiet, *words], timeout=timeout)


def read(name: str) -> Any:
    """What another program kept, or None."""
    path = STATE / name
    return json.loads(path.read_text()) if path.exists() else None


def put(path: Path, document: object, mode: int = 0o644) -> None:
    """Write JSON beside its place, then rename."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(document) + "\n")
    draft.chmod(mode)
    draft.rename(path)
