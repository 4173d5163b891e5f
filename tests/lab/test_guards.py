"""What nobody may do to an official account by a click, tried on the pages of the deployed instance by the account's
own person, frozen or not. The same as SQL, and each trigger's absence: tests/lab/lock."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.deployed import Deployed
from tests.lab.officials import Official, official
from tests.lab.people import Answer, browser, enrol, tootctl

DELETE, CLEANUP, MOVE = "/settings/delete", "/statuses_cleanup", "/settings/migration"
SENTENCE = "Not possible with an official account"


@pytest.fixture(scope="module")
def desk(instance: Deployed) -> Iterator[Official]:
    """A press desk with a second factor, signed in."""
    with official(instance) as account:
        assert account.person.sign_in(account.address, account.password).status == 302
        enrol(account.person)
        yield account


def _try(account: Official, way: str) -> Answer:
    """Fill in the form of a page as upstream shows it, with the right password."""
    secret = {"password": account.password, "current_password": account.password}
    page, sent, fields = {
        "delete": (DELETE, DELETE, {"_method": "delete", "form_delete_confirmation[password]": secret["password"]}),
        "old posts": (CLEANUP, CLEANUP, {"_method": "put", "account_statuses_cleanup_policy[enabled]": "1"}),
        "move": (MOVE, MOVE, {"account_migration[acct]": "owner"}),
        "redirect": (MOVE, f"{MOVE}/redirect", {"form_redirect[acct]": "owner"}),
    }[way]
    for form in ("account_migration", "form_redirect"):
        if f"{form}[acct]" in fields:
            fields[f"{form}[current_password]"] = secret["current_password"]
    return account.person.fill(page, sent, **fields)


def _state(account: Official) -> list[int]:
    alive = "id = {a} AND suspended_at IS NULL AND moved_to_account_id IS NULL"
    rows = ("account_deletion_requests", "account_migrations", "account_statuses_cleanup_policies")
    return [account.count("accounts", alive), *(account.count(table, "account_id = {a}") for table in rows)]


@pytest.mark.parametrize("way", ["delete", "old posts", "move", "redirect"])
def test_the_person_reads_why(desk: Official, way: str) -> None:
    """Refused with a sentence; nothing has changed."""
    before = _state(desk)
    answer = _try(desk, way)
    assert answer.status == 403, answer
    assert SENTENCE in answer.page
    assert _state(desk) == before == [1, 0, 0, 0]


def test_a_clean_up_that_is_off_may_be_saved(desk: Official) -> None:
    """The page as such works: the refusal above is not that of a broken page."""
    fields = {"_method": "put", "account_statuses_cleanup_policy[enabled]": "0"}
    assert desk.person.fill(CLEANUP, CLEANUP, **fields).status == 302
    assert desk.count("account_statuses_cleanup_policies", "account_id = {a} AND NOT enabled") == 1
    desk.instance.sql("DELETE FROM account_statuses_cleanup_policies WHERE NOT enabled")


def test_a_frozen_person_does_not_delete_the_account(instance: Deployed) -> None:
    """Upstream lets a frozen person in as far as the page that deletes everything: seen on the real one, within 6 s."""
    with official(instance) as account:
        assert tootctl(instance, "accounts", "modify", account.name, "--disable")[0] == 0
        assert account.person.sign_in(account.address, account.password).status == 302
        answer = _try(account, "delete")
        assert (answer.status, SENTENCE in answer.page) == (403, True)
        assert _state(account) == [1, 0, 0, 0]
        assert browser(instance).ask(f"/@{account.name}").status == 200


@pytest.mark.long
@pytest.mark.parametrize(
    ("way", "table", "trigger"),
    [
        ("delete", "account_deletion_requests", "gov_deletions_check"),
        ("old posts", "account_statuses_cleanup_policies", "gov_cleanup_check"),
        ("move", "account_migrations", "gov_migrations_check"),
        ("redirect", "accounts", "gov_accounts_stay"),
    ],
)
def test_each_guard_carries_its_weight(instance: Deployed, way: str, table: str, trigger: str) -> None:
    """Without it the click works, the status says which guard is missing, and a deploy puts it back."""
    others = {"delete": ["accounts"], "move": ["accounts"]}.get(way, [])
    names = {"accounts": "gov_accounts_stay"}
    off = "".join(f"ALTER TABLE {t} DISABLE TRIGGER {names.get(t, trigger)};" for t in (table, *others))
    with official(instance) as account:
        assert account.person.sign_in(account.address, account.password).status == 302
        enrol(account.person)
        try:
            instance.sql(off)
            assert _try(account, way).status == 302
            failed = instance.sql("SELECT gov.status() -> 'failed'")
            assert f"trigger:{trigger}" in failed
        finally:
            instance.deploy()
        assert instance.sql("SELECT gov.status() ->> 'ok'").strip() == "true"
