"""The sweep's part of the host: what the files say, as the program reads it, and its timer."""

from __future__ import annotations

import json
from typing import Any

from pyinfra import host, state
from pyinfra.api import operation

from mastodon_gov.instance import Instance, Node
from roles.lib import Commands
from roles.lib.files import Entry, ManagedFile
from roles.lib.render import managed, program
from roles.lib.units import Unit
from roles.mastodon.lock import SETTINGS
from roles.mastodon.processes import LIB

SYSTEM = "etc/systemd/system"
CONFIG = "/etc/mastodon-gov/sweep.json"
SERVICE, TIMER, TELLER = "mfg-sweep.service", "mfg-sweep.timer", "mfg-findings.service"
UNITS = [Unit(SERVICE, run=False), Unit(TELLER, run=False), Unit(TIMER, reads=(f"/{SYSTEM}/{TIMER}",))]


def expected(instance: Instance) -> dict[str, Any]:
    """What the sweep compares with."""
    server, sweep = instance.server, instance.sweep
    blocks = (server.domain_blocks if server else None) or ()
    return {
        "owner": instance.owner.username,
        "domains": list(instance.staff_domains),
        "register": instance.register,
        "settings": SETTINGS,
        "organisations": [
            body.model_dump(mode="json", include={"id", "name", "domains"}) for body in instance.organisations
        ],
        "accounts": [
            account.model_dump(mode="json", include={"handle", "organisation", "tools", "role"})
            for account in instance.accounts
        ],
        "applications": list(sweep.applications),
        "second_factor_days": sweep.second_factor_days,
        "unverified_days": sweep.unverified_days,
        "dormant_days": sweep.dormant_days,
        "act": sweep.act.model_dump(),
        "roles_managed": bool(server and server.roles is not None),
        "blocks_managed": bool(server and server.domain_blocks is not None),
        "reviews": {block.domain: block.review.isoformat() for block in blocks},
    }


def files(node: Node) -> list[Entry]:
    """Program, statement, configuration and units."""
    config = json.dumps(expected(node.instance), indent=1, sort_keys=True)
    return [
        program("mastodon", "sweep.py", f"{LIB}/sweep.py"),
        program("mastodon", "sweep_findings.py", f"{LIB}/sweep_findings.py", 0o644),
        program("mastodon", "sweep.sql", f"{LIB}/sweep.sql", 0o644),
        ManagedFile(CONFIG, config, mode=0o640),
        *(managed(f"mastodon/{SYSTEM}/{unit}", f"/{SYSTEM}/{unit}", node) for unit in (SERVICE, TELLER, TIMER)),
    ]


@operation()
def sweep_now() -> Commands:
    """Sweep at the end of a deploy. A sweep that fails tells root by mail and fails no deploy."""
    if state.is_executing:
        host.run_shell_command(f"systemctl start {SERVICE}", _sudo=True)
    host.noop("looking is not a change")
    yield from ()
