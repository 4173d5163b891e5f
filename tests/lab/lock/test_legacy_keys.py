"""Keys of other servers' accounts go back where a release that does not know the table `keypairs` looks for them."""

from __future__ import annotations

import subprocess
from typing import Any
from unittest.mock import patch

import pytest

from roles.mastodon.files import legacy_keys
from tests.lab.lock.database import Database, Server

# As upstream's 20260323105645 makes it.
TABLE = """CREATE TABLE keypairs (id bigserial PRIMARY KEY,
  account_id bigint NOT NULL REFERENCES accounts ON DELETE CASCADE, uri varchar NOT NULL UNIQUE, type integer NOT NULL,
  public_key varchar NOT NULL, private_key varchar, expires_at timestamp, revoked boolean NOT NULL DEFAULT false,
  created_at timestamp NOT NULL, updated_at timestamp NOT NULL);
CREATE INDEX ON keypairs (account_id);"""
# 2500 that the newer release has refreshed, one that it has not, one of ours, one whose only key was revoked.
ROWS = """INSERT INTO accounts (id, username, domain, public_key, created_at, updated_at)
  SELECT n, 'u' || n, 'world.test', '', now(), now() FROM generate_series(1001, 3500) n;
UPDATE accounts SET public_key = 'old' WHERE id = 1001;
UPDATE accounts SET public_key = '' WHERE id = 1;
INSERT INTO keypairs (account_id, uri, type, public_key, revoked, created_at, updated_at)
  SELECT id, 'https://world.test/' || id || '#' || k, 0, 'key ' || id || ' ' || k,
         id = 1003 OR id = 1004 AND k = 1, now(), now()
    FROM accounts, generate_series(1, 2) k WHERE id <> 1002;"""


@pytest.fixture
def database(server: Server) -> Database:
    made = server.locked("keys", "4.6.5")
    made.must(TABLE + ROWS, "mastodon_owner")
    return made


def test_every_account_gets_its_first_key_back(database: Database) -> None:
    def on_the_machine(argv: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
        here = [database.name if word == "mastodon_production" else word for word in argv]
        done = database.machine.exec(here, stdin=more["input"], check=False)
        return subprocess.CompletedProcess(argv, done.returncode, done.stdout, done.stderr)

    with patch.object(legacy_keys, "subprocess") as replaced:
        replaced.run = on_the_machine
        counts = [legacy_keys.put_back(), legacy_keys.put_back()]
    assert counts == [2497, 0]
    held = "SELECT string_agg(public_key, ',' ORDER BY id) FROM accounts WHERE id IN (1, 1001, 1002, 1003, 1004, 3500)"
    assert database.must(held) == ",old,,,key 1004 2,key 3500 1"
    assert database.status()["failed"] == []
    there = [database.must(legacy_keys.THERE, "mastodon_owner")]
    database.must("DROP TABLE keypairs", "mastodon_owner")
    there.append(database.must(legacy_keys.THERE, "mastodon_owner"))
    assert there == ["t", "f"]
