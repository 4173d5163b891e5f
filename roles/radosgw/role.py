"""S3 on a host of one's own: radosgw on a Ceph of one monitor, one manager and one OSD, nginx with TLS in front.

One copy on one host: it is as safe as its disk (docs/it-team/radosgw.md). Ceph listens on loopback only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pyinfra import host
from pyinfra.api import FactBase, QuoteString, StringCommand, operation

from roles.lib import Commands, deploy
from roles.lib.files import Absent, Directory, Entry, ManagedFile
from roles.lib.render import program, text
from roles.lib.settle import settle
from roles.lib.units import Unit, units

PACKAGES = ["ceph-base", "ceph-common", "ceph-mgr", "ceph-mon", "ceph-osd", "nginx", "radosgw"]
CONF = "/etc/ceph/ceph.conf"
SITE = "/etc/nginx/conf.d/60-mfg-radosgw.conf"
PROGRAM = "/usr/local/lib/mastodon-gov/ceph-one-host"
DAEMONS = ("ceph-mon@a.service", "ceph-osd@0.service", "ceph-mgr@a.service", "ceph-radosgw@rgw.a.service")
# What stops before what. The OSD tells the monitor that it goes: otherwise the gateway looks for it where it was, for
# 15 s after the next boot. The gateway stops first, and by one hand: otherwise it stays enrolled there as a listener,
# and whatever changes within half a minute of the next boot waits for an answer from it (RADOS' notify).
ORDER = {
    "ceph-osd@0": "ceph-mon@a.service",
    "ceph-radosgw@rgw.a": "ceph-mon@a.service ceph-osd@0.service",
}
# Dependencies of Ceph's packages that fail at every boot or every ten minutes on a host without their hardware or key.
# The last is the same daemon again, for SysV: it kills the gateway while systemd lets it end.
USELESS = [Unit(f"{name}.service", masked=True) for name in ("nvmf-autoconnect", "ceph-crash", "radosgw")]
NO_BUCKETS, MANY_BUCKETS = -1, 1000


@dataclass(frozen=True)
class User:
    """An S3 user. Only an owner of buckets may make any: a writer that owns its bucket can undo its lock."""

    uid: str
    owns_buckets: bool = False

    @property
    def max_buckets(self) -> int:
        """The number as Ceph counts it: -1 is none."""
        return MANY_BUCKETS if self.owns_buckets else NO_BUCKETS


@dataclass(frozen=True)
class Storage:
    """The S3 service: its DNS name, paths of chain and key on the host, its users, size of its (sparse) file in GiB.

    The size is fixed when the OSD is made.
    """

    name: str
    certificate: str
    key: str
    users: tuple[User, ...]
    size: int = 40


def files(storage: Storage) -> list[Entry]:
    """What is written on the host."""
    site = text("radosgw/nginx.conf", name=storage.name, certificate=storage.certificate, key=storage.key)
    return [
        ManagedFile(CONF, text("radosgw/ceph.conf", name=storage.name, size=storage.size)),
        Directory("/usr/local/lib/mastodon-gov"),
        program("radosgw", "ceph_one_host.py", PROGRAM),
        *(entry for unit, first in ORDER.items() for entry in _drop_in(unit, first)),
        ManagedFile(SITE, site),
        Absent("/etc/nginx/sites-enabled/default"),
    ]


def _drop_in(unit: str, first: str) -> list[Entry]:
    directory = f"/etc/systemd/system/{unit}.service.d"
    return [Directory(directory), ManagedFile(f"{directory}/60-mfg.conf", f"[Unit]\nAfter={first}\n")]


def running(storage: Storage) -> list[Unit]:
    """What runs when the cluster is made."""
    proxied = (SITE, storage.certificate, storage.key)
    front = Unit("nginx.service", reads=proxied, reload=True, check="nginx -t -q")
    # The daemons are wanted by these targets alone: without them nothing of Ceph starts at boot.
    targets = [Unit(f"{name}.target") for name in ("ceph", "ceph-mon", "ceph-mgr", "ceph-osd", "ceph-radosgw")]
    return [*targets, *(Unit(name, reads=(CONF,)) for name in DAEMONS), front]


class StorageState(FactBase[dict[str, Any]]):
    """Which parts of the cluster are missing, and how many buckets each user may make (None: suspended)."""

    @staticmethod
    def default() -> dict[str, Any]:
        """Before the program is there: everything is missing."""
        return {"missing": ["all"], "users": {}}

    def command(self) -> str:
        """One call for everything."""
        return f"[ ! -x {PROGRAM} ] || {PROGRAM} state"

    def process(self, output: list[str]) -> dict[str, Any]:
        """The last line is JSON."""
        found: dict[str, Any] = json.loads(output[-1])
        return found


@operation()
def cluster() -> Commands:
    """Make what is missing of monitor, OSD, manager and gateway."""
    if host.get_fact(StorageState)["missing"]:
        yield StringCommand(PROGRAM, "cluster")


@operation()
def users(wanted: list[User]) -> Commands:
    """Make users and set how many buckets they may make; others are suspended, and their data stays.

    The gateway makes the keys, and we do not see them.
    """
    known = host.get_fact(StorageState)["users"]
    for user in wanted:
        if known.get(user.uid) != user.max_buckets:
            yield StringCommand(PROGRAM, "user", QuoteString(user.uid), str(user.max_buckets))
    for uid in sorted(known.keys() - {user.uid for user in wanted}):
        if known[uid] is not None:
            yield StringCommand(PROGRAM, "suspend", QuoteString(uid))


@deploy("S3 storage")
def radosgw(storage: Storage) -> None:
    """Packages, files, cluster, daemons, users."""
    settle(PACKAGES, files(storage), USELESS)
    cluster(name="Make the cluster")
    units(name="Run units", wanted=running(storage))
    users(name="Make users", wanted=list(storage.users))
