"""PostgreSQL 17 from Debian: a cluster with checksums, a role that migrates and one that reads and writes."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from pyinfra import host
from pyinfra.api import FactBase, OperationError, QuoteString, StringCommand, operation

from mastodon_gov import host_probe
from mastodon_gov.findings import FOREIGN, foreign_database
from mastodon_gov.instance import Node
from mastodon_gov.instance.flows import reachable
from mastodon_gov.instance.flows import reaches_public as public
from roles.lib import Commands, deploy
from roles.lib.files import Directory, Entry, ManagedFile, managed_files
from roles.lib.live import Live, live
from roles.lib.packages import packages
from roles.lib.render import facts_program, managed
from roles.lib.settle import settle
from roles.lib.units import Unit, units

# pgbackrest is here because the archiver runs inside PostgreSQL's unit, whose sandbox names its directories.
PACKAGES = ["postgresql-17", "postgresql-client-17", "pgbackrest"]
CLUSTER = "/etc/postgresql/17/main"
BIN = "/usr/lib/postgresql/17/bin"
DATA = "/var/lib/postgresql/17/main"
MAKING = "/var/lib/postgresql/17-main.making"
FILES = Path(__file__).parent / "files"
UNIT = "postgresql@17-main.service"
UNITS = [
    Unit(UNIT, reads=(f"{CLUSTER}/conf.d/60-mfg.conf",)),
    Unit(UNIT, reads=(f"{CLUSTER}/pg_hba.conf", f"{CLUSTER}/pg_ident.conf"), reload=True),
]
SETTLED = {
    "roles": {"mastodon": True, "mastodon_owner": True},
    "database_owner": "mastodon_owner",
    "public_may_connect": False,
    "checksums": True,
}


class MemoryMiB(FactBase[int]):
    """Memory of the host in MiB; a container shows its host's, so `database.memory` may override it."""

    default = int

    def command(self) -> str:
        """From the kernel."""
        return "awk '/^MemTotal/ {print int($2/1024)}' /proc/meminfo"

    def process(self, output: list[str]) -> int:
        """One number."""
        return int(output[0])


def share(total: int) -> int:
    """Half of the host's memory, with its three leading bits: a kernel that keeps some MiB more or less for itself
    must not restart the database."""
    half = total // 2
    step = 1 << max(half.bit_length() - 3, 0)
    return half // step * step


class DatabaseState(FactBase[dict[str, object]]):
    """What the running server says of roles and database; empty while there is none."""

    default = dict

    def command(self) -> StringCommand:
        """As postgres, over the socket."""
        sql = (FILES / "database_state.sql").read_text()
        return StringCommand("runuser -u postgres -- psql -qtAX -c", QuoteString(sql), "2>/dev/null; true")

    def process(self, output: list[str]) -> dict[str, object]:
        """One JSON document."""
        found: dict[str, object] = json.loads("".join(output) or "{}")
        return found


class ClusterReady(FactBase[list[str]]):
    """`made`: the cluster was made to its end; `checksums`: its pages carry checksums."""

    default = list

    def command(self) -> str:
        """A marker stands while the cluster is being made; see `cluster`."""
        return (
            f"[ -s {DATA}/PG_VERSION ] && [ ! -e {MAKING} ] && echo made; "
            f"{BIN}/pg_controldata {DATA} 2>/dev/null | grep -q 'checksum version: *[1-9]' && echo checksums; true"
        )

    def process(self, output: list[str]) -> list[str]:
        """One word a line."""
        return output


class Clusters(FactBase[list[dict[str, Any]]]):
    """Every cluster of this host and what its mastodon_production holds, as the verb `check` sees them."""

    default = list

    def command(self) -> StringCommand:
        """The same program; where it cannot look, it fails, and so does the run."""
        program = Path(host_probe.__file__).read_text() + "\nprint(json.dumps(databases()))\n"
        return StringCommand("python3 -c", QuoteString(program))

    def process(self, output: list[str]) -> list[dict[str, Any]]:
        """One JSON document."""
        found: list[dict[str, Any]] = json.loads("".join(output))
        return found


@operation()
def refuse_foreign() -> Commands:
    """Refuse a host whose cluster holds a mastodon_production of somebody else; changes nothing."""
    for cluster in host.get_fact(Clusters):
        if found := foreign_database(cluster):
            raise OperationError(f"{host.name}: database: found {found}. {FOREIGN}")
    host.noop("nothing foreign")
    yield from ()


def cluster_files() -> list[Entry]:
    """What must be there before the package: Debian would make a cluster without checksums and start it."""
    settings = "create_main_cluster = false\ninitdb_options = '--data-checksums'\n"
    return [
        Directory("/etc/postgresql-common/createcluster.d"),
        ManagedFile("/etc/postgresql-common/createcluster.d/60-mfg.conf", settings),
    ]


def files(node: Node, memory: int) -> list[Entry]:
    """The cluster's configuration and the sandbox of its unit. `memory` is in MiB."""
    dropin = "/etc/systemd/system/postgresql@.service.d"
    owned = partial(managed, user="postgres", group="postgres", mode=0o640)
    sandbox = managed(
        "postgresql/etc/systemd/system/postgresql@.service.d/60-mfg.conf",
        f"{dropin}/60-mfg.conf",
        node,
        archive_to=reachable(node.instance, "postgres"),
        archive_public=public(node.instance, "postgres"),
    )
    base = "postgresql/etc/postgresql/17/main"
    return [
        facts_program("postgresql"),
        Directory(dropin),
        sandbox,
        owned(f"{base}/conf.d/60-mfg.conf", f"{CLUSTER}/conf.d/60-mfg.conf", node, memory=memory),
        owned(f"{base}/pg_hba.conf", f"{CLUSTER}/pg_hba.conf", node),
        owned(f"{base}/pg_ident.conf", f"{CLUSTER}/pg_ident.conf", node),
    ]


@operation()
def cluster() -> Commands:
    """Make the cluster, with checksums. One that was left half made was never started and is made anew; one that
    Debian made before us gets its checksums while it is stopped."""
    seen = host.get_fact(ClusterReady)
    if "made" not in seen:
        yield StringCommand(
            "install -d -o postgres -g postgres -m 755 /var/lib/postgresql && cd / && "
            f"if [ -e {MAKING} ]; then pg_dropcluster 17 main --stop 2>/dev/null; rm -rf {CLUSTER} {DATA}; fi; "
            f"touch {MAKING} && pg_createcluster 17 main --locale C.UTF-8 --encoding UTF8 -- --data-checksums && "
            f"sync && rm {MAKING}"
        )
    elif "checksums" not in seen:
        yield StringCommand(f"systemctl stop {UNIT} && runuser -u postgres -- {BIN}/pg_checksums --enable -D {DATA}")


def mended() -> list[Live]:
    """What others than our files decide: Debian's modes, and settings that would win over ours."""
    loose = f"find {CLUSTER} -type f -perm /0027"
    psql = "runuser -u postgres -- psql -qtAX -c"
    over = "SELECT count(*) FROM pg_file_settings WHERE sourcefile LIKE '%postgresql.auto.conf'"
    return [
        Live("the data directory", f"find {DATA} -maxdepth 0 -perm /0077", "", f"chmod 700 {DATA}"),
        Live("files of the cluster that everybody may read", loose, "", f"{loose} -exec chmod g-w,o-rwx {{}} +"),
        Live(
            "settings of ALTER SYSTEM",
            f'{psql} "{over}"',
            "0",
            f"{psql} 'ALTER SYSTEM RESET ALL' && systemctl restart {UNIT}",
        ),
    ]


@operation()
def database() -> Commands:
    """Roles, database, extension; only when the running server lacks one of them."""
    if host.get_fact(DatabaseState) != SETTLED:
        sql = (FILES / "database.sql").read_text()
        yield StringCommand("runuser -u postgres -- psql -qX -v ON_ERROR_STOP=1 -f -", _stdin=sql)


@deploy("PostgreSQL")
def postgresql(node: Node) -> None:
    """Cluster before configuration before start; then what lives in it."""
    _cluster(node)
    units(name="Run units", wanted=UNITS)
    live(name="Mend what others have changed", wanted=mended())
    database(name="Make roles and database")


@deploy("PostgreSQL, not started")
def place(node: Node) -> None:
    """Where a restored database goes."""
    _cluster(node)


def _cluster(node: Node) -> None:
    memory = node.instance.database.memory or share(host.get_fact(MemoryMiB))
    managed_files(name="Ask for no cluster", entries=cluster_files())
    packages(name="Install packages", names=PACKAGES)
    cluster(name="Make the cluster")
    settle(files=files(node, memory))
