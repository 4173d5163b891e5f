#!/usr/bin/python3
"""Put the keys of other servers' accounts back where an older release looks for them.

    legacy_keys.py look RELEASE    whether the host is on its way back to a release that needs it (yes or no)
    legacy_keys.py put             do it; prints how many accounts got a key

Mastodon 4.6 keeps these keys in a table of their own, `keypairs`, and empties `accounts.public_key` of every account it
refreshes. A release that does not know that table takes this for a change of keys: at the next refresh it ends all
follows of that account and asks for them anew. May be done any number of times. Exit 1: a sentence on stderr.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from roles.mastodon.files import journal
else:  # on the host the programs lie side by side
    import journal

PSQL = "runuser -u mastodon-owner -- /usr/lib/postgresql/17/bin/psql -XqAt -v ON_ERROR_STOP=1".split()
PSQL += ["-U", "mastodon_owner", "-d", "mastodon_production"]
THERE = """SELECT count(*) = 3 FROM pg_attribute WHERE attrelid = to_regclass('public.keypairs') AND NOT attisdropped
  AND attname IN ('account_id', 'public_key', 'revoked');"""
# A thousand at a time, in the order of their numbers: people's processes never wait for long behind it.
STEP = """WITH batch AS (SELECT id FROM accounts WHERE id > :last AND public_key = '' AND domain IS NOT NULL
    ORDER BY id LIMIT 1000),
  done AS (UPDATE accounts a SET public_key = k.public_key
    FROM (SELECT DISTINCT ON (account_id) account_id, public_key FROM keypairs
           WHERE NOT revoked AND account_id IN (SELECT id FROM batch) ORDER BY account_id, id) k
    WHERE k.account_id = a.id AND a.public_key = '' AND a.domain IS NOT NULL RETURNING a.id)
SELECT json_build_object('last', (SELECT max(id) FROM batch), 'accounts', (SELECT count(*) FROM done));"""


class Failed(Exception):
    """A sentence for a person."""


def psql(sql: str, **values: int) -> str:
    """What the database answers to the owner of its tables."""
    given = [word for name, value in values.items() for word in ("-v", f"{name}={value}")]
    done = subprocess.run([*PSQL, *given, "-f", "-"], input=sql, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(
            f"The keys of other servers' accounts were not all put back: {done.stderr.strip()[-600:]}\n"
            "Run the same command again; what was done stays done."
        )
    return done.stdout.strip()


def number(release: str) -> list[int]:
    """4.6.5-0123abcd as three numbers."""
    return [int(part) for part in release.partition("-")[0].split(".")]


def needed(release: str) -> bool:
    """Whether the way leads back, and from where keys are in the table to where nobody knows it."""
    way = journal.attempt(release)
    if way is None or number(way["from"]) <= number(release):
        return False
    known = (journal.ROOT / "releases" / release / "db/schema.rb").read_text()
    return 'create_table "keypairs"' not in known and psql(THERE) == "t"


def put_back() -> int:
    """All of them; how many."""
    total, last = 0, 0
    while (told := json.loads(psql(STEP, last=last)))["last"] is not None:
        total, last = total + told["accounts"], told["last"]
    return total


def main(words: list[str]) -> int:
    """Do one thing."""
    try:
        if words[:1] == ["look"] and len(words) == 2:
            print("yes" if needed(words[1]) else "no")
        elif words == ["put"]:
            print(json.dumps({"accounts": put_back()}))
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except (Failed, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
