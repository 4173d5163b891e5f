"""A coordinator of one organisation reads and changes nothing of another: each request is refused, and whoever may make
it gets through with the same one. On the pages and interface of the deployed instance; real Mastodon has more of both.

Who may speak under which address is the lock's, as SQL: test_ways_in.py.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab.deployed import Deployed
from tests.lab.officials import Official, official
from tests.lab.people import Answer, Browser, browser, csrf_of, enrol, tootctl, upload

pytestmark = pytest.mark.long
SCOPES = "read write admin:read admin:write"
PRIVATE = "only for those who follow"
SECTIONS = ("branding", "about", "registrations", "discovery", "content_retention", "appearance")


@dataclass(frozen=True)
class Request:
    """What the coordinator sends. `may` gets through with it: the account it is about (`self`), the server's owner, or
    nobody. `shows` is text that must not be in the answer, where the page itself is public."""

    path: str
    may: str = "self"
    form: dict[str, str] | None = None
    page: bool = False
    shows: str = ""


POST, PUT, DELETE = {"sent": "1"}, {"_method": "put"}, {"_method": "delete"}
NEW_ADDRESS = {"_method": "put", "user[current_password]": "{password}"}
REQUESTS = {
    "delete a post": Request("/api/v1/statuses/{post}", form=DELETE),
    "delete a post with its picture": Request("/api/v1/statuses/{post}?delete_media=true", form=DELETE),
    "delete a post for followers": Request("/api/v1/statuses/{private}", form=DELETE),
    "read an unposted picture": Request("/api/v1/media/{media}"),
    "describe an unposted picture": Request("/api/v1/media/{media}", form=PUT | {"description": "taken over"}),
    "list everybody by program": Request("/api/v1/admin/accounts", may="owner"),
    "list who waits by program": Request("/api/v1/admin/accounts?pending=true", may="owner"),
    "approve by program": Request("/api/v1/admin/accounts/{account}/approve", may="owner", form=POST),
    "list invitations": Request("/invites", may="owner", page=True),
    "list invitations as data": Request("/invites.json", may="owner", page=True),
    "make an invitation": Request("/invites", may="owner", form=POST, page=True),
    "end an invitation": Request("/invites/{invite}", may="", form=DELETE, page=True),
    "list accounts": Request("/admin/accounts", may="owner", page=True),
    "approve": Request("/admin/accounts/{account}/approve", may="owner", form=POST, page=True),
    "reject": Request("/admin/accounts/{account}/reject", may="", form=POST, page=True),
    "see the queues": Request("/sidekiq", may="", page=True),
    "see the database": Request("/pghero", may="", page=True),
    **{f"see settings: {part}": Request(f"/admin/settings/{part}", may="owner", page=True) for part in SECTIONS},
    "open registration": Request(
        "/admin/settings/registrations", may="", page=True,
        form=PUT | {"form_admin_settings[registrations_mode]": "open"},
    ),
    "rename the server": Request(
        "/admin/settings/branding", may="", page=True, form=PUT | {"form_admin_settings[site_title]": "Taken over"}
    ),
    "take an address of its staff": Request(
        "/auth", may="", page=True, form=NEW_ADDRESS | {"user[email]": "jane@agency.test"}
    ),
    "take its address": Request("/auth", may="", page=True, form=NEW_ADDRESS | {"user[email]": "{address}"}),
    "take a sub-domain of its domain": Request(
        "/auth", may="", page=True, form=NEW_ADDRESS | {"user[email]": "jane@press.agency.test"}
    ),
    "read a post for followers": Request("/api/v1/statuses/{private}", may="", shows=PRIVATE),
    "read it on its page": Request("/@{name}/{private}", may="", page=True, shows=PRIVATE),
    "read it as data": Request("/@{name}/{private}.json", may="", page=True, shows=PRIVATE),
    "read it among the posts": Request("/api/v1/accounts/{account}/statuses", may="", shows=PRIVATE),
    "read it on the profile": Request("/@{name}", may="", page=True, shows=PRIVATE),
    "read it in the feed": Request("/@{name}.rss", may="", page=True, shows=PRIVATE),
    "read it at home": Request("/api/v1/timelines/home", may="", shows=PRIVATE),
}  # fmt: skip


@dataclass
class Side:
    """Somebody who may ask: a browser that is signed in, and a program's token."""

    person: Browser
    token: str
    password: str = ""
    name: str = ""

    def send(self, request: Request, names: dict[str, str]) -> Answer:
        """The request about what `names` says, with the token a page's form would carry."""
        path, form = request.path.format(**names), request.form
        if form is not None:
            form = {key: text.format(**names | {"password": self.password}) for key, text in form.items()}
        if not request.page:
            method = (form or {}).pop("_method", "").upper()
            headers = {"Accept": "application/json", "Authorization": f"Bearer {self.token}"}
            return self.person.ask(path, form, method=method, **headers)
        if form is not None:
            form["authenticity_token"] = csrf_of(self.person.ask("/auth/edit").page, path)
        return self.person.ask(path, form)


@pytest.fixture(scope="module")
def application(instance: Deployed) -> dict[str, str]:
    """One program for all three; an address may register five in ten minutes."""
    return browser(instance).application(SCOPES)


@pytest.fixture(scope="module")
def agency(instance: Deployed, application: dict[str, str]) -> Iterator[Official]:
    """The other organisation's press desk."""
    with official(instance) as account:
        assert account.person.sign_in(account.address, account.password).status == 302
        enrol(account.person)
        account.token = account.person.token(application)
        yield account


@pytest.fixture(scope="module")
def coordinator(instance: Deployed, application: dict[str, str]) -> Iterator[Side]:
    """Somebody of the council, without a role: organisations' coordinators need none."""
    with official(instance, "council.test") as account:
        assert account.person.sign_in(account.address, account.password).status == 302
        enrol(account.person)
        yield Side(account.person, account.person.token(application), account.password, account.name)


@pytest.fixture(scope="module")
def owners(owner: Browser, application: dict[str, str]) -> Side:
    """The server's owner."""
    return Side(owner, owner.token(application))


def belongings(agency: Official) -> dict[str, str]:
    """What a request can be about, made anew: a post, one for followers, a picture, an invitation in its name."""
    ids = {}
    posts = {"post": {"status": "a word"}, "private": {"status": PRIVATE, "visibility": "private"}}
    for name, form in posts.items():
        ids[name] = str(json.loads(agency.api("/api/v1/statuses", form).page)["id"])
    ids["media"] = str(upload(agency.instance, agency.token)["id"])
    code = secrets.token_hex(4)
    ids["account"] = agency.instance.sql(f"SELECT id FROM accounts WHERE username = '{agency.name}'").strip()  # noqa: S608
    ids["invite"] = agency.instance.sql(
        "INSERT INTO invites (user_id, code, expires_at, max_uses, created_at, updated_at) "  # noqa: S608
        f"SELECT id, '{code}', now() + interval '1 hour', 1, now(), now() "
        f"FROM users WHERE account_id = {ids['account']} RETURNING id"
    ).split()[0]
    return ids | {"name": agency.name, "address": agency.address}


def state(agency: Official, mine: str) -> str:
    """All rows of the account with this number, and what decides over everybody."""
    return agency.instance.sql(
        "SELECT md5(string_agg(line, ' ' ORDER BY line)) FROM ("  # noqa: S608
        f"SELECT s::text FROM statuses s WHERE account_id = {mine} "
        f"UNION ALL SELECT m::text FROM media_attachments m WHERE account_id = {mine} "
        f"UNION ALL SELECT email || approved || disabled || coalesce(role_id, 0) FROM users WHERE account_id = {mine} "
        "UNION ALL SELECT id || ' ' || expires_at FROM invites "
        "UNION ALL SELECT var || value FROM settings) x(line)"
    )


@pytest.mark.parametrize("name", REQUESTS)
def test_nothing_of_another_organisation(agency: Official, coordinator: Side, name: str) -> None:
    """Refused, or without what must not be seen; and nothing has changed."""
    request, names = REQUESTS[name], belongings(agency)
    before = state(agency, names["account"])
    answer = coordinator.send(request, names)
    if request.shows:
        assert answer.status in {200, 404}, answer
        assert request.shows not in answer.page
    else:
        assert answer.status in {400, 401, 403, 404, 422} or (answer.status == 302 and "sign_in" in answer.where), (
            answer
        )
    assert state(agency, names["account"]) == before


@pytest.mark.parametrize("name", [name for name, request in REQUESTS.items() if request.may])
def test_whoever_may_gets_through(agency: Official, owners: Side, name: str) -> None:
    """The same request: what was refused above was refused for who sent it."""
    request, names = REQUESTS[name], belongings(agency)
    side = owners if request.may == "owner" else Side(agency.person, agency.token)
    assert side.send(request, names).status in {200, 302}


def test_a_role_is_what_opens_it(agency: Official, coordinator: Side) -> None:
    """Without the mechanism the rows above are red: a moderator looks after everybody, whatever the organisation."""
    tootctl(agency.instance, "accounts", "modify", coordinator.name, "--role", "Moderator")
    try:
        for name in ("list everybody by program", "list accounts", "approve"):
            assert coordinator.send(REQUESTS[name], belongings(agency)).status in {200, 302}, name
    finally:
        tootctl(agency.instance, "accounts", "modify", coordinator.name, "--remove-role")
    assert coordinator.send(REQUESTS["list accounts"], belongings(agency)).status == 403
