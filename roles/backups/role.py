"""Backups from the first day: pgBackRest to the locked bucket, WAL as it is written, a full backup each night."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from pyinfra import host
from pyinfra.api import FactBase, OperationError, QuoteString, StringCommand, operation

from mastodon_gov.instance import Instance, Node
from mastodon_gov.instance.storage import SecondRepository
from roles.backups.files.backup_problems import vanished
from roles.backups.timers import UNITS, unit_files, wanted
from roles.lib import Commands, deploy
from roles.lib.files import Directory, Entry, ManagedFile
from roles.lib.render import facts_program, managed, program
from roles.lib.settle import settle

__all__ = ["PACKAGES", "UNITS", "backups", "files"]

PACKAGES = ["pgbackrest"]
CONF = "/etc/pgbackrest.conf"
PROGRAMS = "/usr/local/lib/mastodon-gov"
SERVICE, TWIN = "mfg-backup.service", "mfg-backup-second.service"
# Name on the host; programs without a suffix are commands, the others are imported by them.
INSTALLED = {
    "backup_host.py": "backup_host.py",
    "backup_bucket.py": "backup_bucket.py",
    "backup_repository.py": "backup_repository.py",
    "backup_problems.py": "backup_problems.py",
    "backup_manifest.py": "backup-manifest",
    "backup_status.py": "backup-status",
    "backup_verify.py": "backup-verify",
    "restore_point.py": "restore-point",
    "heartbeat.sql": "heartbeat.sql",
}
# `code` of backup-status; pgBackRest's own words (its source: src/command/info/info.c).
OK, NO_STANZA, NO_BACKUP, NO_STANZA_DATA = 0, 1, 2, 3


class WalDisk(FactBase[tuple[int, bool]]):
    """Size of the file system of the WAL in MiB, and whether it is one of its own; before there is a cluster, that of
    where it will be made."""

    default = staticmethod(lambda: (0, False))

    def command(self) -> str:
        """Blocks and their size, then the numbers of both devices."""
        return (
            "cd /var/lib/postgresql/17/main 2>/dev/null || cd /var/lib/postgresql 2>/dev/null || cd /var/lib; "
            "wal=pg_wal; [ -e $wal ] || wal=.; stat -L -f -c '%b %S' $wal; stat -L -c %d $wal ."
        )

    def process(self, output: list[str]) -> tuple[int, bool]:
        """Three lines."""
        blocks, size = map(int, output[0].split())
        return blocks * size >> 20, output[1] != output[2]


def queue(disk: tuple[int, bool]) -> int:
    """MiB of WAL that may wait: half of a disk of its own, a quarter of one that the database shares. Leading bits
    only: a file system whose size varies a little must not be a change."""
    mib, own = disk
    part = max(mib // (2 if own else 4), 1024)
    step = 1 << part.bit_length() - 2
    return part // step * step


class BackupState(FactBase[dict[str, Any]]):
    """What `backup-status` says, empty on a host that does not have it yet. A store that is away shows in the answer,
    not in the exit code."""

    default = dict

    def command(self) -> str:
        """Nothing where the program is not there yet."""
        return f"[ ! -x {PROGRAMS}/backup-status ] || {PROGRAMS}/backup-status; true"

    def process(self, output: list[str]) -> dict[str, Any]:
        """One JSON document."""
        found: dict[str, Any] = json.loads("".join(output) or "{}")
        return found


def files(node: Node, waiting: int) -> list[Entry]:
    """Configuration, programs, units with their sandbox, and the timers that start them. `waiting`: MiB of WAL."""
    storage, backups = urlsplit(node.instance.object_storage.endpoint), node.instance.backups
    owned = [f"/var/{kind}/pgbackrest" for kind in ("log", "spool")]
    second = backups.second or SecondRepository.model_construct()
    owned += [second.directory] if second.directory else []
    conf = managed(
        "backups/etc/pgbackrest.conf",
        CONF,
        node,
        group="postgres",
        mode=0o640,
        endpoint=storage.hostname,
        port=storage.port or 443,
        second=urlsplit(second.endpoint or ""),
        waiting=waiting,
    )
    told = json.dumps({"full_every": backups.full_days, "lock_days": node.instance.object_storage.backup_lock_days})
    return [
        *(Directory(path, user="postgres", group="postgres", mode=0o750) for path in owned),
        # Others pass through it to what monitoring reads; what is secret in it is closed itself.
        Directory("/var/lib/mastodon-gov", mode=0o711),
        conf,
        facts_program("backups"),
        ManagedFile(f"{PROGRAMS}/backups.json", told),
        *(program("backups", name, f"{PROGRAMS}/{there}") for name, there in INSTALLED.items()),
        *unit_files(node),
    ]


def refusal(found: dict[str, Any], instance: Instance) -> str | None:
    """Why nothing can be done with this repository, as a sentence; None where something can."""
    repository, wal = found["repository"], found["archiver"]
    storage = instance.object_storage
    where = f"bucket {storage.backup_bucket} at {storage.endpoint}"
    if repository["code"] not in (OK, NO_STANZA, NO_BACKUP, NO_STANZA_DATA):
        if "FormatError" in repository["message"] or "CryptoError" in repository["message"]:
            return (
                f"The backups in {where} cannot be read with backups.cipher_pass of the secrets: they were made with "
                "another passphrase. Put that one back with `mastodon-gov secrets edit`, or choose another "
                "backups.stanza in instance.yaml to begin anew. Nothing was changed."
            )
        return (
            f"The host cannot use the backup repository, {where}: {repository['message']}. Check object_storage, "
            "the key object_storage.backups in the secrets, and the way from the host to the service."
        )
    if repository["code"] != OK and vanished(found):
        return (
            f"The backups have gone from {where}: this host made {found['manifest']['label']}, and now there is none. "
            "Nothing was changed. The bucket's lock keeps every version: see docs/operator/restore.md, \"after a "
            'ransom". To begin anew instead, remove /var/lib/mastodon-gov/manifests on the host and deploy again.'
        )
    if "error" in wal:
        return f"PostgreSQL does not answer on the host: {wal['error']}. See `journalctl -u postgresql@17-main`."
    if repository["system_ids"] and wal["system_id"] not in repository["system_ids"]:
        return (
            f"The stanza {instance.backups.stanza} in {where} holds the backups of another database (system id "
            f"{repository['system_ids'][-1]}, this one is {wal['system_id']}). Restore that database, or choose "
            "another backups.stanza in instance.yaml. The old backups were not touched."
        )
    return None


def steps(found: dict[str, Any], stanza: str, second: bool = False) -> list[str]:
    """Commands that are missing until the first backup stands, in the second repository too; none once it does."""
    code = found["repository"]["code"] if found else NO_STANZA
    # Not told of: its configuration is of this deploy. Away (another code): what is there already is left alone.
    other = (found.get("second") or {"code": NO_STANZA})["code"] if second else OK
    old = found.get("stale_archiver") if found else None
    # PostgreSQL starts a new one, which reads the configuration as it is now.
    anew = [f"kill {' '.join(map(str, old))} 2>/dev/null; true"] if old else []
    tool = f"cd / && timeout 180 runuser -u postgres -- pgbackrest --stanza={stanza} --log-level-console=info"
    # PostgreSQL's archiver has been trying since its start and holds the stanza's lock each time (exit code 50).
    again = "rc=$?; n=$((n+1)); [ $rc = 50 ] && [ $n -lt 60 ] || exit $rc; sleep 1"
    create = f"n=0; until {tool} stanza-create; do {again}; done"
    bare = {code, other} & {NO_STANZA, NO_STANZA_DATA}
    made = [*([create] if bare else []), *([f"{tool} check"] if bare or code != OK else [])]
    # Through the units that run each night, so that their sandbox is proved on the first day.
    wanted = [SERVICE] if code != OK else []
    wanted += [TWIN] if other in (NO_STANZA, NO_BACKUP, NO_STANZA_DATA) else []
    return [*anew, *made, *map(started, wanted)]


def started(unit: str, *others: str) -> str:
    """Run a unit to its end; where it fails its log, with that of the others it starts."""
    logs = " ".join(f"-u {each}" for each in (unit, *others))
    return f"systemctl start {unit} || {{ journalctl {logs} -n 30 --no-pager -o cat >&2; exit 1; }}"


@operation()
def repository(instance: Instance) -> Commands:
    """Make the stanza, prove that WAL arrives, take the first full backup: whatever of it is missing."""
    seen = host.get_fact(BackupState)
    if seen and (sentence := refusal(seen, instance)):
        raise OperationError(f"{host.name}: {sentence}")
    for step in steps(seen, instance.backups.stanza, instance.backups.second is not None):
        yield StringCommand("sh -c", QuoteString(step))


@deploy("Backups")
def backups(node: Node) -> None:
    """After PostgreSQL, which archives from its first second; what it could not send yet has waited."""
    settle(
        packages_=PACKAGES,
        files=files(node, _waiting(node)),
        units_=wanted(node),
    )
    repository(name="Make the repository and the first backup", instance=node.instance)


@deploy("Backups, not started")
def backup_files(node: Node) -> None:
    """What a restore reads the repository with; nothing is written there."""
    settle(packages_=PACKAGES, files=files(node, _waiting(node)))


def _waiting(node: Node) -> int:
    given = node.instance.backups.queue_gib
    return given << 10 if given else queue(host.get_fact(WalDisk))
