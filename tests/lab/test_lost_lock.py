"""A live database that has lost its lock, or cannot say what it holds, is never taken for a new one."""

from __future__ import annotations

from tests.lab.deployed import Deployed

ASKED = "gov.without_organisation(jsonb)"
BROKEN = """CREATE OR REPLACE FUNCTION gov.without_organisation(wanted jsonb) RETURNS jsonb LANGUAGE plpgsql AS
$$BEGIN RAISE EXCEPTION 'a disk that cannot be read'; END$$"""


def test_a_lock_that_was_lost_is_put_back_and_no_schema_is_loaded(instance: Deployed) -> None:
    """Rails would run every migration of the release at once, without a restore point."""
    instance.sql("DROP FUNCTION gov.status()")
    changes = instance.deploy()["changes"]
    assert "Mastodon | Lock the database" in changes
    assert "Mastodon | Make the tables" not in changes
    assert instance.sql("SELECT gov.status() ->> 'ok'").strip() == "true"
    assert instance.deploy()["changes"] == []


def test_half_an_answer_ends_the_deploy(instance: Deployed) -> None:
    """With PostgreSQL's own words, before anything is written."""
    kept = instance.sql(f"SELECT pg_get_functiondef('{ASKED}'::regprocedure)")
    instance.sql(BROKEN)
    try:
        done = instance.cli("deploy", check=False)
    finally:
        instance.sql(kept)
    assert done.returncode == 1
    assert "a disk that cannot be read" in done.stdout + done.stderr
    assert "nothing is done to it" in done.stdout + done.stderr
    assert instance.deploy()["changes"] == []
