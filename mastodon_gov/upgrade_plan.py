"""What an upgrade will do and what stands against it: pure functions from observations to a plan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mastodon_gov.errors import Refusal
from mastodon_gov.migrations import Migrations, created, number, tables

POSTGRESQL = 14  # the oldest that 4.6 accepts (mastodon-production.md §1)
LARGE = 1_000_000  # rows above which a migration may take minutes
RESERVE = 512  # MiB that must be left beside what is needed


@dataclass(frozen=True)
class Migration:
    """One pending migration; `tables` with the rows they hold now."""

    number: str
    name: str
    tables: dict[str, int]
    makes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """From one release (its name) to another. `problems` stand against it. `seconds` of all steps (the last upgrade's)
    and `measured` of the migrations (on a restored copy) are None while nobody knows."""

    origin: str
    target: str
    before: tuple[Migration, ...] = ()
    after: tuple[Migration, ...] = ()
    installed: bool = False
    held: bool = False
    unfinished: bool = False
    seconds: float | None = None
    measured: float | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def nothing(self) -> bool:
        """Whether the host is where it shall be."""
        same = self.origin == self.target and not self.before and not self.unfinished
        return same and (not self.after or self.held)

    @property
    def no_return(self) -> str | None:
        """The step after which only a restore leads back."""
        return f"{self.after[0].number}_{self.after[0].name}" if self.after else None


@dataclass(frozen=True)
class Need:
    """What the new release needs (MiB): unpacked, and its archive on the way."""

    unpacked: int
    archive: int
    own: Migrations = field(default_factory=Migrations)


def path_refusal(origin: str, target: str, known: Iterable[str]) -> str | None:
    """Why there is no way from one version to another: no step back, and no minor version left out."""
    now, then = number(origin), number(target)
    listed = ", ".join(sorted(known, key=number))
    if then < now:
        return (
            f"{target} is older than {origin}, which runs. `mastodon-gov rollback` goes back where the database allows "
            f"it; known versions are {listed}."
        )
    last_minor = max(number(v)[1] for v in [*known, origin] if number(v)[0] == now[0])

    def near(there: tuple[int, int, int]) -> bool:
        next_major = (now[0] + 1, 0) if now[1] == last_minor else None
        return there >= now and (there[:2] in (now[:2], (now[0], now[1] + 1), next_major))

    if near(then):
        return None
    step = [v for v in known if near(number(v)) and number(v) > now]
    first = f"upgrade to {max(step, key=number)} first" if step else "take a product that knows the versions between"
    return f"no way from {origin} to {target}: every minor version must be visited, {first}. Known are {listed}."


def choose(origin: str, wanted: str, known: list[str], there: list[str]) -> str:
    """The version to go to when none was named: what instance.yaml wants, or the newest one whose bundle is here."""
    if number(wanted) > number(origin):
        return wanted
    ways = [v for v in there if number(v) > number(origin) and path_refusal(origin, v, known) is None]
    return max(ways, key=number) if ways else origin.partition("-")[0]


def pending(
    texts: dict[str, str], own: Migrations, versions: Iterable[str], rows: dict[str, int]
) -> tuple[tuple[Migration, ...], tuple[Migration, ...]]:
    """The migrations still to run, before and after the swap, in their order, with the tables they touch."""
    done, found = set(versions), {}
    for path, text in texts.items():
        stem, _, name = path.rpartition("/")[2].removesuffix(".rb").partition("_")
        touched = {table: rows[table] for table in sorted(tables(text)) if table in rows}
        found[stem] = Migration(stem, name, touched, tuple(sorted(created(text) - rows.keys())))
    unknown = Migration("", "", {})
    halves = (sorted(half - done) for half in (own.before, own.after))
    first, second = (tuple(found.get(n, unknown) for n in half) for half in halves)
    return first, second


def problems(seen: dict[str, Any], need: Need, todo: Iterable[Migration], *, installed: bool, swap: bool) -> list[str]:
    """A sentence for everything that stands against beginning; backups are judged by `backup_problems`."""
    found = []
    if seen["deploying"]:
        found.append(f"Another deploy or upgrade is running ({seen['deploying']}). Wait until it has ended.")
    if (server := seen["database"]["server"] // 10000) < POSTGRESQL:
        found.append(f"PostgreSQL is {server}, the release needs {POSTGRESQL} or newer. Upgrade PostgreSQL first.")
    memory = seen["memory"]
    if swap and memory["available"] < memory["application"]:
        found.append(
            f"memory: {memory['available']} MiB are available, and the second slot needs about "
            f"{memory['application']} MiB, as much as the first uses. Give the host more memory, or write fewer "
            "mastodon.web_workers in instance.yaml and deploy."
        )
    return found + _short_disks(seen, need, todo, installed)


def _short_disks(seen: dict[str, Any], need: Need, todo: Iterable[Migration], installed: bool) -> list[str]:
    touched = {table for migration in todo for table in migration.tables}
    rebuilt = sum(seen["database"]["tables"][table]["mib"] for table in touched)
    wanted = {
        "/opt/mastodon": 0 if installed else need.unpacked,
        "/home": 0 if installed else need.archive,
        # Carried, then copied once more so that what was verified is what is unpacked.
        "/var": 0 if installed else 2 * need.archive,
        # A table or its indexes may be written anew, and as much goes through the log.
        "/var/lib/postgresql": 2 * rebuilt,
    }
    by_device: dict[int, list[str]] = {}
    for place, told in seen["disks"].items():
        by_device.setdefault(told["device"], []).append(place)
    found = []
    for places in by_device.values():
        free, needed = seen["disks"][places[0]]["free"], sum(wanted[place] for place in places) + RESERVE
        if free < needed:
            found.append(
                f"disk: {free} MiB are free at {' and '.join(places)}, and {needed} MiB are needed. Make room "
                "(`mastodon-gov release prune --on HOST` removes releases nobody uses) or enlarge the disk."
            )
    return found


def held_problems(held: str, target: str) -> list[str]:
    """Why a release that was not finished must be finished first: the next one builds upon its last migrations."""
    if held in ("", target):
        return []
    return [f"{held} is held before its end. Finish it with `mastodon-gov upgrade {held.partition('-')[0]}` first."]


def backup_problems(seen: dict[str, Any]) -> list[str]:
    """Why a restore point would not help: sentences."""
    return [f"backup: {sentence}" for sentence in seen["backup"]["problems"]]


def measured(rehearsals: list[dict[str, Any]], release: str) -> float | None:
    """Seconds that the migrations of this release took on the copy of the last drill that ran them; None where none
    did, or where they failed there."""
    last = [each for each in rehearsals if each["release"] == release][-1:]
    return last[0]["seconds"] if last and "failed" not in last[0] else None


def estimate(journal: list[dict[str, Any]]) -> float | None:
    """Seconds of the last upgrade that came to its end on this host; None when there was none."""
    steps: dict[str, float] = {}
    last = None
    for line in journal:
        if line["event"] == "end" and number(line["to"]) > number(line["from"]):
            steps[line["attempt"]] = steps.get(line["attempt"], 0.0) + line["seconds"]
        if line["event"] == "closed" and line["attempt"] in steps:
            last = steps[line["attempt"]]
    return last


def notes(plan_after: tuple[Migration, ...], todo: Iterable[Migration], seen: dict[str, Any]) -> list[str]:
    """What a person should know and nothing stands against."""
    found = []
    if large := {table for each in todo for table, rows in each.tables.items() if rows > LARGE}:
        found.append(f"Tables with more than a million rows are touched: {', '.join(sorted(large))}.")
    if old := seen["database"]["transactions"]:
        found.append(f"Long transactions may keep a migration waiting: {'; '.join(old)}.")
    if plan_after:
        found.append("With --hold the upgrade stops before the point of no return; `upgrade` again goes on.")
    return found


def refuse(sentences: list[str]) -> None:
    """All of them in one refusal."""
    if sentences:
        raise Refusal("\n".join([*sentences, "Nothing was changed."]))
