"""What every facts program is made of (Debian 13, root, standard library only). Reads; never writes.

A program calls `tell` with its parts. What a part returns is what the running system says; a part that could not look
becomes `{"error": sentence}`, and the checks that need it are not run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

SECONDS = 30  # for one program that is asked
AT_ONCE = 3  # parts


def output(*words: str, given: str = "", codes: tuple[int, ...] = (0,)) -> str:
    """What a program printed, in the C locale. Raises OSError with its own words for any other exit code."""
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"}
    done = subprocess.run(
        words,
        input=given,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SECONDS,
        check=False,
        env=env,
        cwd="/",
    )
    if done.returncode not in codes:
        raise OSError(f"{words[0]} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}")
    return done.stdout


def state(unit: str) -> str:
    """Whether a unit runs, and whether it will after the next start: `active, enabled`."""
    asked = (("is-active", (0, 3, 4)), ("is-enabled", (0, 1, 4)))
    return ", ".join(output("systemctl", verb, unit, codes=codes).strip() for verb, codes in asked)


def psql(sql: str, database: str = "postgres") -> str:
    """Unaligned rows of a query, as postgres over the socket, in a transaction that cannot write."""
    words = ["runuser", "-u", "postgres", "--", "psql", "-qtAX", "-v", "ON_ERROR_STOP=1", "-d", database, "-f", "-"]
    return output(*words, given=f"SET default_transaction_read_only = on;\n{sql}\n")


def tell(parts: Mapping[str, Callable[[], object]]) -> None:
    """Look at every part, some at the same time as most wait for programs, and print one JSON document."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip(parts, pool.map(_look, parts.values()), strict=True))
    json.dump(found, sys.stdout)
    print()


def _look(part: Callable[[], object]) -> object:
    try:
        return part()
    except Exception as error:  # whatever it is: this part was not seen, and the others are
        return {"error": f"{type(error).__name__}: {error}"[:300]}
