"""Tables, lock, migrations and the owner's account: read by SQL, written by Rails or by the lock's own SQL."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyinfra import host
from pyinfra.api import FactBase, OperationError, QuoteString, StringCommand, operation

from mastodon_gov.instance import Instance, Node
from mastodon_gov.instance.immutable import domain_refusal
from roles.lib import Commands
from roles.mastodon.lock import is_settled, lock_sql, psql_install, status_sql, sync_sql
from roles.mastodon.processes import HOME, LIB

DATABASE = "mastodon_production"
FIRST_PASSWORD = "/var/lib/mastodon-gov/owner-first-password"  # noqa: S105  # a path
SHOWN = "/var/lib/mastodon-gov/owner-password-shown"


@dataclass(frozen=True)
class Application:
    """What database and release say: number of tables, migrations done and still to do, the owner's account."""

    tables: int = 0
    versions: frozenset[str] = frozenset()
    before: frozenset[str] = frozenset()
    after: frozenset[str] = frozenset()
    owner: dict[str, bool] | None = None
    status_host: str | None = None
    password_waits: bool = False
    password_shown: bool = False
    lock: dict[str, Any] = field(default_factory=lambda: {"installed": False})

    def pending(self, after: bool) -> frozenset[str]:
        """Migrations of the release that the database has not seen, of the half that runs before or after the swap."""
        return (self.after if after else self.before) - self.versions

    @property
    def newer(self) -> frozenset[str]:
        """Migrations that only a newer release can have made; empty while no release is installed."""
        known = self.before | self.after
        return frozenset(v for v in self.versions if known and v > max(known))


class ApplicationState(FactBase[Application]):
    """One command for everything the steps below must know."""

    default = Application

    def command(self, release: str, owner: str) -> StringCommand:
        """Lists of migrations from the release, three documents from the database, marks of the first password."""
        sql = (Path(__file__).parent / "files" / "state.sql").read_text() + status_sql()
        script = (
            f'cd {HOME}/releases/"$1" 2>/dev/null && {{ ls db/migrate; echo =; ls db/post_migrate; }} || echo =; '
            "echo =; "
            'printf "%s" "$3" | runuser -u postgres -- psql -qtAX -v ON_ERROR_STOP=1 -v owner="$2" '
            f"-d {DATABASE} -f - 2>/dev/null | tr -d '\\n' | sed 's/}}{{/}}\\n{{/g'; echo; echo =; "
            f"[ -e {FIRST_PASSWORD} ] && echo waits; [ -e {SHOWN} ] && echo shown; true"
        )
        return StringCommand(
            "sh -c", QuoteString(script), "sh", QuoteString(release), QuoteString(owner), QuoteString(sql)
        )

    def process(self, output: list[str]) -> Application:
        """Four parts, separated by `=`."""
        parts: list[list[str]] = [[]]
        for line in output:
            if line == "=":
                parts.append([])
            elif line:
                parts[-1].append(line)
        before, after, documents, marks = parts
        read = [json.loads(line) for line in documents]
        told: dict[str, Any] = read[1] if len(read) == 3 else {}
        return Application(
            tables=read[0]["tables"] if read else 0,
            versions=frozenset(told.get("versions") or ()),
            before=frozenset(name.split("_")[0] for name in before if name[:1].isdigit()),
            after=frozenset(name.split("_")[0] for name in after if name[:1].isdigit()),
            owner=told.get("owner"),
            status_host=told.get("status_host"),
            password_waits="waits" in marks,
            password_shown="shown" in marks,
            lock=read[2] if len(read) == 3 else {"installed": False},
        )


# By host, until a step below changes something: asking again before each step would be a second of every deploy.
_known: dict[str, Application] = {}


def observe(node: Node) -> Application:
    """The state of this node's application. Raises OperationError for a database a deploy must not touch."""
    if state := _known.get(host.name):
        return state
    state = host.get_fact(ApplicationState, release=node.release.name, owner=node.instance.owner.username)
    # Complete only when database and release are both there: other roles make them.
    if state.lock["installed"] and state.before:
        _known[host.name] = state
    if refusal := refused(state, node.instance, node.release.name):
        raise OperationError(refusal)
    return state


def refused(state: Application, instance: Instance, release: str) -> str | None:
    """Why this database must stay as it is, or None."""
    if state.newer:
        return (
            f"database {DATABASE}: it holds migrations up to {max(state.versions)}, which release {release} does not "
            "know; it belongs to a newer release. Set `release` in instance.yaml to that release, then deploy again."
        )
    deployed = state.lock.get("deployment") or {}
    return domain_refusal(instance, deployed.get("local_domain"), deployed.get("web_domain"), state.status_host)


def _changing() -> None:
    """What was observed is about to be untrue."""
    _known.pop(host.name, None)


def _as_owner(node: Node, *words: str, prefix: str = "") -> StringCommand:
    release = f"{HOME}/releases/{node.release.name}"
    return StringCommand(f"{prefix}{LIB}/mastodon-run mastodon-owner {release}", *(QuoteString(word) for word in words))


@operation()
def same_instance(node: Node) -> Commands:
    """Refuse a database that a deploy must not touch, before the deploy writes anything at all."""
    observe(node)
    yield from ()


@operation()
def prepare_database(node: Node) -> Commands:
    """Load the release's schema and seeds into the new database, again and again until the lock is in: until then no
    process of the application has ever run on it. Rails forgets the seeds when it is killed after the schema, so they
    are a task of their own; they can be repeated."""
    if not observe(node).lock["installed"]:
        _changing()
        yield _as_owner(node, "bundle", "exec", "rails", "db:prepare", "db:seed")


@operation()
def migrate(node: Node, after: bool) -> Commands:
    """Run what is pending as the owner. A migration that cannot get its lock in 10 s gives up instead of making
    everybody wait behind it; the next deploy tries again."""
    if not observe(node).pending(after):
        return
    _changing()
    if not after:
        yield StringCommand(f"{LIB}/restore-point before-{node.release.name}")
    prefix = "PGOPTIONS='-c lock_timeout=10s' " + ("" if after else "SKIP_POST_DEPLOYMENT_MIGRATIONS=true ")
    yield _as_owner(node, "bundle", "exec", "rails", "db:migrate", prefix=prefix)


@operation()
def database_lock(node: Node) -> Commands:
    """Install the lock and carry the staff domains into it, in one transaction."""
    instance = node.instance
    names = (instance.domain.handle, instance.domain.web)
    settings = {"require_2fa": "true"}
    if not is_settled(observe(node).lock, instance.staff_domains, settings, names):
        _changing()
        install = " ".join(psql_install(DATABASE))
        sql = lock_sql() + "\n" + sync_sql(instance.staff_domains, settings, names)
        yield StringCommand(f"runuser -u postgres -- {install}", _stdin=sql)


@operation()
def owner_account(node: Node) -> Commands:
    """Make the first account. One whose password nobody ever saw gets a new one."""
    state, owner = observe(node), node.instance.owner
    seen = state.password_waits or state.password_shown
    if state.owner is not None and (state.owner["signed_in"] or seen):
        return
    _changing()
    what = "create" if state.owner is None else "reset"
    release = f"{HOME}/releases/{node.release.name}"
    yield StringCommand(f"{LIB}/owner_account.py {what} {release}", QuoteString(owner.username), owner.address)
