"""A member of staff with a second factor, and what she leaves behind: posts, a picture, a session."""

from __future__ import annotations

import base64
import json
import re
import shlex
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.lab.deployed import WEB, Deployed
from tests.lab.people import CURL, Browser, browser, enrol, form_of, hidden, tootctl, totp, upload

ADDRESS = "owner@agency.test"


@dataclass
class Staff:
    """The owner with what only she knows: password, second factor, a token of her telephone."""

    password: str
    secret: str = ""
    token: str = ""
    posts: list[str] = field(default_factory=list)


def enter(person: Browser, staff: Staff) -> int:
    """Sign in with password and second factor; the status of the page after it (200: she is in)."""
    given = {"user[email]": ADDRESS, "user[password]": staff.password}
    first = person.ask("/auth/sign_in", {"authenticity_token": token_on(person, "/auth/sign_in"), **given})
    form = form_of(first.page, "/auth/sign_in")
    assert "user[otp_attempt]" in form, first
    second = {"authenticity_token": hidden(form, "authenticity_token"), "user[otp_attempt]": totp(staff.secret)}
    entered = person.ask("/auth/sign_in", second)
    assert entered.status == 302, entered
    return person.ask("/auth/edit").status


def token_on(person: Browser, path: str) -> str:
    """The form's token of a page."""
    return hidden(form_of(person.ask(path).page, path), "authenticity_token")


def staff(instance: Deployed) -> tuple[Staff, Browser]:
    """The owner, signed in with a second factor that she has just set up, with a token for her telephone."""
    done, said = tootctl(instance, "accounts", "modify", "owner", "--reset-password", "--disable-2fa")
    found = re.search(r"New password: (\S+)", said)
    assert not done, said
    assert found, said
    known, person = Staff(found[1]), browser(instance)
    assert person.sign_in(ADDRESS, known.password).status == 302
    known.secret = enrol(person)
    known.token = person.token(person.application("read write"))
    return known, person


def call(instance: Deployed, known: Staff, path: str, *options: str) -> Any:
    """Her telephone asks the server; the token travels on standard input."""
    words = [*CURL, "-H", "@-", *options, f"https://{WEB}{path}"]
    done = instance.machine("outside").exec(words, stdin=f"Authorization: Bearer {known.token}\n")
    return json.loads(done.stdout)


def post(instance: Deployed, known: Staff, text: str) -> str:
    """A post; its number."""
    told = call(instance, known, "/api/v1/statuses", "-F", f"status={text}")
    known.posts.append(str(told["id"]))
    return str(told["id"])


def picture(instance: Deployed, known: Staff) -> str:
    """An uploaded picture; its address for readers."""
    return str(upload(instance, known.token)["url"])


def home(instance: Deployed, known: Staff) -> list[str]:
    """Numbers of the posts in her home timeline."""
    return [str(each["id"]) for each in call(instance, known, "/api/v1/timelines/home")]


def reads(instance: Deployed, number: str) -> int:
    """Status of a post's page for the stranger."""
    return instance.status_of(f"https://{WEB}/@owner/{number}")


def body(instance: Deployed, url: str) -> bytes:
    """What a reader gets, in bytes."""
    fetch = f"curl -sS --max-time 30 --cacert /root/lab-ca.pem {shlex.quote(url)} | base64 -w0"
    return base64.b64decode(str(instance.machine("outside").exec(["sh", "-c", fetch]).stdout))


def this_second(instance: Deployed) -> str:
    """A moment with nothing in it: a whole second of the host after now, and past."""
    begun = int(instance.root("date +%s")) + 1
    while int(instance.root("date +%s")) <= begun:
        time.sleep(0.1)
    return f"{datetime.fromtimestamp(begun, UTC):%Y-%m-%dT%H:%M:%SZ}"
