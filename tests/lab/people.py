"""People at their browsers, on the machine `outside`: a stranger, a member of staff, the owner."""

from __future__ import annotations

import base64
import hmac
import html
import json
import re
import secrets
import struct
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mastodon_gov.lab.machine import Machine
from tests.lab.deployed import LIB, WEB, Deployed

FORM_WAIT = 3.5  # seconds; the sign-up form refuses whoever is faster than a person
OOB = "urn:ietf:wg:oauth:2.0:oob"
RELEASE = "/opt/mastodon/current"
FIRST_PASSWORD = "/var/lib/mastodon-gov/owner-first-password"
OTP = "/settings/otp_authentication"
CURL = ["curl", "-sS", "--max-time", "30", "--retry", "2", "--retry-all-errors", "--cacert", "/root/lab-ca.pem"]
# A picture of one point.
PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
CONFIRM = "/settings/two_factor_authentication/confirmation"


@dataclass(frozen=True)
class Answer:
    """What the browser got: status (0: no answer), where it is sent (path and query), page."""

    status: int
    where: str
    page: str


class Browser:
    """One person's browser: keeps its cookies, follows nothing by itself, trusts the lab's authority."""

    def __init__(self, machine: Machine, ca: str) -> None:
        """Start without cookies; `ca` is the text of the authority's certificates."""
        self.machine, self.jar = machine, f"/root/jar-{secrets.token_hex(4)}"
        self.password = ""  # of who signed in or up here; Mastodon asks again before it changes how somebody gets in
        machine.exec(["sh", "-c", "cat > /root/lab-ca.pem"], stdin=ca)

    def ask(self, path: str, form: dict[str, str] | None = None, *, method: str = "", **headers: str) -> Answer:
        """GET, or POST of a form; the form travels on standard input. Keywords are headers."""
        words = [
            "curl",
            "-sS",
            "-i",
            "--max-time",
            "60",
            "--cacert",
            "/root/lab-ca.pem",
            "-b",
            self.jar,
            "-c",
            self.jar,
        ]
        words += [word for name, value in headers.items() for word in ("-H", f"{name.replace('_', '-')}: {value}")]
        words += ["-X", method] if method else []
        words += ["--data-binary", "@-"] if form is not None else []
        stdin = urllib.parse.urlencode(form) if form is not None else ""
        done = self.machine.exec([*words, f"https://{WEB}{path}"], stdin=stdin, check=False)
        head, _, page = str(done.stdout).partition("\n\n")
        if not head:
            return Answer(0, "", str(done.stderr))
        where = re.search(r"^location: *(.*)$", head, re.M | re.I)
        split = urllib.parse.urlsplit(where[1].strip() if where else "")
        return Answer(int(head.split()[1]), split._replace(scheme="", netloc="").geturl(), page)

    def fill(self, page_at: str, send_to: str, **fields: str) -> Answer:
        """Open a page with a form and send the form, with its token, to an address."""
        return self.ask(send_to, {"authenticity_token": csrf_of(self.ask(page_at).page, send_to)} | fields)

    def sign_in(self, address: str, password: str) -> Answer:
        """The form; a person with a second factor is asked for it next (200)."""
        self.password = password
        return self.fill("/auth/sign_in", "/auth/sign_in", **{"user[email]": address, "user[password]": password})

    def sign_up(self, code: str, email: str, username: str) -> Answer:
        """Follow an invite link: the rules if there are any (a form since 4.6, a link before), then the form."""
        seen = self.ask(f"/invite/{code}")
        if rules := form_of(seen.page, "/auth/acceptance"):
            accept = {name: hidden(rules, name) for name in ("authenticity_token", "invite_code", "accept")}
            seen = self.ask(self.ask("/auth/acceptance", accept).where)
        elif link := re.search(rf"/invite/{code}\?accept=\w+", seen.page):
            seen = self.ask(link[0])
        if seen.status != 200:
            return seen
        time.sleep(FORM_WAIT)  # not a wait for a condition: the form measures the person
        self.password = password = secrets.token_hex(16)
        return self.ask(
            "/auth",
            {
                "authenticity_token": hidden(form_of(seen.page, "/auth"), "authenticity_token"),
                "accept": hidden(seen.page, "accept"),
                "user[invite_code]": code,
                "user[account_attributes][username]": username,
                "user[email]": email,
                "user[password]": password,
                "user[password_confirmation]": password,
                "user[agreement]": "1",
            },
        )

    def application(self, scopes: str) -> dict[str, str]:
        """Register an application. An address may do so five times in ten minutes."""
        form = {"client_name": "a lab test", "redirect_uris": OOB, "scopes": scopes}
        known: dict[str, str] = json.loads(self.ask("/api/v1/apps", form, Accept="application/json").page)
        return {name: known[name] for name in ("client_id", "client_secret")} | {"redirect_uri": OOB, "scope": scopes}

    def token(self, application: dict[str, str]) -> str:
        """An access token for whoever is signed in, as a program on a person's telephone gets it."""
        query = urllib.parse.urlencode(application | {"response_type": "code"})
        page = f"/oauth/authorize?{query}"
        given = self.fill(page, "/oauth/authorize", **application, response_type="code")
        code = urllib.parse.parse_qs(urllib.parse.urlsplit(given.where).query)["code"][0]
        return token_of(self, application | {"grant_type": "authorization_code", "code": code})


def token_of(browser: Browser, form: dict[str, str]) -> str:
    """An access token in exchange for a grant."""
    given = browser.ask("/oauth/token", form, Accept="application/json")
    assert given.status == 200, given
    return str(json.loads(given.page)["access_token"])


def upload(instance: Deployed, token: str) -> dict[str, Any]:
    """PICTURE, sent by a program that holds the token; the answer. Neither is on a command line."""
    outside = instance.machine("outside")
    outside.exec(["sh", "-c", "base64 -d > /root/picture.png"], stdin=base64.b64encode(PICTURE).decode())
    words = [*CURL, "-H", "@-", "-F", "file=@/root/picture.png", f"https://{WEB}/api/v2/media"]
    answer: dict[str, Any] = json.loads(outside.exec(words, stdin=f"Authorization: Bearer {token}\n").stdout)
    return answer


def form_of(page: str, send_to: str) -> str:
    """The form of a page that is sent to an address: each has a token of its own. "" when there is none."""
    for form in re.findall(r"<form.*?</form>", page, re.S):
        if f'action="{html.escape(send_to)}"' in form:
            return str(form)
    return ""


def csrf_of(page: str, send_to: str) -> str:
    """What must come with a POST: the token of the form, or of the page where a script makes a link into a POST."""
    whole = re.search(r'<meta name="csrf-token" content="([^"]*)"', page)
    return hidden(form_of(page, send_to), "authenticity_token") or (html.unescape(whole[1]) if whole else "")


def hidden(page: str, name: str) -> str:
    """Value of a hidden field or a button; "" when the page has none."""
    for tag in re.findall(r"<(?:input|button)[^>]*>", page):
        value = re.search(r'value="([^"]*)"', tag)
        if f'name="{name}"' in tag and value:
            return html.unescape(value[1])
    return ""


def browser(instance: Deployed) -> Browser:
    """A new person's browser."""
    return Browser(instance.machine("outside"), (instance.directory / "lab-ca.pem").read_text())


def tootctl(instance: Deployed, *words: str, user: str = "mastodon-owner") -> tuple[int, str]:
    """Run `tootctl` on the host as one of the release's two users: exit code and everything it said."""
    command = [f"{LIB}/mastodon-run", user, RELEASE, "bundle", "exec", "bin/tootctl", *words]
    done = instance.machine().exec(command, check=False)
    return done.returncode, str(done.stdout) + str(done.stderr)


def totp(secret: str) -> str:
    """The six digits of this half minute (RFC 6238 with SHA-1, as every authenticator program uses it)."""
    counter = struct.pack(">Q", int(time.time()) // 30)
    digest = hmac.digest(base64.b32decode(secret + "=" * (-len(secret) % 8)), counter, "sha1")
    at = digest[-1] & 15
    number: int = struct.unpack(">I", digest[at : at + 4])[0]
    return f"{(number & 0x7FFFFFFF) % 10**6:06}"


def enrol(person: Browser) -> str:
    """Set up a second factor through the pages; its secret. The password is asked for once more on the way."""
    assert person.fill(OTP, OTP, **{"form_challenge[current_password]": person.password}).where == f"{CONFIRM}/new"
    page = person.ask(f"{CONFIRM}/new").page
    shown = re.search(r"<(?:code|samp)[^>]*>([A-Z2-7 ]+)</", page)
    assert shown, page
    secret = shown[1].replace(" ", "")
    form = {"authenticity_token": csrf_of(page, CONFIRM), "form_two_factor_confirmation[otp_attempt]": totp(secret)}
    assert person.ask(CONFIRM, form).status == 200
    return secret


@contextmanager
def signed_in_owner(instance: Deployed) -> Iterator[Browser]:
    """The owner after the first step: signed in with the first password, second factor set up through the pages.
    The second factor is taken off again at the end."""
    password = instance.root(f"cat {FIRST_PASSWORD} 2>/dev/null || true").strip()
    if not password:  # it was shown to somebody before
        done, said = tootctl(instance, "accounts", "modify", "owner", "--reset-password")
        found = re.search(r"New password: (\S+)", said)
        assert not done, said
        assert found, said
        password = found[1]
    person = browser(instance)
    try:
        entered = person.sign_in("owner@agency.test", password)
        assert entered.status == 302, entered
        enrol(person)
        yield person
    finally:
        tootctl(instance, "accounts", "modify", "owner", "--disable-2fa")
