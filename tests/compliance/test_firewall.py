"""nftables as the kernel has it, compared with instance.yaml and its table of flows."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from mastodon_gov.audit.facts import Facts, Foreseen
from mastodon_gov.instance import Instance
from mastodon_gov.instance.flows import Flow, outgoing, split
from tests.compliance.conftest import Evidence
from tests.compliance.expect import none, same

NFT = "nft -j list ruleset"
Rule = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]
# A connection as an account; 0 is an open one, 1 a refused one.
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"


def normal(networks: list[str]) -> tuple[str, ...]:
    """Networks in one spelling."""
    return tuple(sorted(str(ip_network(network)) for network in networks))


def flow_rules(flow: Flow) -> set[Rule]:
    """What must be loaded for one flow: accounts, addresses, ports, protocols; one rule for each IP version."""
    users, ports = tuple(sorted(flow.users)), tuple(sorted(map(str, flow.ports)))
    protocols = tuple(sorted(flow.protocols))
    if not flow.to:
        return {(users, (f"not @private{version}",), ports, protocols) for version in (4, 6)}
    return {(users, normal([str(n) for n in nets]), ports, protocols) for nets in split(flow.to) if nets}


def loaded_rules(facts: Facts) -> set[Rule]:
    """The same of what is loaded; what no flow can be (established, loopback, ICMP, our own session) is left out."""
    found: set[Rule] = set()
    for rule in facts["accepted"]["output"]:
        if set(rule) & {"state", "oif", "icmpv6.type", "tcp.sport"}:
            continue
        there = [(key, value) for key, value in rule.items() if key.startswith(("ip.daddr", "ip6.daddr"))]
        if not there:
            addresses: tuple[str, ...] = ("anywhere",)
        elif "!=" in there[0][0]:
            addresses = tuple(f"not {each}" for each in there[0][1])
        else:
            addresses = normal(there[0][1])
        if not any(key.endswith(".dport") for key in rule):
            found.add((tuple(rule.get("skuid", [])), addresses, ("every port",), ()))
        for protocol in ("tcp", "udp", "th"):
            if ports := rule.get(f"{protocol}.dport"):
                protocols = tuple(rule.get("l4proto", [protocol]))
                found.add((tuple(rule.get("skuid", [])), addresses, tuple(sorted(ports)), protocols))
    return found


@pytest.mark.control("MFG-FW-01")
@pytest.mark.parametrize("hook", ["input", "forward", "output"])
def test_nothing_passes_by_itself(hook: str, facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["policies"].get(hook), "drop", NFT)


@pytest.mark.control("MFG-FW-01")
def test_the_rules_are_those_confirmed(facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["ruleset"]["digest"], facts["ruleset"]["confirmed"], "nft -s list ruleset | sha256sum")


@pytest.mark.control("MFG-FW-01")
def test_the_rules_come_back_after_a_restart(facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["service"], "enabled", "systemctl is-enabled nftables")


@pytest.mark.control("MFG-FW-01")
def test_only_the_web_comes_in(facts: Facts, evidence: Evidence) -> None:
    """Beside SSH (its own control): replies, loopback and ICMP."""
    quiet = {"state", "iif", "icmp.type", "icmpv6.type", "ip.saddr", "ip6.saddr"}
    observed = [rule for rule in facts["accepted"]["input"] if not set(rule) & quiet]
    same(evidence, observed, [{"tcp.dport": ["443", "80"]}], NFT)


@pytest.mark.control("MFG-SSH-11")
@pytest.mark.parametrize("version", [4, 6])
def test_ssh_answers_only_admin_networks(version: int, facts: Facts, evidence: Evidence, instance: Instance) -> None:
    key = "ip.saddr" if version == 4 else "ip6.saddr"
    rules = [rule for rule in facts["accepted"]["input"] if key in rule]
    observed = {"rules": rules, "addresses": list(normal(facts["sets"][f"admin{version}"]))}
    networks = split(instance.access.networks)[0 if version == 4 else 1]
    expected = {
        "rules": [{key: [f"@admin{version}"], "tcp.dport": ["22"]}],
        "addresses": list(normal([str(network) for network in networks])),
    }
    same(evidence, observed, expected, NFT)


@pytest.mark.control("MFG-FW-03")
def test_the_application_reaches_what_is_declared(facts: Facts, evidence: Evidence, instance: Instance) -> None:
    expected = {rule for flow in outgoing(instance) for rule in flow_rules(flow) if "mastodon" in rule[0]}
    observed = {rule for rule in loaded_rules(facts) if "mastodon" in rule[0]}
    same(evidence, sorted(observed), sorted(expected), NFT)


@pytest.mark.control("MFG-FW-04")
def test_other_accounts_reach_what_is_declared(facts: Facts, evidence: Evidence, instance: Instance) -> None:
    expected = {rule for flow in outgoing(instance) for rule in flow_rules(flow) if "mastodon" not in rule[0]}
    observed = {rule for rule in loaded_rules(facts) if "mastodon" not in rule[0]}
    same(evidence, sorted(observed), sorted(expected), NFT)


@pytest.mark.control("MFG-FW-04")
@pytest.mark.parametrize("user", ["redis", "nobody"])
def test_these_accounts_reach_nothing(user: str, facts: Facts, evidence: Evidence) -> None:
    none(evidence, [rule for rule in loaded_rules(facts) if user in rule[0]], NFT)


def refused(host: Any, user: str, address: str, port: int) -> bool:
    """Whether a connection as this account is reset. Raises Foreseen where the auditor may not try."""
    if host.run("sudo -n true").rc:
        raise Foreseen("The auditor's account may not act for others; ask as the deploy account.")
    words = f"sudo -n runuser -u {user} -- python3 -c '{CONNECT}' {address} {port}"
    return "refused" in host.run(words).stderr.lower()


@pytest.mark.probe
@pytest.mark.control("MFG-FW-03")
@pytest.mark.parametrize(("address", "port"), [("169.254.169.254", 80), ("10.255.255.1", 443), ("1.1.1.1", 22)])
def test_the_application_is_refused(address: str, port: int, host: Any, evidence: Evidence) -> None:
    same(evidence, refused(host, "mastodon", address, port), True, f"connect to {address}:{port} as mastodon")


# At a public address: a port that the table of flows may open (a public S3 service), and one that it never does.
@pytest.mark.probe
@pytest.mark.control("MFG-FW-04")
@pytest.mark.parametrize("port", [443, 22])
@pytest.mark.parametrize("user", ["postgres", "redis", "www-data", "nobody"])
def test_others_are_refused(user: str, port: int, host: Any, evidence: Evidence, instance: Instance) -> None:
    flows = [flow for flow in outgoing(instance) if not flow.to and port in flow.ports]
    if why := [flow.why for flow in flows if not flow.users or user in flow.users]:
        raise Foreseen(f"{user} may go to port {port} of public addresses: {', '.join(why)}.")
    same(evidence, refused(host, user, "1.1.1.1", port), True, f"connect to 1.1.1.1:{port} as {user}")


@pytest.mark.control("MFG-FW-06")
def test_no_change_waits_for_confirmation(facts: Facts, evidence: Evidence) -> None:
    none(evidence, facts["pending"], "systemctl list-units mfg-*-rollback.timer")
