"""Which backup a target takes, and how far the WAL in the repository leads.

For restore.py and drill.py (root, Debian 13, standard library only).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from roles.restore.files import catalogue
    from roles.restore.files.catalogue import Refused, Target, iso, seconds
else:  # on the host the programs lie side by side
    import catalogue
    from catalogue import Refused, Target, iso, seconds

SEGMENT = 1 << 24  # bytes; initdb's default, which the PostgreSQL role does not change
EACH = (1 << 32) // SEGMENT
TURN = re.compile(r"(\d+)\s+([0-9A-F]+/[0-9A-F]+)\s*(.*)")
JUST_AFTER = 1e-6  # seconds; PostgreSQL's times are no finer


@dataclass(frozen=True)
class Turn:
    """Where the newest history left a timeline, and why (PostgreSQL's words). `at`: when the next timeline's history
    reached the repository; 0 where it is not there."""

    timeline: int
    lsn: int
    why: str
    at: float


@dataclass(frozen=True)
class History:
    """The newest timeline, and the turns that led to it, oldest first. `place` holds its WAL; empty without any."""

    timeline: int
    turns: list[Turn]
    place: str


def lsn(text: str) -> int:
    """A place in the WAL as a number."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def position(segment: str) -> int:
    """Number of a WAL segment, counted from the cluster's first; the same on every timeline."""
    return int(segment[8:16], 16) * EACH + int(segment[16:24], 16)


def ended(timeline: int, end: int) -> str:
    """Name of the segment with the last byte before a place in the WAL."""
    high, low = divmod((end - 1) // SEGMENT, EACH)
    return f"{timeline:08X}{high:08X}{low:08X}"


def turned(text: str) -> list[tuple[int, int, str]]:
    """Timeline, place and reason of each turn in a history file."""
    found = [match.groups() for line in text.splitlines() if (match := TURN.match(line))]
    return [(int(timeline), lsn(where), why) for timeline, where, why in found]


def place(found: dict[str, Any]) -> str:
    """Where the WAL of the newest database lies in the repository; empty without any."""
    return f"archive/{catalogue.configured()[0]}/{found['archive'][-1]['id']}" if found.get("archive") else ""


def history(target: Target, found: dict[str, Any], user: str = "postgres") -> History:
    """What recovery follows when it is not told otherwise."""
    top = place(found)
    listed = catalogue.listing(target, top, user=user) if top else {}
    names = sorted(name for name in listed if re.fullmatch(r"[0-9A-F]{8}\.history", name))
    if not names:
        return History(1, [], top)
    lines = turned(catalogue.ask(target, "repo-get", f"{top}/{names[-1]}", user=user))
    after = [f"{timeline:08X}.history" for timeline, _, _ in lines[1:]] + names[-1:]
    times = [float(listed.get(name, {}).get("time", 0)) for name in after]
    return History(int(names[-1][:8], 16), [Turn(*line, at) for line, at in zip(lines, times, strict=False)], top)


def reachable(found: dict[str, Any], past: History) -> list[dict[str, Any]]:
    """Backups from which the newest history can be followed. One that was made after the moment an earlier restore went
    back to lies on a branch that was given up: PostgreSQL refuses to replay from there."""
    left = {turn.timeline: turn.lsn for turn in past.turns}

    def follows(backup: dict[str, Any]) -> bool:
        timeline = int(backup["archive"]["stop"][:8], 16)
        return timeline >= past.timeline or lsn(backup["lsn"]["stop"]) <= left.get(timeline, -1)

    return [each for each in found["backup"] if follows(each)]


def newest_wal(target: Target, found: dict[str, Any], user: str = "postgres") -> str | None:
    """The segment that a recovery to the newest moment must come to; None where there is no WAL at all."""
    past = history(target, found, user)
    listed = catalogue.listing(target, past.place, user=user) if past.place else {}
    for directory in sorted((each for each in listed if re.fullmatch("[0-9A-F]{16}", each)), reverse=True):
        if int(directory[:8], 16) == past.timeline:
            names = catalogue.listing(target, f"{past.place}/{directory}", user=user)
            if full := [name[:24] for name in names if re.match("[0-9A-F]{24}-", name)]:
                return max(full)
    return ended(past.turns[-1].timeline, past.turns[-1].lsn) if past.turns else None


def check_end(own: str, until: str, last: str | None) -> None:
    """Refused when the copy (`own`: the history of the timeline it began) ended before the segment it had to come to:
    PostgreSQL takes a segment that is missing for the end of all WAL, and starts without what comes after it."""
    timeline, where, _ = turned(own)[-1]
    got = ended(timeline, where)
    if position(got) >= position(until):
        return
    raise Refused(
        f"The backups do not reach the newest moment: the copy came to the end of WAL {got}, the next one is missing, "
        f"and the repository holds up to {until}. The last change in the copy is of {last or 'an unknown time'}. "
        "With `--to TIME` and a time before that one it goes as far as the backups lead. The running database was not "
        "touched."
    )


def archived_at(target: Target, segment: str, user: str) -> str:
    """When a segment reached the repository, as the end of a sentence; empty where that cannot be told."""
    try:
        listed = catalogue.listing(target, f"{place(catalogue.repository(target, user))}/{segment[:16]}", user=user)
    except Refused:
        return ""
    return "".join(f" ({iso(told['time'])})" for name, told in listed.items() if name.startswith(segment))


def archived_until(target: Target, found: dict[str, Any]) -> float | None:
    """When the newest WAL reached the repository (seconds since 1970); what was written after that is not in it."""
    if not found.get("archive") or not found["archive"][-1].get("max"):
        return None
    listed = catalogue.listing(target, f"{place(found)}/{found['archive'][-1]['max'][:16]}")
    return max((told["time"] for told in listed.values() if told.get("type") == "file"), default=None)


def good(backups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those whose pages were whole when they were made; all, where none is."""
    return [each for each in backups if not each.get("error")] or backups


def window(target: Target, found: dict[str, Any], now: float | None) -> tuple[float, float]:
    """The oldest and the newest moment that can be reached; `now` while the database runs and can still archive."""
    stops = [each["timestamp"]["stop"] for each in good(found["backup"])]
    return stops[0], now or archived_until(target, found) or stops[-1]


def check_branch(target: Target, when: float, past: History, reach: str) -> None:
    """Refused for a moment between the one that a restore went back to and the restore itself: recovery goes along the
    newest history, which leaps over it, and would end with another state than the one asked for."""
    turn = next((each for each in past.turns if each.at > when), None)
    if turn and (begun := _turned_at(target, turn, past)) <= when:
        raise Refused(
            f"{target.words} lies on a branch that was given up: at {iso(turn.at)} a restore went back to "
            f"{iso(begun)}, and what was written between is in no history any more. Choose a time up to {iso(begun)} "
            f"or from {iso(turn.at)} on. {reach}"
        )


def _turned_at(target: Target, turn: Turn, past: History) -> float:
    """The first moment of what a turn gave up."""
    why, _, what = turn.why.partition(" ")
    if why in ("before", "after"):  # the first change that was left out, or the last one that was not
        try:
            return seconds(what) + (JUST_AFTER if why == "after" else 0)
        except ValueError:
            pass
    if named := re.fullmatch(r'at restore point "(.+)"', turn.why):
        try:
            point = seconds(catalogue.point_of(replace(target, kind="name", value=named[1]))["time"])
        except Refused:  # the name of it is gone, or it was never in this repository
            point = turn.at
        if point < turn.at:
            return point + JUST_AFTER
    segment = ended(turn.timeline, turn.lsn)
    listed = catalogue.listing(target, f"{past.place}/{segment[:16]}")
    return float(next((told["time"] for name, told in listed.items() if name.startswith(segment)), turn.at))


def candidates(
    target: Target, found: dict[str, Any], now: float | None, user: str = "postgres"
) -> list[dict[str, Any]]:
    """The newest backup that ended before the target, and the full ones before it, should it prove damaged. Refused for
    a target outside the window."""
    past = history(target, found, user)
    backups = good(reachable(found, past))
    if not backups:
        raise Refused("No backup leads to the newest history. Take one (`systemctl start mfg-backup.service`).")
    if target.kind != "latest":
        oldest, newest = window(target, {**found, "backup": backups}, now)
        when = seconds(catalogue.point_of(target)["time"] if target.kind == "name" else target.value)
        reach = f"What can be reached: {iso(oldest)} to {iso(newest)} (UTC). Nothing was changed."
        if when < oldest:
            raise Refused(f"{target.words} is before the end of the oldest backup. {reach}")
        if when > newest:
            raise Refused(f"{target.words} is after the newest change that is backed up. {reach}")
        check_branch(target, when, past, reach)
        backups = [each for each in backups if each["timestamp"]["stop"] <= when]
    return [backups[-1], *(each for each in reversed(backups[:-1]) if each["type"] == "full")]


def choose(target: Target, found: dict[str, Any], now: float | None, user: str = "postgres") -> dict[str, Any]:
    """The first of the candidates."""
    return candidates(target, found, now, user)[0]
