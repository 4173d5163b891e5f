"""What a host needs from others: what the probe is asked, and what its answers mean for a deploy."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from mastodon_gov.findings import FAIL, OK, Check, Finding, Judgement, Subject, judged
from mastodon_gov.instance import Instance, Node
from mastodon_gov.instance.flows import PRIVATE


def server_names(instance: Instance) -> list[str]:
    """Names of the services an instance stands on."""
    urls = [instance.object_storage.endpoint]
    urls += [instance.certificates.acme.directory] if instance.certificates.acme else []
    return sorted({instance.mail.relay, *(urlsplit(url).hostname or "" for url in urls)})


def questions(node: Node) -> dict[str, Any]:
    """Names to resolve and servers to ask; no secrets. The mail relay is tried by a program of its own."""
    instance, proxy = node.instance, node.instance.network.http_proxy or ""
    names = {*server_names(instance), *instance.public_names, instance.domain.handle}
    servers = {"object storage": {"url": instance.object_storage.endpoint, "proxy": ""}}
    if acme := instance.certificates.acme:
        inside = (urlsplit(acme.directory).hostname or "") in instance.addresses
        servers["certificates"] = {"url": acme.directory, "proxy": "" if inside else proxy}
    return {"names": sorted(names), "servers": servers, "packages": proxy, "trusted_ca": list(instance.trusted_ca)}


def outside_findings(subject: Subject, seen: dict[str, Any]) -> list[Finding]:
    """One finding for each thing that the host needs from others."""
    checks: list[Check] = [
        ("names of services", "names", _service_names),
        ("object storage", "servers", lambda s, seen: _server(seen, "object storage", "object_storage.endpoint")),
        ("packages", "packages", _packages),
    ]
    if "proxy" in subject.node.groups:
        checks.append(("public names", "names", _public_names))
        if subject.node.instance.certificates.acme:
            name = "certificates.acme.directory"
            checks.append(("certificates", "servers", lambda s, seen: _server(seen, "certificates", name)))
    return [judged(subject, seen, *check) for check in checks]


def _public_names(subject: Subject, seen: dict[str, Any]) -> Judgement:
    node, domain = subject.node, subject.node.instance.domain
    known = {str(address) for address in node.instance.addresses.get(node.name, ())}
    wrong = []
    for name in node.instance.public_names:
        told = seen["names"][name]
        if foreign := set(told["addresses"]) - set(told["here"]) - known:
            wrong.append(f"{name} leads to {', '.join(sorted(foreign))}")
        elif not told["addresses"]:
            wrong.append(f"{name} has no address ({told['said']})")
    # The handle domain is often the ministry's own website, elsewhere, which forwards /.well-known/webfinger.
    if not seen["names"][domain.handle]["addresses"]:
        wrong.append(f"{domain.handle} has no address ({seen['names'][domain.handle]['said']})")
    expected = f"{' and '.join(node.instance.public_names)} lead to this host, {domain.handle} to any"
    remedy = "Correct the A and AAAA records of the name, or the host's resolver." if wrong else ""
    return FAIL if wrong else OK, ", ".join(wrong) or "all lead here", expected, remedy


def _service_names(subject: Subject, seen: dict[str, Any]) -> Judgement:
    instance, wrong = subject.node.instance, []
    for name in server_names(instance):
        told = seen["names"][name]
        known = {str(address) for address in instance.addresses.get(name, ())}
        found = set(told["addresses"])
        if not found:
            wrong.append(f"{name} has no address ({told['said']})")
        elif known and not found <= known:
            wrong.append(f"{name} has {', '.join(sorted(found - known))}, which addresses.yaml does not list")
        elif not known and (inner := sorted(each for each in found if _is_private(each))):
            wrong.append(f"{name} has the private address {inner[0]}, and addresses.yaml does not list the name")
    expected = "an address for each, listed in addresses.yaml if it is private (the firewall opens no other)"
    remedy = "Correct the name's records, the host's resolver, or addresses.yaml." if wrong else ""
    return FAIL if wrong else OK, ", ".join(wrong) or ", ".join(server_names(instance)), expected, remedy


def _is_private(address: str) -> bool:
    found = ip_address(address)
    return any(found.version == net.version and found in net for net in PRIVATE)


def _server(seen: dict[str, Any], name: str, key: str) -> Judgement:
    told = seen["servers"][name]
    good = "status" in told and told["status"] < 500
    observed = f"an answer with status {told['status']}" if "status" in told else told.get("said", told.get("error"))
    remedy = f"Check {key} in instance.yaml, the firewall between, and the authority in network.trusted_ca_files."
    return OK if good else FAIL, str(observed), f"an answer over verified TLS ({key})", "" if good else remedy


def _packages(subject: Subject, seen: dict[str, Any]) -> Judgement:
    wrong = [
        f"{url}: {told.get('said', told.get('status'))}"
        for url, told in seen["packages"].items()
        if told.get("status") != 200
    ]
    if not seen["packages"]:
        wrong = ["no source of packages"]
    remedy = "Correct apt's sources on the host, or network.http_proxy in instance.yaml." if wrong else ""
    observed = "; ".join(wrong) or f"{len(seen['packages'])} sources answer"
    return FAIL if wrong else OK, observed, "Debian's packages from every source that apt knows", remedy
