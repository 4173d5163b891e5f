"""Only staff get in: every way in that real Mastodon leaves open (tests/standin/stranger.py), against the deployed
instance, from a stranger's machine through nginx and TLS.

Requests that Mastodon limits, for one run of this file: 1 of the 5 applications and 2 of the 5 sign-ups by API that an
address may make in 10 and 30 minutes, 6 of 25 sign-ups by form, 1 of 25 sign-ins in 5 minutes.
"""

# ruff: noqa: S608 - the SQL is made of constants and names of these tests
from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.deployed import WEB, Deployed
from tests.lab.officials import CONFIRMATION, link_in_mail
from tests.lab.people import OTP, Browser, browser, form_of, hidden, token_of, tootctl

FOREIGN = "outside.test"
SENTENCE = "not in the staff register"
EVERYTHING = 65536 | 2097152  # may invite, and newcomers skip the approval
# No row means Mastodon's own default, which is `none` too.
OPEN = "SELECT count(*) FROM settings WHERE var = 'registrations_mode' AND value IS DISTINCT FROM E'--- none\\n'"
LONG = pytest.mark.long
SETTINGS = "/admin/settings/registrations"
TO_SECOND_FACTOR = ("/settings/two_factor_authentication_methods", OTP)  # the first sends on to the second


def _name() -> str:
    return f"t{secrets.token_hex(5)}"


def _foreign() -> tuple[str, str]:
    name = _name()
    return f"{name}@{FOREIGN}", name


@contextmanager
def _nobody_new(instance: Deployed) -> Iterator[None]:
    """No account appears and nobody is approved in this block."""
    count = (
        "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM accounts), "
        "(SELECT count(*) FROM users WHERE approved), (SELECT coalesce(sum(uses), 0) FROM invites)"
    )
    before = instance.sql(count)
    yield
    assert instance.sql(count) == before


@contextmanager
def _invited(instance: Deployed, address: str) -> Iterator[str]:
    """The code of an invitation, made by the verb; closed at the end."""
    done = instance.cli("invite", address, "--organisation", "agency", "--why", "a lab test")
    link = re.fullmatch(rf"https://{re.escape(WEB)}/invite/(\w+)", done.stdout.strip())
    assert link, done.stdout
    try:
        yield link[1]
    finally:
        instance.cli("revoke", address)


@pytest.fixture(scope="module")
def link(instance: Deployed, owner: Browser) -> Iterator[str]:
    """An open invitation of one member of staff, who never uses it."""
    with _invited(instance, f"{_name()}@agency.test") as code:
        yield code


@pytest.fixture(scope="module")
def application(instance: Deployed) -> str:
    """A token of an application that belongs to nobody; everybody may have one."""
    person = browser(instance)
    known = person.application("read write")
    return token_of(person, known | {"grant_type": "client_credentials"})


def _by_api(instance: Deployed, token: str, **more: str) -> tuple[int, str]:
    email, name = _foreign()
    form = {"username": name, "email": email, "password": secrets.token_hex(16), "agreement": "true", "locale": "en"}
    headers = {"Accept": "application/json", "Authorization": f"Bearer {token}"}
    answer = browser(instance).ask("/api/v1/accounts", form | more, **headers)
    return answer.status, json.loads(answer.page)["error"]


def _refused_by_form(instance: Deployed, code: str, address: str, name: str) -> None:
    """The form opens, because the link is right; the database refuses, and the person reads why."""
    with _nobody_new(instance):
        answer = browser(instance).sign_up(code, address, name)
    assert answer.status == 403, answer
    assert SENTENCE in answer.page
    assert "<h1>" in answer.page


def _dead(instance: Deployed, code: str) -> None:
    """A link that opens no form, for people and for programs."""
    with _nobody_new(instance):
        seen = browser(instance).ask(f"/invite/{code}")
        told = browser(instance).ask(f"/invite/{code}", Accept="application/json")
    assert (seen.status, seen.where) == (302, "/auth/sign_in")
    assert (told.status, json.loads(told.page)["error"]) == (401, "This invite is not valid")


def test_the_sign_up_page_is_closed(instance: Deployed) -> None:
    """Whoever looks for it is sent to the sign-in page."""
    answer = browser(instance).ask("/auth/sign_up")
    assert (answer.status, answer.where) == (302, "/auth/sign_in")


def test_an_account_by_api_without_an_invitation(instance: Deployed, application: str) -> None:
    """An application of one's own is free; an account is not."""
    with _nobody_new(instance):
        assert _by_api(instance, application) == (403, "Forbidden")


def test_an_account_by_api_with_a_right_invitation_and_a_foreign_address(
    instance: Deployed, application: str, link: str
) -> None:
    """Upstream lets this stranger in at once."""
    with _nobody_new(instance):
        status, error = _by_api(instance, application, invite_code=link)
    assert status == 403
    assert SENTENCE in error


def test_a_wrong_link(instance: Deployed) -> None:
    """It leads nowhere."""
    seen = browser(instance).ask("/invite/WRONG")
    told = browser(instance).ask("/invite/WRONG", Accept="application/json")
    assert (seen.status, seen.where) == (302, "/auth/sign_in")
    assert (told.status, json.loads(told.page)["error"]) == (404, "Record not found")


def test_a_right_link_and_a_foreign_address(instance: Deployed, link: str) -> None:
    """Upstream makes the account: a link overrides closed registration and the list of domains."""
    _refused_by_form(instance, link, *_foreign())


@pytest.mark.parametrize("domain", ["agency.test", "council.test"])
def test_a_right_link_and_somebody_else_of_the_staff(instance: Deployed, link: str, domain: str) -> None:
    """A link is for one address."""
    name = _name()
    _refused_by_form(instance, link, f"{name}@{domain}", name)


@pytest.mark.parametrize("who", ["mastodon", "mastodon_owner"])
def test_a_right_link_while_everyone_was_given_every_right(instance: Deployed, link: str, who: str) -> None:
    """Upstream approves this stranger at once. Giving the rights works for nobody."""
    user = who.replace("_", "-")
    instance.sql(f"UPDATE user_roles SET permissions = {EVERYTHING} WHERE id = -99", user=user, role=who)
    assert instance.sql("SELECT permissions FROM user_roles WHERE id = -99").strip() == "0"
    _refused_by_form(instance, link, *_foreign())


def test_a_link_without_limits_made_past_the_verb(instance: Deployed, owner: Browser) -> None:
    """Upstream's old links live on after everyone lost the right to invite. Here they are born dead, also when the
    application itself writes them."""
    code = _name()
    made = (
        "INSERT INTO invites (user_id, code, created_at, updated_at) SELECT users.id, '{}', now(), now() FROM users "
        "JOIN user_roles ON user_roles.id = role_id WHERE permissions & 1 = 1 LIMIT 1"
    )
    instance.sql(made.format(code), user="mastodon")
    try:
        _dead(instance, code)
        instance.sql(f"UPDATE invites SET expires_at = NULL, max_uses = NULL WHERE code = '{code}'", user="mastodon")
        _dead(instance, code)
    finally:
        instance.sql(f"DELETE FROM invites WHERE code = '{code}'")


def test_a_link_made_in_the_web_interface_is_born_dead(instance: Deployed, owner: Browser) -> None:
    """The owner may press the button; invitations are made by the verb."""
    before = instance.sql("SELECT coalesce(max(id), 0) FROM invites").strip()
    made = owner.fill("/invites", "/invites", **{"invite[max_uses]": "", "invite[expires_in]": ""})
    try:
        assert made.status == 302, made
        _dead(instance, instance.sql(f"SELECT code FROM invites WHERE id > {before}").strip())
    finally:
        instance.sql(f"DELETE FROM invites WHERE id > {before}")


def test_the_inviter_needs_a_second_factor(instance: Deployed, link: str) -> None:
    """Without it, links in that name are dead and the verb refuses to make one."""
    put = "UPDATE users SET otp_required_for_login = {} WHERE email = 'owner@agency.test'"
    instance.sql(put.format("false"))
    try:
        _dead(instance, link)
        done = instance.cli("invite", f"{_name()}@agency.test", "--organisation", "agency", check=False)
        assert done.returncode == 1
        assert "second factor" in done.stderr
        assert done.stdout == ""
    finally:
        instance.sql(put.format("true"))


@pytest.mark.parametrize("user", [pytest.param("mastodon", marks=LONG), "mastodon-owner"])
def test_tootctl_and_a_foreign_address(instance: Deployed, user: str) -> None:
    """Neither for the application's user nor for the operator."""
    email, name = _foreign()
    with _nobody_new(instance):
        code, said = tootctl(
            instance, "accounts", "create", name, "--email", email, "--confirmed", "--approve", user=user
        )
    assert code == 1
    assert "OK" not in said


def test_tootctl_as_the_application_and_a_staff_address(instance: Deployed) -> None:
    """Only the operator may make an account without an invitation."""
    name = _name()
    words = ("accounts", "create", name, "--email", f"{name}@agency.test", "--confirmed", "--approve")
    with _nobody_new(instance):
        code, said = tootctl(instance, *words, user="mastodon")
    assert code == 1
    assert "no open invitation" in said


def test_an_account_cannot_move_to_a_foreign_address(instance: Deployed) -> None:
    """Nor can the owner's, by the operator."""
    code, _ = tootctl(instance, "accounts", "modify", "owner", "--email", _foreign()[0])
    assert code == 1
    assert instance.sql("SELECT email FROM users WHERE email LIKE 'owner@%'").strip() == "owner@agency.test"


def test_the_verb_invites_no_foreign_address(instance: Deployed, owner: Browser) -> None:
    """A sentence, and nothing in the ledger."""
    address = _foreign()[0]
    done = instance.cli("invite", address, "--organisation", "agency", check=False)
    assert done.returncode == 1
    assert "organisations.yaml" in done.stderr
    assert address not in instance.cli("invitations").stdout


def test_invited_staff_get_in_and_a_second_person_approves(instance: Deployed, owner: Browser) -> None:
    """The address in whatever case; the account waits although the inviter has every right. The link works once."""
    name = _name()
    with _invited(instance, f"{name.upper()}@Agency.Test") as code:
        person = browser(instance)
        answer = person.sign_up(code, f"{name.title()}@AGENCY.test", name)
        assert (answer.status, answer.where) == (302, "/auth/setup"), answer
        _dead(instance, code)
    try:
        assert _account(instance, name) == f"f|{name}@agency.test|f"
        assert person.ask("/auth/setup").status == 200
        assert person.ask(link_in_mail(instance, f"{name}@agency.test", CONFIRMATION)).status == 302
        assert person.ask("/invites").where in ("/auth/setup", *TO_SECOND_FACTOR)
        assert _account(instance, name) == f"f|{name}@agency.test|t"
        number = instance.sql(f"SELECT id FROM accounts WHERE username = '{name}'").strip()
        approved = owner.fill("/admin/accounts", f"/admin/accounts/{number}/approve")
        assert (approved.status, approved.where.partition("?")[0]) == (302, "/admin/accounts"), approved
        assert _account(instance, name) == f"t|{name}@agency.test|t"
        assert person.ask("/invites").where in TO_SECOND_FACTOR  # in, once it is set up
    finally:
        tootctl(instance, "accounts", "delete", name)


def _account(instance: Deployed, name: str) -> str:
    asked = "SELECT approved, email, confirmed_at IS NOT NULL FROM users JOIN accounts ON accounts.id = account_id"
    return instance.sql(f"{asked} WHERE username = '{name}'").strip()


@pytest.mark.parametrize(
    ("verb", "user"),
    [
        ("open", "mastodon-owner"),
        ("approved", "mastodon"),
        pytest.param("open", "mastodon", marks=LONG),
        pytest.param("approved", "mastodon-owner", marks=LONG),
    ],
)
def test_tootctl_cannot_open_registration(instance: Deployed, user: str, verb: str) -> None:
    """It fails, says why, and the mode stays."""
    code, said = tootctl(instance, "settings", "registrations", verb, user=user)
    assert code != 0
    assert "Registration is locked" in said
    assert instance.sql(OPEN).strip() == "0"


@pytest.mark.parametrize("mode", ["open", "approved"])
def test_the_admin_form_cannot_open_registration(instance: Deployed, owner: Browser, mode: str) -> None:
    """The owner reads that the setting is fixed; the form as such works."""
    fields = {"_method": "patch", "form_admin_settings[site_title]": "Demonstration Social"}
    refused = owner.fill(SETTINGS, SETTINGS, **fields, **{"form_admin_settings[registrations_mode]": mode})
    assert refused.status == 403, refused
    assert "This setting is fixed" in refused.page
    assert instance.sql(OPEN).strip() == "0"
    told = json.loads(browser(instance).ask("/api/v2/instance").page)
    assert told["registrations"]["enabled"] is False
    page = owner.ask(SETTINGS)
    assert page.status == 200
    assert hidden(form_of(page.page, SETTINGS), "authenticity_token")
