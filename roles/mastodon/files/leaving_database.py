"""The operator's connection to the database, for leaving.py: one transaction, asked step by step."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

# The program itself: Debian's wrapper /usr/bin/psql reads files of the cluster that only postgres may read.
PSQL = "runuser -u mastodon-owner -- /usr/lib/postgresql/17/bin/psql -XqAt -v ON_ERROR_STOP=1".split()
PSQL += ["-U", "mastodon_owner", "-d", "mastodon_production"]
END = "--end--"


class Refused(Exception):
    """A sentence for the person; nothing was changed."""


class Session:
    """One connection to the database, asked step by step."""

    def __init__(self) -> None:
        self.psql = subprocess.Popen(
            PSQL, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def ask(self, sql: str) -> list[str]:
        """Lines that the statements print."""
        return list(self.lines(sql))

    def lines(self, sql: str) -> Iterator[str]:
        """As they come. An error ends the session, and with it the transaction."""
        to_psql, said, errors = self.psql.stdin, self.psql.stdout, self.psql.stderr
        if not (to_psql and said and errors):
            raise Refused("psql could not be started.")
        try:
            to_psql.write(f"{sql}\n\\echo {END}\n")
            to_psql.flush()
        except BrokenPipeError:
            pass  # its last words are read below
        for line in said:
            if line.rstrip("\n") == END:
                return
            yield line.rstrip("\n")
        told = errors.read().strip() or "psql ended without a word"
        raise Refused(f"The database refused, and nothing was changed: {told.splitlines()[0]}")

    def one(self, sql: str) -> Any:
        """The one JSON document that the statements print; a refusal in it is ours."""
        answer = json.loads(self.ask(sql)[-1])
        if isinstance(answer, dict) and "refusal" in answer:
            raise Refused(answer["refusal"])
        return answer


def quoted(value: object) -> str:
    """A SQL literal; JSON for what is not text."""
    text = value if isinstance(value, str) else json.dumps(value)
    return "'" + text.replace("'", "''") + "'"
