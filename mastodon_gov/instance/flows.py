"""Who may talk to whom: the one table behind nftables and behind every unit's `IPAddressAllow=` (DESIGN §3.11)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from urllib.parse import urlsplit

from mastodon_gov.instance.model import Instance
from mastodon_gov.instance.types import Address, Network

# Networks that are nobody's public address (IANA special-purpose registries). An application that fetches links
# for strangers must not reach them, or every internal service is one post away.
PRIVATE = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.168.0.0/16 "
        "198.18.0.0/15 224.0.0.0/3 ::/96 ::ffff:0:0/96 64:ff9b::/96 2001::/32 2002::/16 fc00::/7 fe80::/10 ff00::/8"
    ).split()
)


@dataclass(frozen=True)
class Flow:
    """Connections that accounts of a host may open. No `users` is every account; no `to` is every public address."""

    why: str
    users: tuple[str, ...]
    to: tuple[Network, ...]
    ports: tuple[int, ...]
    protocols: tuple[str, ...] = ("tcp",)


def _networks(addresses: Iterable[Address]) -> tuple[Network, ...]:
    return tuple(ip_network(address) for address in addresses)


def _service(instance: Instance, url: str) -> tuple[tuple[Network, ...], int]:
    """Networks and port of a URL; no networks for a name that addresses.yaml does not list: it is public."""
    parts = urlsplit(url)
    known = instance.addresses.get(parts.hostname or "", ())
    return _networks(known), parts.port or (443 if parts.scheme == "https" else 80)


def _time_servers(instance: Instance) -> list[tuple[Network, ...]]:
    """Private time servers by address; one empty entry when any is public."""
    known = [_networks(instance.addresses.get(name, ())) for name in instance.network.time_servers]
    private = [networks for networks in known if networks]
    return private if len(private) == len(known) else [*private, ()]


def outgoing(instance: Instance) -> tuple[Flow, ...]:
    """Every connection a host of this instance may open; all others are refused and counted."""
    storage, storage_port = _service(instance, instance.object_storage.endpoint)
    relay, relay_port = _service(instance, f"https://{instance.mail.relay}:{instance.mail.port}")
    flows = [
        Flow("names", (), _networks(instance.network.resolvers), (53,), ("tcp", "udp")),
        Flow("mail to the relay", ("root", "mastodon", "mastodon-owner"), relay, (relay_port,)),
        Flow("pictures", ("mastodon", "mastodon-owner", "www-data"), storage, (storage_port,)),
        Flow("backups", ("postgres", "root", "mfg-drill"), storage, (storage_port,)),
        *(Flow("time", ("_chrony",), to, (123, 4460), ("udp", "tcp")) for to in _time_servers(instance)),
    ]
    if instance.backups.second and instance.backups.second.endpoint:
        second, second_port = _service(instance, instance.backups.second.endpoint)
        flows.append(Flow("backups to the second service", ("postgres", "root"), second, (second_port,)))
    if instance.network.http_proxy:
        proxy, port = _service(instance, instance.network.http_proxy)
        flows.append(Flow("the web, through the proxy", ("root", "_apt", "mastodon"), proxy, (port,)))
    else:
        flows.append(Flow("Debian's packages", ("root", "_apt"), (), (80, 443)))
        flows.append(Flow("federation, previews, web push", ("mastodon",), (), (80, 443)))
    if instance.certificates.acme:
        directory, port = _service(instance, instance.certificates.acme.directory)
        flows.append(Flow("certificates", ("root",), directory, (port,)))
    # Packages of a lab, or of a ministry with a mirror of its own, come from a private address.
    if mirror := instance.addresses.get("packages"):
        flows.append(Flow("the mirror of Debian's packages", ("root", "_apt"), _networks(mirror), (80, 443)))
    return tuple(flows)


def reachable(instance: Instance, user: str) -> tuple[Network, ...]:
    """Private networks that this account may reach, for a unit's `IPAddressAllow=`."""
    flows = [flow for flow in outgoing(instance) if not flow.users or user in flow.users]
    return tuple(sorted({net for flow in flows for net in flow.to}, key=lambda net: (net.version, net)))


def reaches_public(instance: Instance, user: str) -> bool:
    """Whether this account may open connections to public addresses at all."""
    return any(user in flow.users and not flow.to for flow in outgoing(instance))


def split(networks: Iterable[Network]) -> tuple[list[IPv4Network], list[IPv6Network]]:
    """The same networks, by protocol version, as nftables wants them."""
    listed = list(networks)
    return [n for n in listed if isinstance(n, IPv4Network)], [n for n in listed if isinstance(n, IPv6Network)]
