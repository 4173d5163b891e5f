"""From an invitation to the first post, as docs/operator/first-post.md tells a new member of staff, over HTTP."""

from __future__ import annotations

import json
import re
import secrets

from mastodon_gov.lab.world.mail import read_mail, text_of
from tests.lab.deployed import Deployed, wait_for
from tests.lab.people import OTP, Browser, browser, enrol, tootctl


def confirmation(instance: Deployed, address: str) -> str:
    """The path in the mail that the person got."""

    def arrived() -> str | None:
        for message in read_mail(instance.demo.lab):
            found = re.search(r"/auth/confirmation\?confirmation_token=[\w-]+", text_of(message))
            if address in message["To"] and found:
                return found[0]
        return None

    return wait_for(arrived, 60, f"a mail to {address}")


def test_from_an_invitation_to_the_first_post(instance: Deployed, owner: Browser) -> None:
    """Link, rules, form, mail, approval by a second person; nothing opens before the second factor; then a post that
    everybody reads."""
    name = f"first{secrets.token_hex(4)}"
    address = f"{name}@agency.test"
    link = instance.cli("invite", address, "--organisation", "agency", "--why", "a lab test").stdout.strip()
    person = browser(instance)
    try:
        assert person.sign_up(link.rpartition("/")[2], address, name).where == "/auth/setup"
        assert person.ask(confirmation(instance, address)).status == 302
        number = instance.sql(f"SELECT id FROM accounts WHERE username = '{name}'").strip()  # noqa: S608
        assert owner.fill("/admin/accounts", f"/admin/accounts/{number}/approve").status == 302
        application = person.application("read write")
        sent = person.ask(f"/oauth/authorize?response_type=code&client_id={application['client_id']}")
        assert (sent.status, sent.where) == (302, OTP)
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
