"""What the world's servers are told: pure functions from `World` to the text of their configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

S3, ACME, MAIL, NS = (f"{name}.world.test" for name in ("s3", "acme", "mail", "ns"))
STAFF_DOMAINS = ("agency.test", "council.test")
# A foreign domain with a mail exchanger: without one, Mastodon refuses a stranger for the wrong reason.
FOREIGN_DOMAIN = "outside.test"
ACME_DIRECTORY = f"https://{ACME}:14000/dir"
# Which names point to which machine of the lab. Every name below world.test points to `world`.
NAMES: dict[str, tuple[str, ...]] = {
    "world": STAFF_DOMAINS,
    "social": ("social.agency.test", "files.social.agency.test"),
    "outside": (FOREIGN_DOMAIN,),
}
LEAF_NAMES = (S3, f"*.{S3}", ACME, MAIL, NS, STAFF_DOMAINS[0], "localhost")

ETC = "/etc/mfg-world"
CERTIFICATE, KEY, CA = f"{ETC}/world.pem", f"{ETC}/world.key", f"{ETC}/lab-ca.pem"
MAIL_MODE = f"{ETC}/mail-mode.conf"
POSTBOX = "/var/lib/postbox"
PUBLISH = "/usr/local/lib/mastodon-gov/publish-roots"
ROOTS = "/var/lib/mfg-pebble/roots.pem"
TTL = 5  # seconds: a test that changes a name must not wait

UNBOUND = """\
server:
    interface: 0.0.0.0
    interface: ::0
    access-control: 0.0.0.0/0 allow
    access-control: ::/0 allow
    # No validation: the top-level domain "test" is not signed, and the host's resolver may strip signatures.
    module-config: "iterator"
{zones}
forward-zone:
    name: "."
{forwards}"""

_EXCHANGED = ", ".join(f'"{domain}"' for domain in (*STAFF_DOMAINS, FOREIGN_DOMAIN))
# The whole delivery: whoever signs in may send to anybody, everybody may send to the domains we are the exchanger
# of, and all of it ends in one Maildir.
SMTPD = f"""\
pki {MAIL} cert "{CERTIFICATE}"
pki {MAIL} key "{KEY}"
table credentials file:{ETC}/credentials
table everyone {{ "@" = "postbox" }}
listen on 0.0.0.0 port 25 tls pki {MAIL} hostname {MAIL}
listen on :: port 25 tls pki {MAIL} hostname {MAIL}
listen on 0.0.0.0 port 587 tls-require pki {MAIL} hostname {MAIL} auth <credentials>
listen on :: port 587 tls-require pki {MAIL} hostname {MAIL} auth <credentials>
action "keep" maildir "{POSTBOX}/Maildir" virtual <everyone>
include "{MAIL_MODE}"
match from any auth for any action "keep"
match from any for domain {{ {_EXCHANGED} }} action "keep"
"""
MAIL_MODES = {"accept": "# Mail is accepted.\n", "refuse": "match from any for any reject\n"}

# smtpd forks before it listens; whoever starts or restarts it must be able to send at once.
SMTPD_DROP_IN = """\
[Service]
ExecStartPost=/bin/bash -c 'until : < /dev/tcp/127.0.0.1/587; do sleep 0.05; done 2>/dev/null'
TimeoutStartSec=20
"""

# Every authorization is checked anew and no nonce is refused at random: a test must not pass or fail by chance.
PEBBLE_UNIT = f"""\
[Unit]
Description=ACME test server (pebble)
After=network-online.target unbound.service

[Service]
Environment=PEBBLE_VA_NOSLEEP=1 PEBBLE_WFE_NONCEREJECT=0 PEBBLE_AUTHZREUSE=0
ExecStart=/usr/bin/pebble -config {ETC}/pebble.json -strict -dnsserver 127.0.0.1:53
# Pebble makes a new root at each start; clients that trust the lab's bundle must go on trusting it.
ExecStartPost={PUBLISH} {CA} {ROOTS}
LoadCredential=key.pem:{KEY}
DynamicUser=yes
AmbientCapabilities=CAP_NET_BIND_SERVICE
StateDirectory=mfg-pebble
Restart=on-failure

[Install]
WantedBy=multi-user.target
"""

# The three paths by which other servers find an account of agency.test; the query has to survive.
APEX = f"""\
server {{
    listen 80;
    listen [::]:80;
    listen 443 ssl;
    listen [::]:443 ssl;
    server_name {STAFF_DOMAINS[0]};
    ssl_certificate {CERTIFICATE};
    ssl_certificate_key {KEY};
    location ~ ^/\\.well-known/(webfinger|host-meta|nodeinfo)$ {{
        add_header Access-Control-Allow-Origin * always;
        return 301 https://social.{STAFF_DOMAINS[0]}$request_uri;
    }}
}}
"""


@dataclass(frozen=True)
class World:
    """What the world's machine is made from. `hosts` are v4 and v6 address by machine; PEM texts as they are.

    `credentials` is a line `login hash` for the mail server, `acme_seconds` the life of issued certificates.
    """

    hosts: Mapping[str, Sequence[str]]
    names: Mapping[str, Sequence[str]]
    resolvers: Sequence[str]
    certificate: str
    key: str
    authority: str
    credentials: str
    acme_seconds: int


def unbound(world: World) -> str:
    """Configuration of the DNS server."""
    forwards = "".join(f"    forward-addr: {address}\n" for address in world.resolvers)
    return UNBOUND.format(zones="".join(f"    {line}\n" for line in _zones(world)), forwards=forwards)


def _zones(world: World) -> list[str]:
    """Lines of the zones we answer for: addresses, mail exchangers, and what makes a zone one."""
    lines = ['local-zone: "world.test." redirect', *_addresses("world.test", world.hosts["world"])]
    for zone in (*STAFF_DOMAINS, FOREIGN_DOMAIN):
        start = f"SOA {NS}. hostmaster.{MAIL}. 1 3600 600 86400 {TTL}"
        lines += [f'local-zone: "{zone}." static', *(_data(zone, rest) for rest in (start, f"NS {NS}."))]
        lines += [_data(zone, f"MX 10 {MAIL}.")]
    for machine, names in world.names.items():
        for name in names:
            lines += _addresses(name, world.hosts.get(machine, ()))
    return lines


def _addresses(name: str, addresses: Sequence[str]) -> list[str]:
    return [_data(name, f"{'AAAA' if ':' in address else 'A'} {address}") for address in addresses]


def _data(name: str, rest: str) -> str:
    return f'local-data: "{name}. {TTL} IN {rest}"'


def pebble(world: World) -> str:
    """Configuration of the ACME server."""
    settings = {
        "listenAddress": "[::]:14000",
        "managementListenAddress": "[::]:15000",
        "certificate": CERTIFICATE,
        "privateKey": "/run/credentials/mfg-pebble.service/key.pem",
        "httpPort": 80,
        "tlsPort": 443,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
        "retryAfter": {"authz": 1, "order": 1},
        "certificateValidityPeriod": world.acme_seconds,
    }
    return json.dumps({"pebble": settings}, indent=1) + "\n"
