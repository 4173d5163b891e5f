"""Rules between the values of an instance. Each looks only at values that are themselves right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from mastodon_gov.instance.access_rules import check_access, entries
from mastodon_gov.instance.model import Application, Database
from mastodon_gov.instance.problems import Key, dotted, show
from mastodon_gov.instance.sources import ADDRESSES, Sources
from mastodon_gov.instance.storage import Backups, ObjectStorage
from mastodon_gov.instance.types import Part

# RFC 2606 and RFC 6761: names that belong to nobody.
RESERVED = ("test", "example", "invalid", "localhost", "example.com", "example.net", "example.org")
# Names that resolve inside one network only (RFC 6762, RFC 8375, ICANN's `.internal`, and habits).
INSIDE = ("internal", "local", "lan", "home.arpa", "intranet", "corp", "home", *RESERVED)
# Where anybody gets an address: a member of staff cannot be told from a stranger.
PUBLIC_PROVIDERS = frozenset(
    """
    163.com aol.com fastmail.com gmail.com gmx.at gmx.ch gmx.com gmx.de gmx.net googlemail.com hotmail.com
    hotmail.fr icloud.com laposte.net libero.it live.com mail.com mail.ru mailbox.org me.com msn.com naver.com
    orange.fr outlook.com outlook.de pm.me posteo.de proton.me protonmail.com qq.com rediffmail.com seznam.cz
    t-online.de tutanota.com web.de wp.pl yahoo.co.uk yahoo.com yahoo.de yahoo.fr yandex.com yandex.ru ymail.com
    zoho.com
    """.split()
)
# Mastodon keeps these names from users; as an owner's name they invite imitation.
RESERVED_HANDLES = frozenset("admin administrator help mod moderator root support webmaster".split())
THREADS = ("web_workers", "web_threads", "sidekiq_threads")
# Mastodon's streaming server keeps at most this many (DB_POOL's default in streaming/database.js).
STREAMING_POOL = 10
# PostgreSQL's own reserve for superusers (3), backups, status, the sweep, and a person at work.
OTHER_CONNECTIONS = 10

NAMES: tuple[Key, ...] = (("domain", "handle"), ("domain", "web"), ("domain", "media"), ("mail", "relay"))
MAIL: tuple[Key, ...] = (
    ("owner", "address"),
    ("security_contact",),
    ("certificates", "acme", "contact"),
    ("mail", "from_address"),
    ("mail", "reply_to"),
)
SERVICES: tuple[Key, ...] = (
    ("network", "http_proxy"),
    ("certificates", "acme", "directory"),
    ("object_storage", "endpoint"),
    ("backups", "second", "endpoint"),
    ("mail", "relay"),
)


def check_rules(sources: Sources) -> None:
    """Note every broken rule as a problem of the value to change."""
    for rule in (
        _domains,
        _owner,
        _organisations,
        _reserved,
        _services,
        _lab,
        _buckets,
        _retention,
        check_access,
        _connections,
    ):
        rule(sources)


def under(name: str, tops: tuple[str, ...]) -> bool:
    """Whether a host name is one of these or lies below one."""
    return any(name == top or name.endswith(f".{top}") for top in tops)


def _host(value: str) -> str:
    if "://" in value:
        return urlsplit(value).hostname or ""
    return value.rpartition("@")[2]


def _domains(sources: Sources) -> None:
    media = sources.get("domain", "media")
    for other in ("web", "handle"):
        if media and media == sources.get("domain", other):
            todo = (
                f'Choose a name of its own, such as "files.{media}": uploaded files must not share the site\'s cookies.'
            )
            sources.problem(
                ("domain", "media"), f"{show(media)}, the same as domain.{other}", "a name of its own", todo
            )


def _staff(sources: Sources) -> Iterator[tuple[Key, str]]:
    for place, body in enumerate(entries(sources.data, "organisations")):
        for index, _ in enumerate(entries(body, "domains")):
            key: Key = ("organisations", place, "domains", index)
            if domain := sources.get(*key):
                yield key, domain


def _owner(sources: Sources) -> None:
    address, domains = sources.get("owner", "address"), [domain for _, domain in _staff(sources)]
    if address and domains and _host(address) not in domains:
        todo = "Use an address of the staff, or list its domain in organisations.yaml."
        sources.problem(("owner", "address"), show(address), f"an address at {', '.join(sorted(domains))}", todo)
    username = sources.get("owner", "username")
    if username in RESERVED_HANDLES:
        todo = "Choose the name of the office or person, such as press_office."
        sources.problem(("owner", "username"), show(username), "a name that Mastodon does not reserve", todo)


def _organisations(sources: Sources) -> None:
    seen: dict[str, Key] = {}
    for key, domain in _staff(sources):
        if domain in PUBLIC_PROVIDERS:
            todo = "Remove it: anybody in the world can get such an address, and with it an account."
            sources.problem(key, f"{show(domain)}, a public mail provider", "mail domains of the body itself", todo)
        elif domain in seen:
            todo = "Keep it where its staff work: an address must lead to one body."
            sources.problem(key, f"{show(domain)} again (first: {dotted(seen[domain])})", "each domain once", todo)
        seen.setdefault(domain, key)
    ids: dict[str, int] = {}
    for place in range(len(entries(sources.data, "organisations"))):
        name = sources.get("organisations", place, "id")
        if name and name in ids:
            found = f"{show(name)} again (first: organisations[{ids[name] + 1}])"
            sources.problem(("organisations", place, "id"), found, "each id once", "Give this body another id.")
        elif name:
            ids[name] = place


def _reserved(sources: Sources) -> None:
    if sources.get("lab") is True or sources.faulty(("lab",)):
        return
    keys = (*NAMES, *MAIL, ("certificates", "acme", "directory"), ("object_storage", "endpoint"))
    values = [(key, value) for key in keys if isinstance(value := sources.get(*key), str)]
    for key, value in [*values, *_staff(sources)]:
        if under(_host(value), RESERVED):
            todo = "Write your own name; `lab: true` allows reserved names, for tests only."
            sources.problem(key, f"{show(value)}, a name reserved for tests and examples", "a name that is yours", todo)
        elif key[0] == "domain" and under(_host(value), INSIDE):
            todo = "Write a name of the public DNS: other servers must find it."
            sources.problem(key, f"{show(value)}, a name only your network knows", "a public name", todo)


def _services(sources: Sources) -> None:
    """A name that is not listed counts as public; the firewall would then close the way to a private service."""
    for key in SERVICES:
        value = sources.get(*key)
        host = _host(value) if isinstance(value, str) else ""
        if not host or sources.known(host) or sources.faulty(("addresses", host)):
            continue
        if under(host, INSIDE) or "." not in host:
            todo = f"List {host} in {ADDRESSES}: a name not listed there counts as public, and the firewall stops it."
            sources.problem(key, f"{show(value)}, a private name", f"a name that {ADDRESSES} lists", todo)


def _lab(sources: Sources) -> None:
    directory = sources.get("certificates", "acme", "directory")
    if sources.get("lab") is True and directory and not sources.known(_host(directory)):
        if sources.faulty(("certificates", "acme", "directory")):
            return
        todo = f"Use the lab's own ACME server and list it in {ADDRESSES}, or remove `lab: true`."
        found = f"{show(directory)}, a public authority, in a lab"
        sources.problem(("certificates", "acme", "directory"), found, f"a server that {ADDRESSES} lists", todo)


def _buckets(sources: Sources) -> None:
    pairs = (("media_bucket", "backup_bucket", "bucket"), ("media_user", "backup_user", "user"))
    for first, second, what in pairs:
        value, other = (_or_default(sources, name) for name in (second, first))
        if value and value == other:
            todo = f"Make a second {what}: who can write pictures must not reach the backups."
            found = f"{show(value)}, the same as object_storage.{first}"
            sources.problem(("object_storage", second), found, f"a {what} of its own", todo)


def _or_default(sources: Sources, name: str) -> str | None:
    """The right value of a key of object_storage; where it is left out, the model's."""
    default = ObjectStorage.model_fields[name].default
    written: str | None = sources.get("object_storage", name)
    usable = isinstance(default, str) and not sources.faulty(("object_storage", name))
    return written or (default if usable else None)


def _retention(sources: Sources) -> None:
    """What is kept must be locked, and what is locked must be kept: either without the other is a false promise."""
    keep, full_on = (_or_model(sources, "backups", Backups, name) for name in ("keep_full", "full_on"))
    locked = sources.get("object_storage", "backup_lock_days")
    locked = ObjectStorage.model_fields["backup_lock_days"].default if locked is None else locked
    if not isinstance(keep, int) or not isinstance(locked, int) or sources.faulty(("object_storage",)):
        return
    days = 1 if full_on == "daily" else 7
    if keep * days < locked:
        found = f"{keep}, which keeps {keep * days} days, while object_storage.backup_lock_days locks for {locked}"
        todo = f"Write {-(-locked // days)} or more: hidden backups would still be paid for, and nobody could use them."
        sources.problem(("backups", "keep_full"), found, "as many as cover the days of the lock", todo)
    if locked < days:
        found = f"{locked}, while a full backup is made every {days} days (backups.full_on)"
        todo = f"Write {days} or more: else a stolen key could destroy the only full backup before the next one."
        sources.problem(("object_storage", "backup_lock_days"), found, "at least the days between full backups", todo)


def _connections(sources: Sources) -> None:
    """While slots are swapped both of each kind run, and every thread of both may hold a connection."""
    numbers = [_or_model(sources, "mastodon", Application, name) for name in THREADS]
    most = _or_model(sources, "database", Database, "max_connections")
    if not isinstance(most, int) or not all(isinstance(number, int) for number in numbers):
        return
    workers, threads, jobs = numbers
    need = 2 * (workers * threads + jobs + STREAMING_POOL) + OTHER_CONNECTIONS
    if most < need:
        found = (
            f"{most}, while two slots hold up to 2 × ({workers} × {threads} web threads + {jobs} for jobs + "
            f"{STREAMING_POOL} of streaming), and {OTHER_CONNECTIONS} are for everything else"
        )
        todo = f"Write {need} or more, or fewer {', '.join(f'mastodon.{name}' for name in THREADS)}."
        sources.problem(("database", "max_connections"), found, f"{need} or more", todo)


def _or_model(sources: Sources, section: str, model: type[Part], name: str) -> Any:
    """The right value of a key; where it is left out, the model's; None where it is wrong."""
    written = sources.get(section, name)
    return model.model_fields[name].default if written is None and not sources.faulty((section, name)) else written
