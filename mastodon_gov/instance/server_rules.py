"""Files and rules of `server:` in instance.yaml; the rules of the rest are in rules.py."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mastodon_gov.instance.model import Instance
from mastodon_gov.instance.problems import Key, show
from mastodon_gov.instance.server_document import IMAGES, render
from mastodon_gov.instance.sources import Sources

TEXTS: tuple[Key, ...] = (("server", "about"), ("server", "privacy_policy"), ("server", "terms", "file"))
# First bytes of the formats Mastodon takes.
KINDS = {"PNG": b"\x89PNG", "JPEG": b"\xff\xd8\xff", "GIF": b"GIF8", "WebP": b"RIFF"}
IMAGE_BYTES, EMOJI_BYTES = 2 * 2**20, 256 * 2**10
# Roles that no file changes: the owner's, and what everybody may do.
FIXED_ROLES = ("owner", "everyone")


def read_files(sources: Sources, open_text: Callable[[Sources, Key, str, str], str | None]) -> None:
    """Give the model the content of the files that `server:` names; pictures as base64."""
    found: dict[str, str] = {}
    for key in TEXTS:
        name = sources.get(*key)
        if isinstance(name, str) and (text := open_text(sources, key, name, "Write the text there.")) is not None:
            found[name] = text
    for key, limit, kinds in _pictures(sources):
        name = sources.get(*key)
        if isinstance(name, str) and (content := _picture(sources, key, name, limit, kinds)) is not None:
            found[name] = base64.b64encode(content).decode()
    sources.data["server_files"] = found


def _pictures(sources: Sources) -> Iterator[tuple[Key, int, tuple[str, ...]]]:
    for var in IMAGES:
        yield ("server", "images", var), IMAGE_BYTES, tuple(KINDS)
    for index in _indexes(sources, "emoji"):
        yield ("server", "emoji", index, "file"), EMOJI_BYTES, ("PNG", "GIF", "WebP")


def _indexes(sources: Sources, *key: str) -> range:
    entries = sources.get("server", *key)
    return range(len(entries)) if isinstance(entries, list) else range(0)


def _picture(sources: Sources, key: Key, name: str, limit: int, kinds: tuple[str, ...]) -> bytes | None:
    path: Path = sources.directory / name
    allowed = f"a {', '.join(kinds[:-1])} or {kinds[-1]} file of this directory, smaller than {limit // 1024} KiB"
    try:
        inside = path.resolve().is_relative_to(sources.directory.resolve())
        content = path.read_bytes() if inside else b""
    except OSError as error:
        sources.problem(key, f"{show(name)}, which cannot be read ({error.strerror})", allowed, "Put the file there.")
        return None
    if not inside or len(content) >= limit or not content.startswith(tuple(KINDS[kind] for kind in kinds)):
        found = f"{show(name)}, {len(content)} bytes" if inside else show(name)
        sources.problem(key, found, allowed, "Convert it, make it smaller, or copy it into the directory.")
        return None
    return content


def check_server(sources: Sources, instance: Instance | None) -> None:
    """Note every broken rule of `server:` as a problem of the value to change."""
    _twice(sources, ("rules",), "text")
    _twice(sources, ("roles",), "name")
    _twice(sources, ("domain_blocks",), "domain")
    _twice(sources, ("announcements",), "text")
    _twice(sources, ("emoji",), "shortcode")
    for index in _indexes(sources, "rules"):
        _twice(sources, ("rules", index, "translations"), "language")
    _roles(sources)
    _blocks(sources)
    _announcements(sources)
    if instance is not None:
        _texts(sources, instance)


def _twice(sources: Sources, of: Key, name: str) -> None:
    entries = sources.get("server", *of)
    seen: dict[Any, int] = {}
    for index in range(len(entries)) if isinstance(entries, list) else ():
        key: Key = ("server", *of, index, name)
        value = sources.get(*key)
        if value is not None and value in seen:
            found = f"{show(value)} again (first: entry {seen[value] + 1})"
            sources.problem(key, found, f"each {name} once", "Remove one of the two.")
        seen.setdefault(value, index)


def _roles(sources: Sources) -> None:
    for index in _indexes(sources, "roles"):
        key: Key = ("server", "roles", index, "name")
        name = sources.get(*key)
        if isinstance(name, str) and name.lower() in FIXED_ROLES:
            todo = "Remove the entry: the owner may do everything, everyone may do nothing, and the lock keeps it so."
            sources.problem(key, show(name), "a role of your own, or Moderator and Admin", todo)


def _blocks(sources: Sources) -> None:
    own = [name for part in ("web", "handle", "media") if (name := sources.get("domain", part))]
    for index in _indexes(sources, "domain_blocks"):
        key: Key = ("server", "domain_blocks", index, "domain")
        blocked = sources.get(*key)
        for name in own:
            if isinstance(blocked, str) and (name == blocked or name.endswith(f".{blocked}")):
                sources.problem(key, f"{show(blocked)}, which is {name} itself", "another server", "Remove the entry.")
                break


def _announcements(sources: Sources) -> None:
    for index in _indexes(sources, "announcements"):
        first, last = (sources.get("server", "announcements", index, part) for part in ("starts", "ends"))
        key: Key = ("server", "announcements", index)
        if (first is None) != (last is None):
            sources.problem(key, "only one of starts and ends", "both or none", "Add the other day.")
        elif first is not None and str(last) < str(first):
            sources.problem((*key, "ends"), show(last), f"a day not before {first}", "Correct the days.")


def _texts(sources: Sources, instance: Instance) -> None:
    for key in TEXTS:
        name = sources.get(*key)
        if not isinstance(name, str):
            continue
        try:
            text = render(instance, name)
        except ValueError as error:
            todo = "Values are written {{ instance.mastodon.ip_retention }}; the names are those of instance.yaml."
            sources.problem(key, str(error), "a template with values that instance.yaml has", todo)
            continue
        if not text or any(ord(sign) < 32 and sign not in "\n\t" for sign in text):
            what = "control characters" if text else "no text"
            sources.problem(key, f"{show(name)} with {what}", "a text", "Write the text; it stands on a public page.")
