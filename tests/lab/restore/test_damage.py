"""Damage in a copy is found: in an index and in a table, by the two looks that a restore and a drill take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.lab.deployed import Deployed

PROGRAM = Path(__file__).with_name("damage.py")


@pytest.mark.parametrize(
    ("relation", "expected"),
    [
        ("rows_id", 'pg_amcheck found damage: btree index "mastodon_production.public.rows_id"'),
        ("rows", 'pg_amcheck found damage: heap table "mastodon_production.public.rows"'),
    ],
)
def test_overwritten_bytes_are_found_by_both_looks(relation: str, expected: str, instance: Deployed) -> None:
    told = json.loads(instance.root(f"python3 -B - /var/tmp/damage {relation}", stdin=PROGRAM.read_text()))
    assert told["whole"] == [[], []]
    (index,), (page,) = told["damaged"]
    assert index.startswith(expected)
    assert page.startswith("pg_checksums: ")
    assert "checksum verification failed" in page
