#!/usr/bin/env python3
"""A stranger at a release WITHOUT our database lock: does each way in behave as it does on real Mastodon?

Run as root on the instance's host (lab only; Python standard library only). Real Mastodon lets a stranger in on
several of these ways, and so must the stand-in: the lock is what closes them, and a stand-in that were closed by
itself would prove nothing. The rows are those of `mastodon-observed.md` §5.

  stranger.py --release /opt/mastodon/current --env-file /etc/mastodon/mastodon.env \
              --host social.agency.test --staff-domain agency.test --foreign-domain foreign.test [--web 127.0.0.1:3000]

The foreign domain needs an MX or address record in the resolver's DNS. Accounts named stranger… stay behind.
Each run takes one application of the five, and two API sign-ups of the five, that an address may make.

Exit 0: every row as observed upstream; 1: at least one differs.
"""

from __future__ import annotations

import argparse
import http.cookies
import json
import os
import re
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

INVITE, BYPASS = 65536, 2097152  # permission bits
FORM_WAIT = 3.5  # seconds; the sign-up form refuses whoever is faster
Answer = tuple[int, str, str]  # status, Location without the host, body
Row = tuple[str, tuple[int | str | bool, ...], tuple[int | str | bool, ...]]  # attempt, observed, upstream's answer


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is a result here."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Never follow."""


class Browser:
    """One person's browser, talking to the web process as the proxy does."""

    def __init__(self, web: str, host: str) -> None:
        """Start without cookies."""
        self.web, self.host, self.cookie = web, host, ""
        self.opener = urllib.request.build_opener(NoRedirect)

    def ask(self, path: str, form: dict[str, str] | None = None, **headers: str) -> Answer:
        """GET, or POST of a form. The session cookie is kept by hand: it is marked secure and this is plain HTTP."""
        data = urllib.parse.urlencode(form).encode() if form is not None else None
        send = {"Host": self.host, "X-Forwarded-Proto": "https", "Accept": "text/html", "Cookie": self.cookie}
        request = urllib.request.Request(f"http://{self.web}{path}", data, send | headers)
        try:
            answer = self.opener.open(request, timeout=30)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            jar = http.cookies.SimpleCookie(answer.headers.get("Set-Cookie", ""))
            self.cookie = "; ".join(f"{c.key}={c.value}" for c in jar.values()) or self.cookie
            where = urllib.parse.urlsplit(answer.headers.get("Location", ""))._replace(scheme="", netloc="").geturl()
            return answer.status, where, answer.read().decode(errors="replace")

    def sign_up(self, code: str, email: str) -> Answer:
        """Follow an invite link: the rules if there are any, then the form."""
        status, where, page = self.ask(f"/invite/{code}")
        if "/auth/acceptance" in page:
            fields = {"authenticity_token": hidden(page, "authenticity_token"), "invite_code": code, "accept": "1"}
            status, where, page = self.ask(self.ask("/auth/acceptance", fields)[1])
        if status != 200:
            return status, where, page
        time.sleep(FORM_WAIT)  # not a wait for a condition: the form measures the person
        password = secrets.token_hex(16)
        fields = {
            "authenticity_token": hidden(page, "authenticity_token"),
            "accept": hidden(page, "accept"),
            "user[invite_code]": code,
            "user[account_attributes][username]": email.partition("@")[0],
            "user[email]": email,
            "user[password]": password,
            "user[password_confirmation]": password,
            "user[agreement]": "1",
        }
        return self.ask("/auth", fields)


def hidden(page: str, name: str) -> str:
    """Value of a hidden field."""
    for tag in re.findall(r"<input[^>]*>", page):
        value = re.search(r'value="([^"]*)"', tag)
        if f'name="{name}"' in tag and value:
            return value[1]
    return ""


class Host:
    """The instance's host: SQL as its superuser, `tootctl` as the application's user."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Read the environment file."""
        self.o = options
        lines = Path(options.env_file).read_text().splitlines()
        self.env = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
        self.env = {name: value.strip('"') for name, value in self.env.items()}
        self.count = 0

    def sql(self, text: str, **values: str | int) -> str:
        """Rows of a statement with psql's :'name' for values, printed bare."""
        command = ["runuser", "-u", "postgres", "--", "psql", "-qtAX", "-v", "ON_ERROR_STOP=1"]
        command += [word for name, value in values.items() for word in ("-v", f"{name}={value}")]
        command += [self.env["DB_NAME"]]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout.strip()

    def tootctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Secrets travel in the environment, never in argv."""
        command = ["setpriv", "--reuid=mastodon", "--regid=mastodon", "--init-groups", "bundle", "exec", "bin/tootctl"]
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/var/lib/mastodon"} | self.env
        where = self.o.release
        return subprocess.run([*command, *words], env=env, cwd=where, capture_output=True, text=True, check=False)

    def name(self) -> str:
        """A user name never used before."""
        self.count += 1
        return f"stranger{int(time.time())}x{self.count}"

    def foreign(self) -> str:
        """A new address that is not of the staff."""
        return f"{self.name()}@{self.o.foreign_domain}"

    def approved(self, email: str) -> str:
        """'t', 'f', or '' when there is no such account."""
        return self.sql("SELECT approved FROM users WHERE email = :'email'", email=email)

    def browser(self) -> Browser:
        """A new person's browser."""
        return Browser(self.o.web, self.o.host)

    def sign_up(self, code: str) -> tuple[int, str, str]:
        """A foreign address follows a link: (status, Location, approved)."""
        email = self.foreign()
        return (*self.browser().sign_up(code, email)[:2], self.approved(email))

    def everyone(self, permissions: int) -> None:
        """Permissions of the role that all have."""
        self.sql("UPDATE user_roles SET permissions = :bits WHERE id = -99", bits=permissions)

    def invite(self, inviter: str) -> str:
        """A link with no limit, as the web form makes it when asked for none."""
        code = secrets.token_hex(4)
        made = "SELECT id, :'code', now(), now() FROM users WHERE email = :'email'"
        self.sql("INSERT INTO invites (user_id, code, created_at, updated_at) " + made, code=code, email=inviter)
        return code

    def inviter(self) -> str:
        """A member of staff without a role; returns the address."""
        name = self.name()
        email = f"{name}@{self.o.staff_domain}"
        done = self.tootctl("accounts", "create", name, "--email", email, "--confirmed", "--approve")
        if done.returncode:
            sys.exit(f"stranger.py: could not create the inviter: {done.stdout}{done.stderr}"[:400])
        return email


def application_token(browser: Browser) -> tuple[int, int, str]:
    """Register an application and get its own token: (status, status, token)."""
    oob = "urn:ietf:wg:oauth:2.0:oob"
    form = {"client_name": "stranger", "redirect_uris": oob, "scopes": "read write"}
    registered, _, body = browser.ask("/api/v1/apps", form, Accept="application/json")
    app = json.loads(body)
    form = {key: app.get(key, "") for key in ("client_id", "client_secret")} | {"redirect_uri": oob}
    form |= {"grant_type": "client_credentials", "scope": "read write"}
    granted, _, body = browser.ask("/oauth/token", form, Accept="application/json")
    return registered, granted, json.loads(body).get("access_token", "")


def api_sign_up(browser: Browser, token: str, email: str, code: str | None = None) -> Answer:
    """Create an account through the API."""
    form = {"username": email.partition("@")[0], "email": email, "password": secrets.token_hex(16)}
    form |= {"agreement": "true", "locale": "en"} | ({"invite_code": code} if code else {})
    return browser.ask("/api/v1/accounts", form, Accept="application/json", Authorization=f"Bearer {token}")


def rows(host: Host) -> list[Row]:
    """All attempts, in the order of the table."""
    newer = host.sql("SELECT count(*) FROM information_schema.columns WHERE column_name = 'require_2fa'") == "1"
    before = int(host.sql("SELECT permissions FROM user_roles WHERE id = -99"))
    host.everyone(INVITE)
    inviter = host.inviter()
    code = host.invite(inviter)
    try:
        found = api_rows(host, code) + link_rows(host, code, "f" if newer else "t")
        return found + (rows_since_4_6(host, inviter, code) if newer else []) + [tootctl_row(host)]
    finally:
        host.everyone(before)


def api_rows(host: Host, code: str) -> list[Row]:
    """The closed page, and the interface behind it."""
    browser = host.browser()
    page = browser.ask("/auth/sign_up")[:2]
    registered, granted, token = application_token(browser)
    status, _, body = api_sign_up(browser, token, host.foreign())
    refused = (registered, granted, status, body)
    email = host.foreign()
    status, _, body = api_sign_up(browser, token, email, code)
    entered = (status, "access_token" in body, host.approved(email) != "")
    return [
        ("sign-up page", page, (302, "/auth/sign_in")),
        ("application, token, account by API", refused, (200, 200, 403, '{"error":"Forbidden"}')),
        ("the same with a right invite code, foreign address", entered, (200, True, True)),
    ]


def link_rows(host: Host, code: str, approval: str) -> list[Row]:
    """Wrong and right links. 4.5 let every inviter spare the newcomer the review."""
    wrong = host.browser().ask("/invite/WRONG")[:2]
    status, _, body = host.browser().ask("/invite/WRONG", Accept="application/json")
    right = host.sign_up(code)
    host.everyone(0)
    late = host.sign_up(code)
    return [
        ("wrong invite", wrong, (302, "/auth/sign_in")),
        ("wrong invite as JSON", (status, body), (404, '{"error":"Record not found"}')),
        ("right invite, foreign address", right, (302, "/auth/setup", approval)),
        ("the same after everyone lost the right to invite", late, (302, "/auth/setup", approval)),
    ]


def rows_since_4_6(host: Host, inviter: str, code: str) -> list[Row]:
    """Second factors, and the right to skip the review."""
    role = "INSERT INTO user_roles (name, permissions, require_2fa, created_at, updated_at)"
    role_id = host.sql(role + " VALUES ('stranger', :bits, true, now(), now()) RETURNING id", bits=INVITE)
    host.sql("UPDATE users SET role_id = :id WHERE email = :'email'", id=role_id, email=inviter)
    link = host.browser().ask(f"/invite/{code}")[:2]
    status, _, body = host.browser().ask(f"/invite/{code}", Accept="application/json")
    host.sql("DELETE FROM user_roles WHERE id = :id", id=role_id)
    host.everyone(INVITE | BYPASS)
    entered = host.sign_up(code)
    return [
        ("inviter's role demands a second factor", link, (302, "/auth/sign_in")),
        ("the same as JSON", (status, body), (401, '{"error":"This invite is not valid"}')),
        ("right invite while everyone has the bypass bit", entered, (302, "/auth/setup", "t")),
    ]


def tootctl_row(host: Host) -> Row:
    """The operator's own tool."""
    email = host.foreign()
    done = host.tootctl("accounts", "create", email.partition("@")[0], "--email", email, "--confirmed")
    return "tootctl with a foreign address", (done.returncode, done.stdout.split("\n")[0]), (1, "email blocked")


def main() -> int:
    """Print each row; 1 when one differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("release", "env-file", "host", "staff-domain", "foreign-domain"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--web", default="127.0.0.1:3000")
    options = parser.parse_args()
    if os.geteuid():
        sys.exit("stranger.py must run as root on the instance's host: it looks into the database as postgres")
    differ = 0
    for attempt, observed, expected in rows(Host(options)):
        differ += observed != expected
        print(f"{'as upstream' if observed == expected else 'DIFFERS':12}{attempt}: {observed}", flush=True)
        if observed != expected:
            print(f"{'':12}upstream: {expected}")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
