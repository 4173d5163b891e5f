"""Which versions upstream has published, and how far behind one is. Works from a file, without a network."""

from __future__ import annotations

from calendar import monthrange
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mastodon_gov.errors import Refusal
from mastodon_gov.migrations import number
from mastodon_gov.release.bundle import verify_signature
from mastodon_gov.release.pins import Frozen

FILE = "known_versions.yaml"
BUILT_IN = Path(__file__).with_name(FILE)
OLD = 45  # days after which a list says so


class Published(Frozen):
    """A version: its day, and the advisories it answers; empty for a release without a security section."""

    date: date
    security: tuple[str, ...] = ()


class Known(Frozen):
    """A list of versions. `as_of` is the day up to which it is complete."""

    as_of: date
    versions: dict[str, Published]


@dataclass(frozen=True)
class Standing:
    """How a version stands. `advisory` is the day of the oldest advisory it does not answer; ages in days."""

    version: str
    newest: str
    newest_of_series: str
    behind: int
    security: bool
    advisory: str | None
    advisory_days: int | None
    advisories: tuple[str, ...]
    list_as_of: str
    list_days: int

    def sentence(self) -> str:
        """For a person."""
        if self.behind == 0:
            text = f"{self.version} is the newest of its series"
        else:
            security = "yes" if self.security else "no"
            text = f"{self.version} is behind by {self.behind} ({self.newest_of_series}), security: {security}"
        if self.advisory:
            text += f", advisory of {self.advisory}, {self.advisory_days} days ({', '.join(self.advisories)})"
        if self.newest != self.newest_of_series:
            text += f"; the newest series has {self.newest}"
        old = f", {self.list_days} days old: carry in a newer one" if self.list_days > OLD else ""
        return f"{text}. The list is of {self.list_as_of}{old}."

    def data(self) -> dict[str, Any]:
        """For a program."""
        return asdict(self) | {"sentence": self.sentence()}


def standing(version: str, known: Known, today: date) -> Standing:
    """Compare a version with the list; one it does not know is refused."""
    if version not in known.versions:
        raise Refusal(
            f"release check: the list of {known.as_of} does not know Mastodon {version}, only "
            f"{', '.join(sorted(known.versions, key=number, reverse=True)[:6])} and older. Carry in a newer list "
            "(docs/operator/releases.md)."
        )
    series = [other for other in known.versions if number(other)[:2] == number(version)[:2]]
    missed = sorted((other for other in series if number(other) > number(version)), key=number)
    answers = [(known.versions[other].date, known.versions[other].security) for other in missed]
    open_since = min((day for day, security in answers if security), default=None)
    return Standing(
        version=version,
        newest=max(known.versions, key=number),
        newest_of_series=max(series, key=number),
        behind=len(missed),
        security=open_since is not None,
        advisory=open_since.isoformat() if open_since else None,
        advisory_days=(today - open_since).days if open_since else None,
        advisories=tuple(dict.fromkeys(name for _, security in answers for name in security)),
        list_as_of=known.as_of.isoformat(),
        list_days=(today - known.as_of).days,
    )


def supported_until(version: str, known: Known) -> date | None:
    """Last day of a series; None while upstream has named none. Refuses a series that the list does not know.

    Upstream's rule, as its SECURITY.md says of 4.3 and 4.4: the two newest series, and the one before them for six
    months after the newest began.
    """
    began = {number(each)[:2]: entry.date for each, entry in known.versions.items() if number(each)[2] == 0}
    series = number(version)[:2]
    if series not in began:
        raise Refusal(
            f"Mastodon {version}: the list of {known.as_of} does not know when this series began. Carry in a newer "
            "list (docs/operator/releases.md), or upgrade to a series that it knows."
        )
    newer = sorted(other for other in began if other > series)
    return _half_a_year_after(began[newer[1]]) if len(newer) > 1 else None


def _half_a_year_after(day: date) -> date:
    """The same day of the month; the month's last one where it has no such day."""
    year, month = day.year + (day.month + 5) // 12, (day.month + 5) % 12 + 1
    return date(year, month, min(day.day, monthrange(year, month)[1]))


def of_status(seen: dict[str, Any], directory: Path) -> dict[str, Any]:
    """How the release that serves stands, for `status`; {"error": …} when that cannot be told."""
    web = seen.get("slots", {}).get("kinds", {}).get("web", {})
    running = [str(state["release"]) for state in web.values() if state["active"] and state["release"]]
    if not running:
        return {"error": "no release serves"}
    try:
        return standing(running[0].partition("-")[0], known_versions(directory), datetime.now(UTC).date()).data()
    except Refusal as refusal:
        return {"error": str(refusal)}


def known_versions(directory: Path | None = None, file: Path | None = None, signers: Path | None = None) -> Known:
    """The list given, or else the newer of the built-in one and the instance's own.

    A list from outside counts only with a signature (FILE.sig) by a key of the instance's `release_signers`.
    """
    mine = directory / FILE if directory else None
    if file is None and (mine is None or not mine.exists()):
        return read(BUILT_IN)
    chosen = file or mine
    trusted = signers or (directory / "release_signers" if directory else None)
    assert chosen is not None  # noqa: S101  one of the two, by the test above
    verify_signature(chosen, trusted or Path("releases/allowed_signers"))
    given, built_in = read(chosen), read(BUILT_IN)
    if given.as_of < built_in.as_of:
        if file is None:
            return built_in
        raise Refusal(
            f"{file}: this list is of {given.as_of}, the built-in one is of {built_in.as_of}. Get a newer one."
        )
    return given


def read(file: Path) -> Known:
    """A list as YAML."""
    try:
        return Known.model_validate(yaml.safe_load(file.read_text()))
    except (OSError, ValueError, yaml.YAMLError, ValidationError) as error:
        raise Refusal(f"{file}: it is no list of versions ({error}). It looks like {BUILT_IN.name}.") from error
