"""OpenSSH: keys only, named groups only, no root; a change that would lock us out is taken back."""

from __future__ import annotations

from mastodon_gov.instance import Node
from roles.lib import deploy
from roles.lib.accounts import KEYS
from roles.lib.confirmed import confirmed_file
from roles.lib.files import Absent, Directory, Entry, ManagedFile, managed_files
from roles.lib.packages import packages
from roles.lib.render import facts_program, managed
from roles.lib.units import Unit, units

PACKAGES = ["openssh-server"]
UNITS = [Unit("ssh.service")]
CONFIG = "/etc/ssh/sshd_config.d/10-mfg.conf"


def keys(node: Node) -> list[Entry]:
    """One file of keys for each person who may sign in, owned by root."""
    access = node.instance.access
    files = [ManagedFile(f"{KEYS}/{person.name}", "\n".join(person.keys) + "\n") for person in access.administrators]
    auditors = "".join(f"{key}\n" for person in access.auditors for key in person.keys)
    return [*files, ManagedFile(f"{KEYS}/auditor", auditors) if auditors else Absent(f"{KEYS}/auditor")]


def deploy_keys(node: Node) -> ManagedFile:
    """Our own way in; a list without the key we came with would be our last deploy."""
    return ManagedFile(f"{KEYS}/deploy", "\n".join(node.instance.access.deploy_keys) + "\n")


def files(node: Node) -> list[Entry]:
    """What must be in place before sshd may be told to look only there."""
    return [
        Directory(KEYS),
        *keys(node),
        managed("ssh/etc/issue.net", "/etc/issue.net", node),
        facts_program("ssh"),
    ]


def config(node: Node) -> ManagedFile:
    """sshd's settings, checked by sshd itself before they are put in place."""
    return managed("ssh/etc/ssh/sshd_config.d/10-mfg.conf", CONFIG, node, mode=0o600, validate="/usr/sbin/sshd -t -f")


@deploy("SSH")
def ssh(node: Node) -> None:
    """Keys before the setting that makes sshd read them."""
    packages(name="Install packages", names=PACKAGES)
    managed_files(name="Write keys", entries=files(node))
    confirmed_file(
        name="Write our own keys, and put the old ones back unless we can still sign in",
        file=deploy_keys(node),
        apply="true",
        live=f"cat {KEYS}/deploy",
        unit="mfg-deploy-keys",
    )
    confirmed_file(
        name="Close SSH, and open it again unless we can still sign in",
        file=config(node),
        apply="systemctl reload ssh.service",
        live="sshd -T | sort",
        unit="mfg-ssh",
    )
    units(name="Run units", wanted=UNITS)
