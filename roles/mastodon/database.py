"""Tables, lock, migrations and the owner's account: read by SQL, written by Rails or by the lock's own SQL."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyinfra import host
from pyinfra import state as run
from pyinfra.api import FactBase, OperationError, QuoteString, StringCommand, operation

from mastodon_gov import migrations
from mastodon_gov.instance import Instance, Node
from mastodon_gov.instance.immutable import domain_refusal
from mastodon_gov.migrations import Migrations
from roles.lib import Commands
from roles.lib.seen import seen
from roles.mastodon.lock import SETTINGS, is_settled, lock_sql, psql_install, status_sql, sync_sql
from roles.mastodon.processes import HOME, LIB, journalled, who

DATABASE = "mastodon_production"
FIRST_PASSWORD = "/var/lib/mastodon-gov/owner-first-password"  # noqa: S105  # a path
SHOWN = "/var/lib/mastodon-gov/owner-password-shown"
JOURNAL = "/var/lib/mastodon-gov/journal/upgrades.jsonl"
HELD = "/var/lib/mastodon-gov/upgrade-held"  # the release whose post-deployment migrations wait for a person


@dataclass(frozen=True)
class Application:
    """What database and releases say: whether the server answered, why it did not say everything, whether anybody has
    an account, migrations done, those of every installed release, the owner's account, living accounts at organisations
    or domains that organisations.yaml does not want any more, and whether an upgrade is on its way or held before its
    end."""

    answered: bool = False
    failed: str = ""
    people: bool = False
    versions: frozenset[str] = frozenset()
    installed: dict[str, Migrations] = field(default_factory=dict)
    owner: dict[str, bool] | None = None
    status_host: str | None = None
    password_waits: bool = False
    password_shown: bool = False
    orphans: dict[str, Any] = field(default_factory=dict)
    lock: dict[str, Any] = field(default_factory=lambda: {"installed": False})
    held: str = ""
    unfinished: bool = False

    def pending(self, release: str, after: bool) -> frozenset[str]:
        """Migrations of a release that the database has not seen, of the half that runs before or after the swap; none
        of the later half while a person has it held."""
        if after and self.held == release:
            return frozenset()
        own = self.installed.get(release, Migrations())
        return (own.after if after else own.before) - self.versions


class ApplicationState(FactBase[Application]):
    """One command for everything the steps below must know."""

    default = Application

    def command(self, owner: str, wanted: str) -> StringCommand:
        """Lists of migrations from the releases, documents from the database, its errors, marks from the host's files;
        `wanted` is JSON with the ids and domains of the organisations."""
        sql = (Path(__file__).parent / "files" / "state.sql").read_text() + status_sql()
        script = (
            f"cd {HOME}/releases 2>/dev/null && ls -1 -d */db/migrate/[0-9]* */db/post_migrate/[0-9]* 2>/dev/null "
            "| sed 's/_[^/]*$//'; cd /; echo =; "
            '{ said=$(printf "%s" "$2" | runuser -u postgres -- psql -qtAX -v ON_ERROR_STOP=1 -v owner="$1" '
            '-v wanted="$3" -d postgres -f - 2>&1 >&3); } 3>&1; echo; echo =; echo "$said"; echo =; '
            f"[ -e {FIRST_PASSWORD} ] && echo waits; [ -e {SHOWN} ] && echo shown; "
            f'[ ! -e {HELD} ] || echo "held $(cat {HELD})"; '
            # Held only as long as somebody wants it held: then the way goes on, also where nothing is left to migrate.
            f'[ ! -s {JOURNAL} ] || case $(tail -n 1 {JOURNAL}) in *\'"event": "closed"\'*) ;; '
            f'*\'"event": "held"\'*) [ -e {HELD} ] || echo unfinished ;; *) echo unfinished ;; esac; true'
        )
        return StringCommand("sh -c", QuoteString(script), "sh", *map(QuoteString, (owner, sql, wanted)))

    def process(self, output: list[str]) -> Application:
        """Four parts, separated by `=`."""
        parts: list[list[str]] = [[]]
        for line in output:
            if line == "=":
                parts.append([])
            elif line:
                parts[-1].append(line)
        listed, documents, errors, marks = parts
        read = _documents("".join(documents))
        # The first says whether there is a database; of one that is there three more tell.
        made = bool(read) and read[0]["made"]
        told, orphans, lock = read[1:] if len(read) == 4 else ({}, {}, {"installed": False})
        said = {word: text for word, _, text in (mark.partition(" ") for mark in marks)}
        return Application(
            answered=bool(read),
            failed="" if len(read) == (4 if made else 1) else " ".join(errors)[:600] or "it said nothing",
            people=bool(told.get("people")),
            versions=frozenset(told.get("versions") or ()),
            installed=migrations.read_installed(listed),
            owner=told.get("owner"),
            status_host=told.get("status_host"),
            password_waits="waits" in said,
            password_shown="shown" in said,
            orphans=orphans,
            lock=lock,
            held=said.get("held", ""),
            unfinished="unfinished" in said,
        )


def _documents(text: str) -> list[Any]:
    """JSON documents that stand one after the other."""
    found, at = [], 0
    while at < len(text):
        document, at = json.JSONDecoder().raw_decode(text, at)
        found.append(document)
    return found


def observe(node: Node, *, early: bool = False) -> Application:
    """The state of this node's application. Raises OperationError for a database a deploy must not touch, and for one
    that does not say what it is. `early`: PostgreSQL may have yet to be installed or started."""
    instance = node.instance
    wanted = json.dumps({"ids": list(instance.register), "domains": list(instance.staff_domains)})
    asked = {"owner": instance.owner.username, "wanted": wanted}
    state = seen(ApplicationState, **asked)
    if state.failed:  # perhaps remembered from a moment when PostgreSQL was not up yet
        state = host.get_fact(ApplicationState, **asked)
    if refusal := unknown(state, may_be_away=early or not run.is_executing) or refused(
        state, node.instance, node.release.name
    ):
        raise OperationError(refusal)
    return state


def unknown(state: Application, *, may_be_away: bool) -> str | None:
    """Why nobody can say what the database holds, or None; a live one must never be taken for a new one."""
    if not state.failed or (may_be_away and not state.answered):
        return None
    return (
        f"database {DATABASE}: PostgreSQL does not tell what it holds, so that nothing is done to it: {state.failed}. "
        "Mend that on the host (`journalctl -u postgresql@17-main`), then run deploy again."
    )


def refused(state: Application, instance: Instance, release: str) -> str | None:
    """Why this database must stay as it is, or None."""
    own = state.installed.get(release, Migrations())
    if newer := migrations.refusal(release, own, state.versions, state.installed):
        return f"database {DATABASE}: {newer}"
    if state.orphans:
        return "\n".join(_orphaned(body, told) for body, told in sorted(state.orphans.items()))
    deployed = state.lock.get("deployment") or {}
    return domain_refusal(instance, deployed.get("local_domain"), deployed.get("web_domain"), state.status_host)


def _orphaned(gone: str, told: dict[str, Any]) -> str:
    """`gone`: an organisation, or a domain of one that stays."""
    names = ", ".join(f"@{name}" for name in told["names"]) + (", …" if told["count"] > len(told["names"]) else "")
    if stays := told.get("of"):
        return (
            f"organisations.yaml, organisation {stays}: found the domain {gone} no more, or the state `requested`, in "
            f"which none counts, but {told['count']} accounts have or await an address there: {names}. The sweep would "
            "disable them. Put the domain back (`state: leaving` lets nobody new in), off-board the accounts "
            "(`mastodon-gov offboard @NAME`) or give them another address, then remove it."
        )
    return (
        f"organisations.yaml: found no organisation {gone}, but {told['count']} of its accounts live: {names}. "
        "Only one without living accounts can go. Put it back with `state: leaving`, off-board the accounts "
        "(`mastodon-gov offboard @NAME`), then remove it."
    )


def _as_owner(node: Node, *words: str) -> StringCommand:
    release = f"{HOME}/releases/{node.release.name}"
    return StringCommand(f"{LIB}/mastodon-run mastodon-owner {release}", *(QuoteString(word) for word in words))


@operation()
def same_instance(node: Node) -> Commands:
    """Refuse a database that a deploy must not touch, before the deploy writes anything at all."""
    observe(node, early=True)
    yield from ()


@operation()
def prepare_database(node: Node) -> Commands:
    """Load the release's schema and seeds into the new database, again and again until the lock is in: until then no
    process of the application has ever run on it. Rails forgets the seeds when it is killed after the schema, so they
    are a task of their own; they can be repeated. Where people have accounts the lock was lost: such a database is
    migrated behind a restore point like any other, and gets its lock back."""
    state = observe(node)
    if not state.lock["installed"] and not state.people:
        yield _as_owner(node, "bundle", "exec", "rails", "db:prepare", "db:seed")


@operation()
def restore_point(node: Node, after: bool) -> Commands:
    """Mark the moment before migrations, so that a restore can stop there. PostgreSQL takes a name twice and then a
    restore stops at the first, so each mark has its time in its name."""
    if observe(node).pending(node.release.name, after):
        name = f"before-{'post-' if after else ''}{node.release.name}-$(date -u +%Y%m%dT%H%M%SZ)"
        yield journalled(node.release, _half("restore point", after), f"{LIB}/restore-point {name}")


@operation()
def migrate(node: Node, after: bool) -> Commands:
    """Run what is pending as the owner, without making anybody wait behind it."""
    release = node.release
    if observe(node).pending(release.name, after):
        command = f"{LIB}/migrate.py {release.name} {'after' if after else 'before'}"
        yield journalled(release, _half("migrations", after), command)


def _half(step: str, after: bool) -> str:
    return f"{step} after" if after else f"{step} before"


@operation()
def close_journal(node: Node) -> Commands:
    """Write down that the way to this release has come to its end, or is held before what cannot be undone."""
    state, release = observe(node), node.release.name
    if state.unfinished:
        yield StringCommand(
            f"{LIB}/journal.py close {release}", QuoteString(who()), "held" if state.held == release else ""
        )


@operation()
def database_lock(node: Node) -> Commands:
    """Install the lock and carry the organisations into it, in one transaction; again when a migration has added what
    it did not cover."""
    instance = node.instance
    names = (instance.domain.handle, instance.domain.web)
    if not is_settled(observe(node).lock, instance.register, SETTINGS, names):
        install = " ".join(psql_install(DATABASE))
        sql = lock_sql() + "\n" + sync_sql(instance.register, SETTINGS, names)
        yield StringCommand(f"runuser -u postgres -- {install}", _stdin=sql)


@operation()
def owner_account(node: Node) -> Commands:
    """Make the first account. One whose password nobody ever saw gets a new one."""
    state, owner = observe(node), node.instance.owner
    seen = state.password_waits or state.password_shown
    if state.owner is not None and (state.owner["signed_in"] or seen):
        return
    what = "create" if state.owner is None else "reset"
    release = f"{HOME}/releases/{node.release.name}"
    yield StringCommand(f"{LIB}/owner_account.py {what} {release}", QuoteString(owner.username), owner.address)
