"""What every host has: people, time, logs with a limit, security upgrades, kernel settings."""

from __future__ import annotations

from mastodon_gov.instance import Node
from roles.base.passwords import passwords
from roles.base.system import mended
from roles.lib import deploy
from roles.lib.accounts import Account, accounts
from roles.lib.files import Directory, Entry, ManagedFile, managed_files
from roles.lib.live import live
from roles.lib.packages import LEFT, packages
from roles.lib.render import FACTS, facts_program, facts_roles, managed, program
from roles.lib.settle import settle
from roles.lib.units import Unit

PACKAGES = ["ca-certificates", "chrony", "libpam-pwquality", "python3", "sudo", "unattended-upgrades", "zstd"]
# Nobody is in sugroup, and only its members may use su: people act for others through sudo, which keeps a record.
GROUPS = ["mfg-admin", "mfg-deploy", "mfg-audit", "sugroup"]
AUDITOR = Account("auditor", "/home/auditor", ("mfg-audit",), "/bin/bash", system=False)

UNITS = [
    Unit("systemd-sysctl.service", reads=("/etc/sysctl.d/60-mfg.conf",)),
    Unit("mfg-mounts.service"),
    Unit("systemd-journald.service", reads=("/etc/systemd/journald.conf.d/60-mfg.conf",)),
    Unit("chrony.service", reads=("/etc/chrony/chrony.conf",)),
    Unit("apt-daily-upgrade.timer"),
    Unit("mfg-rollback.service"),
]


# nft looks names up when it loads its rules, so these exist before them; Debian's packages take accounts that exist.
SERVICES = [
    Account("mastodon", "/var/lib/mastodon"),
    Account("mastodon-owner", "/var/lib/mastodon-owner", ("mastodon",)),
    Account("postgres", "/var/lib/postgresql"),
    # A drill's copy belongs to it; it reads the backups' configuration by its group.
    Account("mfg-drill", "/var/lib/mfg-drill", ("postgres",)),
]
FACTS_PARTS = ("facts_lib.py", "facts_people.py", "facts_services.py")
# What apt is told, also of the web proxy; where that is the only way out, nothing could be installed before.
APT = "/etc/apt/apt.conf.d/60-mfg"
# Laid out like their templates, readable by everybody.
PLAIN = (
    "/etc/chrony/chrony.conf",
    "/etc/logrotate.d/alternatives",
    "/etc/logrotate.d/dpkg",
    "/etc/modprobe.d/60-mfg.conf",
    "/etc/profile.d/60-mfg.sh",
    "/etc/security/limits.d/90-mfg.conf",
    "/etc/sysctl.d/60-mfg.conf",
    "/etc/systemd/coredump.conf.d/60-mfg.conf",
    "/etc/systemd/journald.conf.d/60-mfg.conf",
    "/etc/systemd/system/apt-daily-upgrade.timer.d/60-mfg.conf",
    "/etc/systemd/system/mfg-mounts.service",
    "/etc/systemd/system/mfg-rollback.service",
)


def people(node: Node) -> list[Account]:
    """The deploy account, the administrators of the instance, and one account for all its auditors."""
    declared = [
        Account(person.name, f"/home/{person.name}", ("mfg-admin",), "/bin/bash", system=False)
        for person in node.instance.access.administrators
    ]
    auditor = [AUDITOR] if node.instance.access.auditors else []
    return [Account("deploy", "/home/deploy", ("mfg-deploy",), "/bin/bash", system=False), *declared, *auditor]


def files(node: Node) -> list[Entry]:
    """Settings that belong to no other role."""
    return [
        Directory("/var/lib/mastodon-gov", mode=0o711),
        Directory("/usr/local/lib/mastodon-gov"),
        Directory(FACTS),
        *(program("base", name, f"/usr/local/lib/mastodon-gov/{name}", mode=0o644) for name in FACTS_PARTS),
        facts_program("base"),
        Directory("/etc/logrotate.d"),
        Directory("/etc/systemd/coredump.conf.d"),
        Directory("/etc/systemd/journald.conf.d"),
        Directory("/etc/systemd/system/apt-daily-upgrade.timer.d"),
        *(managed(f"base{path}", path, node) for path in PLAIN),
        ManagedFile("/etc/cron.allow", "root\n", mode=0o600),
        managed("base/etc/issue", "/etc/issue", node),
        managed(
            "base/etc/sudoers.d/10-mfg",
            "/etc/sudoers.d/10-mfg",
            node,
            mode=0o440,
            validate="/usr/sbin/visudo -cqf",
            facts=[f"{FACTS}/{role}" for role in facts_roles()],
        ),
    ]


@deploy("Base")
def base(node: Node) -> None:
    """Packages first: the files of one may not exist before it. What making accounts spoils is mended after it."""
    managed_files(name="Tell apt its way", entries=[managed(f"base{APT}", APT, node)])
    packages(name="Install packages", names=PACKAGES)
    accounts(name="Settle people", wanted=[*SERVICES, *people(node)], groups=GROUPS, only=("mfg-admin", "mfg-audit"))
    settle(files=files(node), units_=UNITS)
    passwords(node)
    mend(node)


@deploy("Base, once more")
def base_after_all(node: Node) -> None:
    """Packages that other roles installed bring files and logs of their own."""
    mend(node)


def mend(node: Node) -> None:
    """What others have changed, in this run too."""
    live(name="Mend what others have changed", wanted=[LEFT, *mended(node)])
