"""What is wrong with an instance directory, as sentences for the person who wrote it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mastodon_gov.errors import WrongUsage

Key = tuple[str | int, ...]
LONGEST = 80


@dataclass(frozen=True)
class Problem:
    """One fault: where it is, what was found, what is allowed, what to do next."""

    file: str
    line: int
    key: Key
    found: str
    allowed: str
    todo: str

    def __str__(self) -> str:
        key = f", {dotted(self.key)}" if self.key else ""
        return f"{self.file}, line {self.line}{key}: found {self.found}. Allowed: {self.allowed}. {self.todo}"


def dotted(key: Key) -> str:
    """A path of keys and indexes as a person reads it; list entries count from 1: `access.networks[1]`."""
    text = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in key)
    return text.removeprefix(".")


def show(value: object) -> str:
    """A found value: quoted, short, on one line, and never a private key that somebody pasted."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (dict, list)):
        return f"a {'group of keys' if isinstance(value, dict) else 'list'} with {len(value)} entries"
    if "PRIVATE KEY" in str(value) or "AGE-SECRET-KEY" in str(value).upper():
        return "a private key (not shown)"
    text = " ".join(str(value).split())
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    return f'"{text}"' if isinstance(value, str) else text


def refuse(problems: Iterable[Problem], files: list[str]) -> None:
    """Raise one WrongUsage with every problem on its own line, in the order of the files and lines; nothing if none."""
    ordered = sorted(problems, key=lambda p: (files.index(p.file) if p.file in files else len(files), p.line))
    if ordered:
        raise WrongUsage("\n".join(dict.fromkeys(map(str, ordered))))
