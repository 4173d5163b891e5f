"""Mail of the host itself, such as alerts and reports of upgrades: to the relay over verified TLS, nothing listens.

Only root can send: the relay's password is readable by nobody else. Mastodon sends its own mail by itself.
"""

from __future__ import annotations

from mastodon_gov.instance import Node
from roles.lib import deploy
from roles.lib.files import Entry
from roles.lib.render import facts_program, managed
from roles.lib.settle import settle
from roles.lib.units import Unit

# msmtp-mta conflicts with every mail server of Debian, so that installing it removes one that listens.
PACKAGES = ["msmtp-mta"]
UNITS: list[Unit] = []


def files(node: Node) -> list[Entry]:
    """Relay, whom root's mail goes to, and who sends reports."""
    return [
        facts_program("mail"),
        managed("mail/etc/msmtprc", "/etc/msmtprc", node, mode=0o600),
        managed("mail/etc/aliases", "/etc/aliases", node),
        managed("mail/etc/apt/apt.conf.d/60-mfg-mail", "/etc/apt/apt.conf.d/60-mfg-mail", node),
        managed("mail/etc/systemd/system/mfg-failed@.service", "/etc/systemd/system/mfg-failed@.service", node),
    ]


@deploy("Mail")
def mail(node: Node) -> None:
    """No unit: a program that is started for each message."""
    settle(packages_=PACKAGES, files=files(node), units_=UNITS)
