"""Migrations of releases: which a release knows, which tables they touch, and whether a release may run on a database
that holds others. Nothing here is connected.

A release runs its db/migrate while the release before it still serves, and its db/post_migrate when nobody needs the
old form any more; upstream promises no more than that (mastodon-production.md §7).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# What Rails and SQL call a table in a migration. A wrong hit is looked up in the database and dropped there.
TABLES = re.compile(
    r"""\b(?:create_table|drop_table|change_table|rename_table|add_column|remove_columns?|rename_column|change_column\w*
        |add_index|remove_index|rename_index|add_reference|remove_reference|add_belongs_to|add_foreign_key
        |validate_foreign_key|add_check_constraint|validate_check_constraint|add_timestamps|add_not_null_constraint
        |safety_assured\s*\{\s*add_column)\s*\(?\s*[:"'](\w+)
        |\b(?:UPDATE|INTO|FROM|TABLE(?:\s+IF\s+EXISTS)?|JOIN)\s+(?:ONLY\s+)?"?(?:public\.)?([a-z_]\w+)"?
        |\bON\s+"?(?:public\.)?([a-z_]\w+)"?\s*(?:\(|USING)""",
    re.VERBOSE,
)
NAME = re.compile(r"\d+\.\d+\.\d+-[0-9a-f]{8}")  # of a release's directory
CREATED = re.compile(r"\bcreate_table\s*\(?\s*[:\"'](\w+)")
# `self.table_name = "x"` and `class Account < ApplicationRecord`: a migration that works row by row.
MODEL = re.compile(r"table_name\s*=\s*[:\"'](\w+)|class\s+(\w+)\s*<\s*(?:ApplicationRecord|ActiveRecord::Base)")


@dataclass(frozen=True)
class Migrations:
    """Numbers of the migrations of one release: those of `before` the old release survives."""

    before: frozenset[str] = frozenset()
    after: frozenset[str] = frozenset()

    @property
    def known(self) -> frozenset[str]:
        """All of them."""
        return self.before | self.after


def read_paths(paths: Iterable[str]) -> Migrations:
    """Migrations from paths below a release, such as db/migrate/20260101000000_add_x.rb."""
    halves: dict[str, set[str]] = {"db/migrate/": set(), "db/post_migrate/": set()}
    for path in paths:
        for place, found in halves.items():
            if path.startswith(place) and (number := path.removeprefix(place).split("_")[0]).isdigit():
                found.add(number)
    return Migrations(frozenset(halves["db/migrate/"]), frozenset(halves["db/post_migrate/"]))


def read_installed(lines: Iterable[str]) -> dict[str, Migrations]:
    """Migrations of every installed release, from lines such as 4.6.5-0123abcd/db/migrate/20260101000000_add_x.rb."""
    paths: dict[str, list[str]] = {}
    for line in lines:
        name, _, path = line.partition("/")
        if NAME.fullmatch(name):
            paths.setdefault(name, []).append(path)
    return {name: read_paths(found) for name, found in paths.items()}


def tables(text: str) -> frozenset[str]:
    """Tables that a migration's text names, as far as a reader of text can tell."""
    found = {name for groups in TABLES.findall(text) for name in groups if name}
    for given, model in MODEL.findall(text):
        # Rails' plural of most names; what is no table is dropped by the database.
        found.add(given or re.sub(r"(?<!^)(?=[A-Z])", "_", model).lower() + ("es" if model.endswith("s") else "s"))
    return frozenset(found)


def created(text: str) -> frozenset[str]:
    """Tables that a migration makes."""
    return frozenset(CREATED.findall(text))


def number(version: str) -> tuple[int, int, int]:
    """4.6.5, or a release's name 4.6.5-0123abcd, as three numbers."""
    major, minor, patch = version.partition("-")[0].split(".")
    return int(major), int(minor), int(patch)


def strangers(
    name: str, release: Migrations, versions: Iterable[str], installed: Mapping[str, Migrations]
) -> frozenset[str]:
    """Migrations in the database that only a later release can have run."""
    if not release.known:
        return frozenset()
    later = {v for other, m in installed.items() if number(other) > number(name) for v in m.known}
    return frozenset(v for v in versions if v not in release.known and (v in later or v > max(release.known)))


def refusal(name: str, release: Migrations, versions: Iterable[str], installed: Mapping[str, Migrations]) -> str | None:
    """Why release `name` must not run on a database that holds these versions; None when it may.

    It may when nothing but pre-deployment migrations of the next minor version, or of a later patch, has run: while
    they run, upstream expects this release to serve.
    """
    left = strangers(name, release, versions, installed)
    if not left:
        return None
    makers = [other for other, m in installed.items() if number(other) > number(name) and left <= m.known]
    if not makers:
        return (
            f"it holds migrations up to {max(left)}, which release {name} (up to {max(release.known)}) does not know; "
            "it belongs to a newer release. Set `release` in instance.yaml to that release, then deploy again."
        )
    maker = min(makers, key=number)
    if final := sorted(left & installed[maker].after):
        return (
            f"post-deployment migrations of {maker} have run ({', '.join(final)}): the point of no return is behind, "
            f"{name} is not made for this database. Set `release` in instance.yaml to {maker.split('-')[0]} again; "
            "`mastodon-gov rollback --plan` names the restore point and what it would lose."
        )
    (major, minor, _), (to_major, to_minor, _) = number(maker), number(name)
    if (major, minor - 1) > (to_major, to_minor):
        return (
            f"migrations of {maker} have run, and {name} is more than one minor version older: upstream promises "
            f"nothing for that. Set `release` in instance.yaml to {maker.split('-')[0]} again, then deploy."
        )
    return None
