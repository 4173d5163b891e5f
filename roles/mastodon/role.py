"""Mastodon: a verified release, its environment, its database behind the lock, and its processes in two slots.

The order is the promise: nothing of it answers the public before the lock is in the database (DESIGN §3.3).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from mastodon_gov.instance import Node
from mastodon_gov.instance.flows import PRIVATE, reachable
from roles.lib import deploy
from roles.lib.files import Directory, Entry, ManagedFile
from roles.lib.packages import packages
from roles.lib.render import facts_program, managed, program
from roles.lib.settle import settle
from roles.lib.units import Unit, units
from roles.mastodon.database import (
    close_journal,
    database_lock,
    migrate,
    owner_account,
    prepare_database,
    restore_point,
)
from roles.mastodon.keys import legacy_keys
from roles.mastodon.processes import LIB, install_release, run_release
from roles.mastodon.server import server_settings
from roles.mastodon.sweep import UNITS as SWEEP_UNITS
from roles.mastodon.sweep import files as sweep_files
from roles.mastodon.sweep import sweep_now

UNITS = [Unit("mastodon.service"), *SWEEP_UNITS]
PROGRAMS = (
    "mastodon-run",
    "slots.py",
    "slots_gate.py",
    "slots_seen.py",
    "journal.py",
    "migrate.py",
    "migrate.rake",
    "legacy_keys.py",
    "maintain.py",
    "notice.rb",
    "owner_account.py",
    "server_settings.py",
    "server_settings.rb",
    "leaving.py",
    "leaving_database.py",
    "leaving_evidence.sql",
    "leaving_cut.sql",
    "status.py",
    "release_install.py",
    "release_bundle.py",
    "release_signature.py",
    "release_tree.py",
    "release_unpack.py",
)
UPGRADED = "/etc/systemd/system/apt-daily-upgrade.service.d/60-mfg.conf"
PORTS = {"web-a": 3000, "web-b": 3001, "streaming-a": 4000, "streaming-b": 4001}


def files(node: Node) -> list[Entry]:
    """Environment, units and the programs that work on the host on our behalf."""
    unit = partial(managed, private=PRIVATE, allowed=reachable(node.instance, "mastodon"))
    system = "/etc/systemd/system"
    secret = ManagedFile("/etc/mastodon/owner.env", program("mastodon", "owner.env", "").content, "root", "root", 0o600)
    return [
        Directory("/etc/mastodon", group="mastodon", mode=0o750),
        Directory("/opt/mastodon"),
        Directory("/opt/mastodon/releases"),
        Directory("/opt/mastodon/slot"),
        *(program("mastodon", name, f"{LIB}/{name}") for name in PROGRAMS),
        facts_program("mastodon"),
        managed("mastodon/etc/mastodon/mastodon.env", "/etc/mastodon/mastodon.env", node, group="mastodon", mode=0o640),
        secret,
        *(managed("mastodon/etc/mastodon/port.env", f"/etc/mastodon/{k}.env", node, port=v) for k, v in PORTS.items()),
        *(
            unit(f"mastodon{system}/{name}.service", f"{system}/{name}.service", node)
            for name in ("mastodon-web@", "mastodon-sidekiq@", "mastodon-streaming@")
        ),
        managed(f"mastodon{system}/mastodon.service", f"{system}/mastodon.service", node),
        Directory(str(Path(UPGRADED).parent)),
        managed(f"mastodon{UPGRADED}", UPGRADED, node),
        *sweep_files(node),
    ]


@deploy("Mastodon")
def mastodon(node: Node) -> None:
    """Release, files, tables, lock, owner; only then the processes; then what may follow them."""
    release = node.release
    settle(files=files(node))
    install_release(name=f"Install release {release.name}", release=release, allow_standin=node.instance.lab)
    # After the release: the host has verified by now what this list comes from.
    packages(name="Install packages", names=list(release.packages))
    prepare_database(name="Make the tables", node=node)
    restore_point(name="Mark a restore point", node=node, after=False)
    migrate(name="Migrate before the new release serves", node=node, after=False)
    database_lock(name="Lock the database", node=node)
    owner_account(name="Make the owner's account", node=node)
    server_settings(name="Make the server's settings", node=node)
    legacy_keys(name="Put back keys for an older release", node=node, after=False)
    run_release(name=f"Start {release.name} in the other slot", release=release, step="start")
    run_release(name="Hand over web", release=release, step="web")
    run_release(name="Hand over jobs", release=release, step="sidekiq")
    legacy_keys(name="Put back keys that changed meanwhile", node=node, after=True)
    run_release(name="Hand over streaming", release=release, step="streaming")
    restore_point(name="Mark a restore point before the point of no return", node=node, after=True)
    migrate(name="Migrate after the old release has gone", node=node, after=True)
    database_lock(name="Lock the database again", node=node)
    close_journal(name="Close the journal", node=node)
    units(name="Start at boot", wanted=UNITS)
    sweep_now(name="Compare accounts and settings with the files")
