"""Rules for who may sign in: names of people and their SSH keys."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from mastodon_gov.instance.problems import Key, show
from mastodon_gov.instance.sources import Sources

# Accounts of the system and of our roles.
TAKEN = frozenset(
    "auditor backup bin chrony daemon deploy mail mastodon mastodon-owner nobody postgres redis root sshd sys".split()
) | {"www-data"}
RSA_BYTES = 3072 // 8
PEOPLE = ("administrators", "auditors")


def entries(group: object, name: str | None = None) -> list[Any]:
    """The entries of a list, or of the list with this name in a group; none if it is anything else."""
    value = group if name is None else group.get(name) if isinstance(group, dict) else None
    return value if isinstance(value, list) else []


def check_access(sources: Sources) -> None:
    """Note every name and key that cannot be used as a problem of itself."""
    for people in PEOPLE:
        _people(sources, people)
    _keys(sources)


def _people(sources: Sources, people: str) -> None:
    seen: set[str] = set()
    for index in range(len(entries(sources.data.get("access"), people))):
        key: Key = ("access", people, index, "name")
        name = sources.get(*key)
        if people == "administrators" and name in TAKEN:
            sources.problem(
                key, f"{show(name)}, an account of the system", "an account of a person", "Use a personal name."
            )
        elif name in seen:
            sources.problem(key, f"{show(name)} again", "each name once", "Put all keys of one person in one entry.")
        seen.add(name)


def _keys(sources: Sources) -> None:
    access = sources.data.get("access")
    listed: list[tuple[Key, object]] = []
    for index, key in enumerate(entries(access, "deploy_keys")):
        listed.append((("access", "deploy_keys", index), key))
    for people in PEOPLE:
        for place, person in enumerate(entries(access, people)):
            for index, key in enumerate(entries(person, "keys")):
                listed.append((("access", people, place, "keys", index), key))
    for where, text in listed:
        if isinstance(text, str) and not sources.faulty(where) and (fault := _key_fault(text)):
            sources.problem(where, fault, "the whole line of a .pub file; RSA with 3072 bits or more", "Copy it again.")


def _key_fault(text: str) -> str | None:
    """What is wrong with a public SSH key (RFC 4253 §6.6: length-prefixed type, then the numbers)."""
    kind, blob = text.split()[:2]
    try:
        data = base64.b64decode(blob, validate=True)
    except binascii.Error:
        return "a key that is cut or changed (its base64 does not decode)"
    length = int.from_bytes(data[:4], "big")
    if data[4 : 4 + length] != kind.encode():
        return f"a key that says {kind} and is another"
    parts: list[bytes] = []
    rest = data
    while rest:
        size = int.from_bytes(rest[:4], "big")
        if len(rest) < 4 + size:
            return "a key that is cut"
        parts, rest = [*parts, rest[4 : 4 + size]], rest[4 + size :]
    if kind == "ssh-rsa" and (len(parts) < 3 or len(parts[2].lstrip(b"\0")) < RSA_BYTES):
        return "an RSA key of less than 3072 bits"
    return "a key that is cut" if len(parts) < 2 else None
