"""Timers of the backups and the units they start."""

from __future__ import annotations

from typing import Any

from mastodon_gov.instance import Node
from mastodon_gov.instance.flows import reachable, reaches_public
from mastodon_gov.instance.storage import Backups
from roles.lib.files import Absent, Entry, ManagedFile
from roles.lib.render import managed
from roles.lib.units import Unit

SYSTEM = "/etc/systemd/system"
TEMPLATES = "backups/etc/systemd/system"
KINDS = {
    "": ("Full backup of the database to object storage", "--type=full backup"),
    "-diff": ("Differential backup of the database to object storage", "--type=diff backup"),
    "-incr": ("Incremental backup of the database to object storage", "--type=incr backup"),
    "-expire": ("Hide backups that are older than wanted", "expire"),
}
TIMED = ["mfg-backup", "mfg-backup-diff", "mfg-backup-incr", "mfg-backup-expire", "mfg-backup-verify"]
TIMED += ["mfg-backup-status", "mfg-heartbeat"]


def timed(names: list[str]) -> list[Unit]:
    """Timers run; systemd knows the newest text of what they start."""
    services = [Unit(f"{name}.service", run=False) for name in names]
    return services + [Unit(f"{name}.timer", reads=(f"{SYSTEM}/{name}.timer",)) for name in names]


UNITS = [Unit("mfg-backup-manifest.service", run=False), *timed(TIMED)]
TWIN = ["mfg-backup-second", "mfg-backup-second-expire"]
DAYS = "mon tue wed thu fri sat sun".split()


def services(node: Node) -> list[Entry]:
    """Units that pgBackRest or one of our programs runs in."""
    second = node.instance.backups.second
    store: dict[str, Any] = {
        "archive_to": reachable(node.instance, "postgres"),
        "archive_public": reaches_public(node.instance, "postgres"),
    }

    def write(template: str, name: str, what: str, **values: Any) -> ManagedFile:
        return managed(f"{TEMPLATES}/{template}", f"{SYSTEM}/{name}.service", node, what=what, **values, **store)

    def runs(name: str, what: str, command: str, repository: int = 1) -> ManagedFile:
        first = repository == 1
        return write(
            "mfg-backup.service",
            name,
            what,
            command=command,
            repository=repository,
            directory=second.directory if second and not first else None,
            manifest=first and command.endswith("backup"),
        )

    def calls(name: str, what: str, within: str, arguments: str = "") -> ManagedFile:
        # The one that looks every few minutes says in `status` what is wrong; mail every few minutes helps nobody.
        quiet = bool(arguments)
        return write(
            "mfg-backup-program.service",
            f"mfg-{name}",
            what,
            program=f"{name}{arguments}",
            within=within,
            quiet=quiet,
        )

    twin = [
        runs("mfg-backup-second", "Full backup to the second repository", "--type=full backup", 2),
        runs("mfg-backup-second-expire", "Hide old backups in the second repository", "expire", 2),
    ]
    return [
        *(runs(f"mfg-backup{suffix}", *words) for suffix, words in KINDS.items()),
        calls("backup-manifest", "Write what belongs to each backup into the bucket", "10min"),
        calls("backup-verify", "Read every backup once", "6h"),
        calls("backup-status", "Look at the backups", "2min", " --write"),
        *(twin if second else [Absent(f"{SYSTEM}/{name}{kind}") for name in TWIN for kind in (".service", ".timer")]),
    ]


def calendars(backups: Backups) -> list[tuple[str, str, str]]:
    """Name, purpose and times of each timer."""
    hour, minute = map(int, backups.full_at.split(":"))

    def later(hours: int, days: str = "") -> str:
        return f"{days}*-*-* {(hour + hours) % 24:02}:{minute:02}:00"

    weekly = backups.full_on != "daily"
    others = ",".join(day for day in DAYS if day != backups.full_on)
    full = later(0, f"{backups.full_on} " if weekly else "")
    diff = later(0, f"{others} ") if weekly else later(12)
    second = [
        ("mfg-backup-second", "Backup to the second repository", later(1)),
        ("mfg-backup-second-expire", "Hide old backups in the second repository", later(4)),
    ]
    return [
        ("mfg-backup", "Full backup of the database", full),
        ("mfg-backup-diff", "Backup of what changed since the last full one", diff),
        ("mfg-backup-incr", "Backup of what changed since the last one", f"*-*-* 00/{backups.incr_every}:50:00"),
        ("mfg-backup-expire", "Hide old backups", later(2)),
        ("mfg-backup-verify", "Read every backup once", later(3)),
        *(second if backups.second else []),
    ]


def timer(node: Node, name: str, what: str, calendar: str) -> ManagedFile:
    """A timer for the service of the same name."""
    return managed(f"{TEMPLATES}/mfg-backup.timer", f"{SYSTEM}/{name}.timer", node, what=what, calendar=calendar)


def unit_files(node: Node) -> list[Entry]:
    """Services, the timers that start them, and the heartbeat."""
    plain = ("mfg-heartbeat.service", "mfg-heartbeat.timer", "mfg-backup-status.timer")
    return [
        *services(node),
        *(timer(node, name, what, calendar) for name, what, calendar in calendars(node.instance.backups)),
        *(managed(f"{TEMPLATES}/{name}", f"{SYSTEM}/{name}", node) for name in plain),
    ]


def wanted(node: Node) -> list[Unit]:
    """Units of this instance, and those of a second repository that it has no more."""
    gone = [Unit(f"{name}{kind}", gone=True) for name in TWIN for kind in (".timer", ".service")]
    return [*UNITS, *(timed(TWIN) if node.instance.backups.second else gone)]
