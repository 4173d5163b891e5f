"""What the repository itself holds: backups, and WAL without holes. pgBackRest's exit codes are not believed."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from roles.backups.files.backup_host import Unanswered, pgbackrest
else:  # on the host the programs lie side by side
    from backup_host import Unanswered, pgbackrest

SEGMENT = 1 << 24  # bytes; initdb's default, which the PostgreSQL role does not change
WAL = re.compile(r"[0-9A-F]{24}-")
# Timelines that lead to one, each with the places (LSN) where it begins and where the next one leaves it.
Branch = dict[int, tuple[int, int]]


def brief(message: str) -> str:
    """The first line, and the S3 service's word; what follows may be pieces of a file read with a wrong passphrase."""
    first = message.strip().split("\n")[0].rstrip(":")
    code = re.search(r"<Code>(\w+)</Code>", message)
    return f"{first} ({code[1]})" if code else first


def info(conf: dict[str, str], number: int = 1) -> dict[str, Any]:
    """A repository's own words. `code`: 0 good, 1 no stanza, 2 no backup, 3 no stanza data, 99 error, -1 no answer."""
    unknown: dict[str, Any] = {"code": -1, "backups": [], "system_ids": []}
    try:
        code, out, err = pgbackrest(conf, f"--repo={number}", "--output=json", "info")
    except Unanswered as error:
        return {**unknown, "message": str(error)}
    try:
        found = json.loads(out, strict=False)[0]
    except (ValueError, IndexError):
        return {**unknown, "message": brief(err or out) or f"exit code {code}"}
    status = found["repo"][0]["status"] if found.get("repo") else found["status"]
    return {
        "code": status["code"],
        "message": brief(status["message"]),
        "backups": found.get("backup", []),
        "system_ids": [str(each["system-id"]) for each in found.get("db", [])],
    }


def listed(conf: dict[str, str], path: str, *options: str) -> list[str]:
    """Names below a path of the first repository."""
    code, out, err = pgbackrest(conf, "--repo=1", *options, "--output=json", "repo-ls", path)
    if code:
        raise Unanswered(brief(err or out))
    return list(json.loads(out or "{}"))


def position(segment: str) -> int:
    """Number of a WAL segment, counted from the cluster's first; the same on every timeline."""
    return int(segment[8:16], 16) * (1 << 32) // SEGMENT + int(segment[16:24], 16)


def lsn(text: str) -> int:
    """A place in the WAL as a number."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def place(conf: dict[str, str], backup: dict[str, Any]) -> str:
    """Where the WAL of this backup's database lies; the stanza may have had another before."""
    top = f"archive/{conf['stanza']}"
    found = [name for name in listed(conf, top) if re.fullmatch(rf"\d+-{backup['database']['id']}", name)]
    if not found:
        raise Unanswered(f"there is no WAL of backup {backup['label']}")
    return f"{top}/{found[0]}"


def branch(conf: dict[str, str], where: str, timeline: int) -> Branch:
    """The way to a timeline, by its history in the repository: without that file nobody can follow it. What a restore
    to an earlier time gave up lies beside it under names that look as good."""
    text = ""
    if timeline > 1:
        code, text, err = pgbackrest(conf, "--repo=1", "repo-get", f"{where}/{timeline:08X}.history")
        if code:
            raise Unanswered(f"the history of timeline {timeline} cannot be read: {brief(err) or 'it is not there'}")
    return branches(text, timeline)


def branches(history: str, timeline: int) -> Branch:
    """As above, from the text of the history."""
    found, begin = {}, 0
    for words in map(str.split, history.splitlines()):
        if words and words[0].isdigit():
            end = lsn(words[1])
            found[int(words[0])], begin = (begin, end), end
    return {**found, timeline: (begin, 1 << 64)}


def on(path: Branch, segment: str) -> bool:
    """Whether a WAL segment is of this branch. The one in which a timeline is left is written anew on the next."""
    begin, end = path.get(int(segment[:8], 16), (0, 0))
    return begin // SEGMENT <= position(segment) < end // SEGMENT


def leads(path: Branch, backup: dict[str, Any]) -> bool:
    """Whether PostgreSQL can follow this branch from a backup."""
    return lsn(backup["lsn"]["stop"]) <= path.get(int(backup["archive"]["stop"][:8], 16), (0, 0))[1]


def archived(conf: dict[str, str], where: str, since: str, path: Branch) -> set[int]:
    """Positions of all WAL of a branch in the repository, from this segment's directory on."""
    found = set()
    for directory in listed(conf, where):
        wanted = re.fullmatch(r"[0-9A-F]{16}", directory) and int(directory[:8], 16) in path
        if wanted and directory[8:] >= since[8:16]:
            names = listed(conf, f"{where}/{directory}")
            found |= {position(name) for name in names if WAL.match(name) and on(path, name)}
    return found


def holes(found: set[int], first: int, waiting: set[int]) -> tuple[list[int], int]:
    """Positions that are in no repository and are not waiting to be sent, and the last position before the first gap
    of any kind: as far as a restore can go."""
    newest = max(found, default=first - 1)
    absent = [place for place in range(first, newest) if place not in found]
    reach = absent[0] - 1 if absent else newest
    return [place for place in absent if place not in waiting], reach


def lsn_after(place: int) -> str:
    """Where the segment at this position ends, as PostgreSQL spells it."""
    end = (place + 1) * SEGMENT
    return f"{end >> 32:X}/{end & 0xFFFFFFFF:X}"


def verified(text: str) -> tuple[bool, str]:
    """Whether `verify --output=text --verbose` found everything good, and what it did not: it exits 0 either way, and
    prints nothing at all for a repository that was wiped."""
    lines = [line.strip() for line in text.splitlines()]
    bad = [line for line in lines if re.search(r"status: (error|invalid)|(missing|invalid|other): [1-9]", line)]
    if bad:
        return False, "; ".join(bad)[:500]
    if "status: ok" not in lines:
        return False, "it does not say that the stanza is good"
    if not any(re.search(r"status: valid", line) for line in lines):
        return False, "it found no backup to verify"
    return True, ""
