"""An official account with everything by which somebody gets in or acts later, made through pages and interface."""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from mastodon_gov.lab.world.mail import read_mail, text_of
from tests.lab.deployed import WEB, Deployed, wait_for
from tests.lab.people import Answer, Browser, browser, enrol, form_of, hidden, tootctl

EDIT, PASSWORD = "/auth/edit", "/auth/password"
CONFIRMATION = "/auth/confirmation?confirmation_token="
SIGN_IN = "user[password]"  # a field of the sign-in page, which comes again with status 200 or 422
# A point of P-256: Mastodon takes no other key.
PUSH_KEY = "BBkvBJyCCzbADiVFllR9wr5Zk-K8WxyHevmWkO7_ApxmbMjF0oQ3sc3ZFkn-3VkMAkC1FAuYY8DE01FlDynFOAs"


@dataclass
class Official:
    """An account, its person at a browser, and what the person holds."""

    instance: Deployed
    name: str
    password: str
    person: Browser
    token: str = ""
    domain: str = "agency.test"
    streams: list[Stream] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Its mail address."""
        return f"{self.name}@{self.domain}"

    def sign_in(self) -> Answer:
        """A fresh browser with the first password."""
        return browser(self.instance).sign_in(self.address, self.password)

    def api(self, path: str, form: dict[str, str] | None = None) -> Answer:
        """A request of the program that holds the token."""
        headers = {"Accept": "application/json", "Authorization": f"Bearer {self.token}"}
        return browser(self.instance).ask(path, form, **headers)

    def count(self, table: str, where: str) -> int:
        """Rows of a table that belong to this account; `{u}` and `{a}` are its ids."""
        ids = self.instance.sql(f"SELECT u.id, a.id FROM users u JOIN accounts a ON a.id = account_id WHERE "  # noqa: S608
                                f"username = '{self.name}'").strip().split("|")  # fmt: skip
        return int(self.instance.sql(f"SELECT count(*) FROM {table} WHERE {where.format(u=ids[0], a=ids[1])}"))  # noqa: S608

    def column(self, name: str) -> str:
        """A column of the user."""
        asked = f"SELECT u.{name} FROM users u JOIN accounts a ON a.id = account_id WHERE username = '{self.name}'"  # noqa: S608
        return self.instance.sql(asked).strip()


class Stream:
    """An open connection to the streaming server."""

    def __init__(self, instance: Deployed, token: str) -> None:
        """Open it and wait for the first sign of life."""
        self.ended: float | None = None
        out = f"/root/stream-{secrets.token_hex(4)}"
        words = f"curl -sN --max-time 120 --cacert /root/lab-ca.pem -H @- https://{WEB}/api/v1/streaming/user >{out}"
        header = f"Authorization: Bearer {token}\n"

        def listen() -> None:
            instance.machine("outside").exec(["sh", "-c", words], stdin=header, check=False)
            self.ended = time.monotonic()

        self.thread = threading.Thread(target=listen, daemon=True)
        self.thread.start()
        shown = ["sh", "-c", f"grep -q ':)' {out}"]
        wait_for(lambda: not instance.machine("outside").exec(shown, check=False).returncode, 30, "the stream opens")


@contextmanager
def official(instance: Deployed, domain: str = "agency.test") -> Iterator[Official]:
    """A bare account made by the operator; removed at the end."""
    name = f"o{secrets.token_hex(5)}"
    words = ("accounts", "create", name, "--email", f"{name}@{domain}", "--confirmed", "--approve")
    code, said = tootctl(instance, *words)
    found = re.search(r"New password: (\S+)", said)
    assert not code, said
    assert found, said
    try:
        yield Official(instance, name, found[1], browser(instance), domain=domain)
    finally:
        tootctl(instance, "accounts", "delete", name)


_BESIDES = """
UPDATE users u SET webauthn_id = 'w', sign_in_token = 's', otp_backup_codes = '{{b}}'
  FROM accounts a WHERE a.id = u.account_id AND a.username = '{name}';
INSERT INTO webauthn_credentials (external_id, public_key, nickname, user_id, created_at, updated_at)
SELECT 'e{name}', 'p', 'a key', u.id, now(), now() FROM users u JOIN accounts a ON a.id = account_id
 WHERE a.username = '{name}';
INSERT INTO gov.setting VALUES ('inviter', '{name}');
SELECT gov.invite('{{"address": "{name}.guest@agency.test", "organisation": "agency", "by": "a lab test"}}');
DELETE FROM gov.setting WHERE name = 'inviter';
INSERT INTO account_stats (account_id, followers_count, created_at, updated_at)
SELECT id, 1, now(), now() FROM accounts WHERE username = '{name}'
    ON CONFLICT (account_id) DO UPDATE SET followers_count = 1;
"""


def furnish(account: Official) -> None:
    """Session, second factor, token, push subscription, grant, post, scheduled post, pending address, reset link, open
    stream; and past the pages a security key, a code to sign in by mail, an invitation in that name, a follower."""
    person = account.person
    assert person.sign_in(account.address, account.password).status == 302
    enrol(person)
    application = person.application("read write push")
    account.token = person.token(application)
    assert account.api("/api/v1/statuses", {"status": "an official word"}).status == 200
    assert account.api("/api/v1/statuses", {"status": "later", "scheduled_at": "2030-01-01T00:00:00Z"}).status == 200
    push = {"subscription[endpoint]": "https://push.world.test/x", "subscription[keys][p256dh]": PUSH_KEY,
            "subscription[keys][auth]": "AAAAAAAAAAAAAAAAAAAAAA"}  # fmt: skip
    assert account.api("/api/v1/push/subscription", push).status == 200
    grant = application | {"response_type": "code"}
    assert person.fill(f"/oauth/authorize?{urllib.parse.urlencode(grant)}", "/oauth/authorize", **grant).status == 302
    change = {
        "_method": "put",
        "user[email]": f"{account.name}.new@agency.test",
        "user[current_password]": account.password,
    }
    page = form_of(person.ask(EDIT).page, "/auth")
    assert person.ask("/auth", {"authenticity_token": hidden(page, "authenticity_token")} | change).status == 302
    assert ask_for_reset(account.instance, account.address).status == 302
    wait_for(lambda: account.column("reset_password_token"), 60, "the reset link is made")
    account.instance.sql(_BESIDES.format(name=account.name))
    account.streams.append(Stream(account.instance, account.token))


def ask_for_reset(instance: Deployed, address: str) -> Answer:
    """What anybody can do who knows an address."""
    return browser(instance).fill(f"{PASSWORD}/new", PASSWORD, **{"user[email]": address})


def link_in_mail(instance: Deployed, address: str, path: str) -> str:
    """The newest link of a kind in the mails to an address."""

    def arrived() -> str | None:
        found = [m[0] for message in read_mail(instance.demo.lab) if address in message["To"]
                 and (m := re.search(rf"{re.escape(path)}[\w-]+", text_of(message)))]  # fmt: skip
        return found[-1] if found else None

    return wait_for(arrived, 60, f"a mail to {address}")


def journal(instance: Deployed, verb: str, name: str) -> list[dict[str, str]]:
    """Entries of a verb about an account in the host's journal."""
    lines = instance.root(f"journalctl -q -o json -t mastodon-gov MFG_VERB='{verb}' MFG_WHOM='{name}'")
    return [json.loads(line) for line in lines.splitlines()]
