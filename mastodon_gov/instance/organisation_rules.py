"""Rules between organisations and accounts: each name once, none that looks like another, addresses of the own body."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from datetime import date
from fnmatch import fnmatchcase
from typing import Any, get_args

from mastodon_gov.instance.organisations import State
from mastodon_gov.instance.problems import Key, dotted, show
from mastodon_gov.instance.sources import Sources

# Names Mastodon keeps from users, and names under which a stranger would believe anything, in a few languages.
RESERVED_HANDLES = frozenset(
    """
    112 911 abuse admin administracion administrateur administrator admins alert alerts alarm ambulance emergency
    feuerwehr fire firebrigade government help helpdesk hilfe info_bot instance mastodon mod moderation moderator
    moderators notruf official owner police policia politie polizei postmaster president regierung root security
    server service staff support system webmaster
    """.split()
)
# Letters of other alphabets that look like these (a part of Unicode TR 39's confusables: single letters of Cyrillic and
# Greek in small form, which is what a domain has).
LIKE_LATIN = dict(
    zip("аеорсухіјѕԁһԛԝүοανρυικτωγ", "aeopcyxijsdhqwyoavpuiktwy", strict=True),
)
# Letters of the Latin alphabet itself that nobody tells from a, g and i.
LATIN_TWINS = str.maketrans("ɑɡı", "agi")
# Digits that people write for letters.
DIGITS = str.maketrans("13457", "ieast")
PEOPLE = ("owner", "deputy", "mailbox")
# In the order in which an organisation comes to them.
STATES: tuple[str, ...] = get_args(State)


def skeleton(handle: str) -> str:
    """What a reader takes a handle for: equal skeletons look alike. Capital I, l and 1; O and 0; rn and m; vv and w;
    S and 5; underscores, which an underlined link hides."""
    return (
        handle.translate(str.maketrans("I105", "llos")).lower().replace("rn", "m").replace("vv", "w").replace("_", "")
    )


def mistaken(handle: str) -> bool:
    """Whether a reader may take it for a reserved word: spelled with digits, underscores or letters that look alike."""
    looks = {skeleton(word) for word in RESERVED_HANDLES}
    return not looks.isdisjoint({skeleton(handle), skeleton(handle.translate(DIGITS))})


def check_organisations(sources: Sources) -> None:
    """Note every broken rule as a problem of the value to change."""
    bodies = {name: place for place, name in _named(sources, "organisations", "id")}
    for place in range(len(_list(sources.data.get("organisations")))):
        _domains(sources, place)
        _days(sources, place)
    handles: dict[str, tuple[str, Key]] = {}
    if owner := sources.get("owner", "username"):
        handles[skeleton(owner)] = (owner, ("owner", "username"))
    for place, handle in _named(sources, "accounts", "handle"):
        _handle(sources, place, handle, handles)
    for place in range(len(_list(sources.data.get("accounts")))):
        _account(sources, place, bodies)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _named(sources: Sources, top: str, name: str) -> Iterator[tuple[int, str]]:
    for place in range(len(_list(sources.data.get(top)))):
        if isinstance(value := sources.get(top, place, name), str):
            yield place, value


def _handle(sources: Sources, place: int, handle: str, seen: dict[str, tuple[str, Key]]) -> None:
    key: Key = ("accounts", place, "handle")
    look = skeleton(handle)
    other, first = seen.setdefault(look, (handle, key))
    if mistaken(handle):
        todo = "Name the organisation or the office in it, such as agency_help."
        sources.problem(
            key, f"{show(handle)}, a reserved word or the look of one", "a name that nobody can mistake", todo
        )
    elif first == key or (first == ("owner", "username") and other.lower() == handle.lower()):
        pass  # the owner's account may be described here too
    elif other.lower() == handle.lower():
        todo = "Mastodon does not tell capitals apart: keep one of the two."
        sources.problem(key, f"{show(handle)} again (first: {dotted(first)})", "each handle once", todo)
    else:
        _alike(sources, key, handle, other, first)


def _alike(sources: Sources, key: Key, handle: str, other: str, first: Key) -> None:
    found = f"{show(handle)}, which looks like {show(other)} ({dotted(first)})"
    sources.problem(key, found, "handles that a reader can tell apart", "Choose another name for one of them.")


def _account(sources: Sources, place: int, bodies: dict[str, int]) -> None:
    body = sources.get("accounts", place, "organisation")
    if not isinstance(body, str):
        return
    if body not in bodies:
        known = ", ".join(sorted(bodies)) if len(bodies) <= 10 else "the id of an organisation of this file"
        todo = "Add the organisation, or correct the id."
        sources.problem(("accounts", place, "organisation"), show(body), known, todo)
        return
    _pattern(sources, place, bodies[body])
    _addresses(sources, place, bodies[body])
    entry = sources.get("accounts", place) or {}
    if entry.get("automated") is True and "mailbox" not in entry:
        todo = "Add the mailbox that a person reads: replies to a program reach nobody."
        sources.problem(("accounts", place), "an automated account without mailbox", "one with a mailbox", todo)


def _pattern(sources: Sources, place: int, body: int) -> None:
    handle, pattern = sources.get("accounts", place, "handle"), sources.get("organisations", body, "handles")
    if handle and pattern and not fnmatchcase(handle.lower(), pattern):
        todo = "Rename the account in this file before it is made; a handle can never change afterwards."
        sources.problem(("accounts", place, "handle"), show(handle), f"the organisation's form {pattern}", todo)


def _addresses(sources: Sources, place: int, body: int) -> None:
    domains = [d for i in range(len(_list(sources.get("organisations", body, "domains"))))
               if (d := sources.get("organisations", body, "domains", i))]  # fmt: skip
    for name in PEOPLE:
        address = sources.get("accounts", place, name)
        if isinstance(address, str) and domains and address.rpartition("@")[2] not in domains:
            todo = "Use an address of the organisation, or list the domain there."
            key: Key = ("accounts", place, name)
            sources.problem(key, show(address), f"an address at {', '.join(domains[:5])}", todo)
    owner, deputy = (sources.get("accounts", place, name) for name in PEOPLE[:2])
    if owner and owner == deputy:
        todo = "Name a second person, or leave the deputy out."
        sources.problem(("accounts", place, "deputy"), f"{show(deputy)}, the owner", "another person", todo)


def _days(sources: Sources, place: int) -> None:
    """Days are of the state that is, and of those before it, and none is before the one it follows."""
    state = sources.get("organisations", place, "state") or "live"
    if state not in STATES:
        return  # told already
    last: tuple[str, date] | None = None
    for name in STATES:
        key: Key = ("organisations", place, "days", name)
        try:
            day = date.fromisoformat(sources.get(*key))
        except (TypeError, ValueError):
            continue  # not given, or told already as a wrong value
        if STATES.index(name) > STATES.index(state):
            todo = f"Write `state: {name}` when that has come, or leave the day out."
            sources.problem(key, f"{day}, but the state is {state}", f"no day of a state after {state}", todo)
        elif last and day < last[1]:
            todo = "Correct one of the two days."
            sources.problem(key, f"{day}, before {last[0]} ({last[1]})", f"{last[1]} or later", todo)
        last = (name, day)


def _domains(sources: Sources, place: int) -> None:
    for index in range(len(_list(sources.get("organisations", place, "domains")))):
        key: Key = ("organisations", place, "domains", index)
        domain = sources.get(*key)
        if isinstance(domain, str) and "xn--" in domain and (fault := punycode_fault(domain)):
            todo = "Write the body's real domain; letters of other alphabets are how strangers imitate it."
            sources.problem(key, f"{show(domain)}, {fault}", "a name in one alphabet that is its own", todo)


def punycode_fault(domain: str) -> str | None:
    """What is wrong with an international domain name (its xn-- form); None if nothing is."""
    try:
        shown = domain.encode().decode("idna")
    except UnicodeError:
        return "which no browser can read"
    if shown.encode("idna").decode() != domain:
        return f'which is not the form of "{shown}"'
    for label in shown.split("."):
        scripts = {unicodedata.name(letter, "UNKNOWN").split()[0] for letter in label if letter.isalpha()}
        plain = "".join(LIKE_LATIN.get(letter, letter) for letter in label)
        if len(scripts) > 1:
            return f'shown as "{shown}": letters of several alphabets in one word'
        if (scripts and scripts != {"LATIN"} and plain.isascii()) or label != (plain := label.translate(LATIN_TWINS)):
            return f'shown as "{shown}", which looks like "{plain}"'
    return None
