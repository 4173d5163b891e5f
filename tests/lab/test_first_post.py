"""From an invitation to the first post, as docs/operator/first-post.md tells a new member of staff: over HTTP, and in a
real browser."""

from __future__ import annotations

import json
import secrets
import time
import urllib.parse

import pytest

from tests.lab.chromium import chromium, field
from tests.lab.deployed import Deployed, wait_for
from tests.lab.officials import CONFIRMATION, link_in_mail
from tests.lab.people import (
    CONFIRM,
    FORM_WAIT,
    OTP,
    Browser,
    browser,
    enrol,
    token_of,
    tootctl,
    totp,
)


def test_from_an_invitation_to_the_first_post(instance: Deployed, owner: Browser) -> None:
    """Link, rules, form, mail, approval by a second person; nothing opens before the second factor; then a post that
    everybody reads."""
    name = f"first{secrets.token_hex(4)}"
    address = f"{name}@agency.test"
    link = instance.cli("invite", address, "--organisation", "agency", "--why", "a lab test").stdout.strip()
    person = browser(instance)
    try:
        assert person.sign_up(link.rpartition("/")[2], address, name).where == "/auth/setup"
        assert person.ask(link_in_mail(instance, address, CONFIRMATION)).status == 302
        number = instance.sql(f"SELECT id FROM accounts WHERE username = '{name}'").strip()  # noqa: S608
        assert owner.fill("/admin/accounts", f"/admin/accounts/{number}/approve").status == 302
        application = person.application("read write")
        sent = person.ask(f"/oauth/authorize?response_type=code&client_id={application['client_id']}")
        if sent.where.startswith("/settings/two_factor_authentication_methods"):  # which sends on who has none
            sent = person.ask(sent.where)
        assert (sent.status, sent.where.partition("?")[0]) == (302, OTP)
        enrol(person)
        token = person.token(application)
        words = f"Tēnā koutou from {name}"
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        posted = json.loads(person.ask("/api/v1/statuses", {"status": words}, **headers).page)
        read = browser(instance).ask(f"/api/v1/statuses/{posted['id']}", Accept="application/json")
        assert words in json.loads(read.page)["content"]
        assert browser(instance).ask(f"/@{name}/{posted['id']}").status == 200
    finally:
        tootctl(instance, "accounts", "delete", name)


@pytest.mark.long
def test_the_same_in_a_real_browser(instance: Deployed, owner: Browser) -> None:
    """Headless Chromium clicks and types what the page for staff says; nobody helps it past a page."""
    name = f"click{secrets.token_hex(4)}"
    address = f"{name}@agency.test"
    link = instance.cli("invite", address, "--organisation", "agency", "--why", "a lab test").stdout.strip()
    password = secrets.token_hex(16)
    form = {"user[account_attributes][username]": name, "user[email]": address}
    form |= dict.fromkeys(("user[password]", "user[password_confirmation]"), password)
    try:
        with chromium(instance.machine("outside")) as person:
            person.open(link)
            assert "Be civil" in person.text
            person.click('form[action^="/auth/acceptance"] [type="submit"], a[href*="accept="]')  # a link before 4.6
            for at, words in form.items():
                person.type(at, words)
            person.click('input[type="checkbox"][name="user[agreement]"]')
            time.sleep(FORM_WAIT)  # not a wait for a condition: the form measures the person
            person.submit("/auth")
            assert person.path == "/auth/setup"
            person.open(link_in_mail(instance, address, CONFIRMATION))
            number = instance.sql(f"SELECT id FROM accounts WHERE username = '{name}'").strip()  # noqa: S608
            assert owner.fill("/admin/accounts", f"/admin/accounts/{number}/approve").status == 302
            application = owner.application("read write")
            page = f"/oauth/authorize?{urllib.parse.urlencode(application | {'response_type': 'code'})}"
            person.open(page)
            assert person.path.partition("?")[0] == OTP
            person.click(f'form[action^="{OTP}"] [type="submit"], a[data-method="post"][href^="{OTP}"]')
            if person.has(field("form_challenge[current_password]")):
                person.type("form_challenge[current_password]", password)
                person.click('form [type="submit"]')
            secret = person.read("code, samp.qr-alternative__code").replace(" ", "")
            person.type("form_two_factor_confirmation[otp_attempt]", totp(secret))
            person.submit(CONFIRM)
            assert "Two-factor" in person.text
            person.open(page)
            person.submit("/oauth/authorize")
            code = urllib.parse.parse_qs(urllib.parse.urlsplit(person.path).query)["code"][0]
            token = token_of(browser(instance), application | {"grant_type": "authorization_code", "code": code})
            headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
            posted = browser(instance).ask("/api/v1/statuses", {"status": "Kia ora koutou"}, **headers)
            person.open(f"/@{name}/{json.loads(posted.page)['id']}")
            wait_for(lambda: "Kia ora koutou" in person.text, 30, "the post is drawn by the page's script")
    finally:
        tootctl(instance, "accounts", "delete", name)
