#!/usr/bin/python3
"""Put the keys of other servers' accounts back where an older release looks for them.

    legacy_keys.py RELEASE

Mastodon 4.6 keeps these keys in a table of their own, `keypairs`, and empties `accounts.public_key` of every account it
refreshes. A release that does not know that table takes this for a change of keys: at the next refresh it ends all
follows of that account and asks for them anew. Nothing is done for a release that knows it. Any number of times; prints
how many accounts got a key. Exit 1: a sentence on stderr.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

RELEASES = Path("/opt/mastodon/releases")
PSQL = "runuser -u mastodon-owner -- /usr/lib/postgresql/17/bin/psql -XqAt -v ON_ERROR_STOP=1".split()
PSQL += ["-U", "mastodon_owner", "-d", "mastodon_production", "-f", "-"]
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


def knows_keypairs(release: str) -> bool:
    """Whether a release has the table among its own."""
    return 'create_table "keypairs"' in (RELEASES / release / "db/schema.rb").read_text()


def step(last: int) -> dict[str, int | None]:
    """One batch after this account."""
    done = subprocess.run([*PSQL, "-v", f"last={last}"], input=STEP, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(
            f"The keys of other servers' accounts were not all put back: {done.stderr.strip()[-600:]}\n"
            "Run the same command again; what was done stays done."
        )
    found: dict[str, int | None] = json.loads(done.stdout)
    return found


def put_back() -> int:
    """All of them; how many."""
    total, last = 0, 0
    while (told := step(last))["last"] is not None:
        total, last = total + (told["accounts"] or 0), told["last"]
    return total


def main(words: list[str]) -> int:
    """Do it where it is needed."""
    (release,) = words
    try:
        print(json.dumps({"accounts": 0 if knows_keypairs(release) else put_back()}))
    except (Failed, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
