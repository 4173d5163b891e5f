"""Passwords, which no account here has: if one gets a password, it is a good one, and guessing at it closes it."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import FactBase, StringCommand, operation

from mastodon_gov.instance import Node
from roles.lib import Commands
from roles.lib.confirmed import guarded
from roles.lib.files import Directory, Entry, managed_files
from roles.lib.render import managed

KEPT = "/var/lib/mastodon-gov/pam.before.tar"
# Debian's package brings the first.
PROFILES = ("pwquality", "mfg-faillock", "mfg-faillock-first")
LINES = 4  # two of authentication, one of the account, and the quality of passwords


def files(node: Node) -> list[Entry]:
    """What pam-auth-update puts together, and how good a password must be."""
    quality = "/etc/security/pwquality.conf.d/60-mfg.conf"
    return [
        Directory("/etc/security/pwquality.conf.d"),
        managed(f"base{quality}", quality, node),
        *(
            managed(f"base/usr/share/pam-configs/{each}", f"/usr/share/pam-configs/{each}", node)
            for each in PROFILES[1:]
        ),
    ]


class PamLines(FactBase[int]):
    """How many lines of the common PAM files are exactly ours."""

    default = int

    def command(self) -> str:
        """Counted in the files that every program of the host includes."""
        ours = "pam_faillock.so ((preauth silent audit|authfail) deny=3 unlock_time=900|)$|pam_pwquality.so"
        return f"cd /etc/pam.d && cat common-auth common-account common-password | grep -cE '{ours}'; true"

    def process(self, output: list[str]) -> int:
        """One number."""
        return int(output[0])


@operation()
def profiles() -> Commands:
    """Have PAM ask for wrong passwords; with a way back, because every sign-in goes through these files."""
    if host.get_fact(PamLines) == LINES:
        return
    keep = f"umask 077; tar -cf {KEPT} -C / etc/pam.d var/lib/pam"
    # It keeps options that somebody changed in a profile which stays; one that comes new has its own.
    update, names = "DEBIAN_FRONTEND=noninteractive pam-auth-update --force", " ".join(PROFILES)
    change = f"{update} --disable {names} && {update} --enable {names}"
    yield from guarded(
        "mfg-pam", [StringCommand(change)], keep=keep, restore=f"tar -xf {KEPT} -C /", apply="true", done="true"
    )


def passwords(node: Node) -> None:
    """Files before the profiles made of them."""
    managed_files(name="Write the rules for passwords", entries=files(node))
    profiles(name="Close accounts after wrong passwords, and take it back unless we can still sign in")
