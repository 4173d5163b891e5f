"""The statements that shut an account name only tables and columns that both Mastodon versions have: in an emergency
nobody wants to learn of a typing error."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "roles/mastodon/files"
SCRIPTS = ("leaving_cut.sql", "leaving_evidence.sql", "people.sql")


def columns(version: str) -> dict[str, set[str]]:
    """Columns of each table, as observed on real Mastodon or read in its schema."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / f"tests/lab/lock/data/columns-{version}.tsv").read_text().splitlines():
        table, column, *_ = line.split("\t")
        found.setdefault(table, set()).add(column)
    return found


@pytest.mark.parametrize("version", ["4.5.15", "4.6.5"])
def test_tables_and_columns_are_there(version: str) -> None:
    """Every table, what is set on users, and what is read through an alias."""
    known = columns(version)
    for script in SCRIPTS:
        text = re.sub(r"--.*", "", (FILES / script).read_text())
        assert set(re.findall(r"public\.(\w+)", text)) <= set(known), script
        aliases = {alias: table for table, alias in re.findall(r"public\.(\w+) ([a-z])\b", text)}
        used = {(aliases[alias], column) for alias, column in re.findall(r"\b([a-z])\.(\w+)", text) if alias in aliases}
        made = {"keys", "identities", "sessions", "seen", "posts", "tokens", "id"}  # of sub-queries with these names
        assert {pair for pair in used if pair[1] not in known[pair[0]] | made} == set(), script
    cut = (FILES / "leaving_cut.sql").read_text().split("UPDATE public.users SET")[1].split("WHERE")[0]
    assigned = set(re.findall(r"(?:^|, |\n\s+)(\w+) = ", f", {cut.strip()}"))
    assert len(assigned) >= 14
    assert assigned <= known["users"]
