"""The outside world as a pyinfra deploy; `build.py` starts it. S3 is the product's own role."""

from __future__ import annotations

import json
from pathlib import Path

from pyinfra import host

from mastodon_gov.lab.world import services
from mastodon_gov.lab.world.services import CERTIFICATE, ETC, KEY, POSTBOX, World
from roles.lib.accounts import Account, accounts
from roles.lib.files import Absent, Directory, Entry, ManagedFile
from roles.lib.settle import settle
from roles.lib.units import Unit, units
from roles.radosgw.role import Storage, User, radosgw

PACKAGES = ["nginx", "opensmtpd", "pebble", "unbound"]
UNBOUND = "/etc/unbound/unbound.conf.d/60-mfg-world.conf"
PEBBLE_UNIT = "/etc/systemd/system/mfg-pebble.service"
SMTPD_DROP_IN = "/etc/systemd/system/opensmtpd.service.d/60-mfg.conf"
APEX = "/etc/nginx/conf.d/60-mfg-apex.conf"
TLS = (CERTIFICATE, KEY)


def files(world: World) -> list[Entry]:
    """Everything but S3's."""
    publish = (Path(__file__).parent / "publish_roots.py").read_text()
    return [
        Directory(ETC),
        ManagedFile(services.CA, world.authority),
        ManagedFile(CERTIFICATE, world.certificate + world.authority),
        ManagedFile(KEY, world.key, mode=0o600),
        # It validates with keys from the root servers, which a lab cannot count on.
        Absent("/etc/unbound/unbound.conf.d/root-auto-trust-anchor-file.conf"),
        ManagedFile(UNBOUND, services.unbound(world)),
        Directory(POSTBOX, "postbox", "postbox", 0o700),
        ManagedFile(f"{ETC}/credentials", world.credentials, group="opensmtpd", mode=0o640),
        ManagedFile(services.MAIL_MODE, services.MAIL_MODES["accept"]),
        ManagedFile("/etc/smtpd.conf", services.SMTPD),
        Directory(str(Path(SMTPD_DROP_IN).parent)),
        ManagedFile(SMTPD_DROP_IN, services.SMTPD_DROP_IN),
        Directory("/usr/local/lib/mastodon-gov"),
        ManagedFile(services.PUBLISH, publish, mode=0o755),
        ManagedFile(f"{ETC}/pebble.json", services.pebble(world)),
        ManagedFile(PEBBLE_UNIT, services.PEBBLE_UNIT),
        ManagedFile(APEX, services.APEX),
    ]


UNITS = [
    Unit("unbound.service", reads=(UNBOUND,), check="unbound-checkconf -q"),
    Unit("opensmtpd.service", reads=("/etc/smtpd.conf", services.MAIL_MODE, f"{ETC}/credentials", *TLS)),
    Unit("mfg-pebble.service", reads=(f"{ETC}/pebble.json", *TLS)),
]
USERS = (User("owner", owns_buckets=True), User("media"), User("backups"))

told = World(**json.loads(Path(host.data.world).read_text()))
accounts(name="Make accounts", wanted=[Account("postbox", POSTBOX)], groups=[])
settle(PACKAGES, files(told), UNITS)
radosgw(Storage(services.S3, CERTIFICATE, KEY, USERS))
units(name="Serve the apex", wanted=[Unit("nginx.service", reads=(APEX, *TLS), reload=True, check="nginx -t -q")])
