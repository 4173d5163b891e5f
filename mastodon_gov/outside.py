"""What a host must be able to reach, as the probe is asked for it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from mastodon_gov.instance import Instance, Node


def server_names(instance: Instance) -> list[str]:
    """Names of the services an instance stands on; an address written out needs no name."""
    urls = [instance.object_storage.endpoint, f"smtp://{instance.mail.relay}"]
    urls += [instance.certificates.acme.directory] if instance.certificates.acme else []
    hosts = {urlsplit(url).hostname or "" for url in urls}
    return sorted(name for name in hosts if not _is_address(name))


def _is_address(name: str) -> bool:
    return ":" in name or name.replace(".", "").isdigit()


def questions(node: Node) -> dict[str, Any]:
    """Names to resolve and servers to ask; no secrets. The mail relay is tried by a program of its own."""
    instance = node.instance
    names = {*server_names(instance), *instance.public_names, instance.domain.handle}
    servers = {"object storage": {"url": instance.object_storage.endpoint, "proxy": ""}}
    if acme := instance.certificates.acme:
        inside = (urlsplit(acme.directory).hostname or "") in instance.addresses
        servers["certificates"] = {"url": acme.directory, "proxy": "" if inside else instance.network.http_proxy or ""}
    return {"names": sorted(names), "servers": servers, "trusted_ca": list(instance.trusted_ca)}
