"""What a stranger's machine gets from the running instance, what the instance's accounts may open to others, and how
certificates and pages hold when something underneath is renewed or down."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from cryptography import x509

from tests.lab.deployed import MEDIA, WEB, Deployed, wait_for
from tests.lab.load import load

PUBLIC = {80, 443}
INTERESTING = {22, 25, 53, 111, 123, 587, 2019, 3000, 3001, 4000, 4001, 5432, 5433, 6379, 6380, 7480, 8080, 9090, 9100}
# Says of each address and port: open, refused or silent.
SCAN = """\
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def look(place):
    try:
        socket.create_connection(place, 3).close()
        return "open"
    except ConnectionRefusedError:
        return "refused"
    except OSError as error:
        return "silent" if isinstance(error, TimeoutError) else repr(error)
places = [tuple(place) for place in json.load(sys.stdin)]
with ThreadPoolExecutor(60) as pool:
    print(json.dumps(list(zip(places, pool.map(look, places)))))
"""
# Opens one connection as a user; a firewall that says no resets it.
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"
S3, ACME, RELAY, DNS, OTHER = 443, 14000, 587, 53, 8099


def _scan(instance: Deployed, machine: str, ports: set[int]) -> dict[tuple[str, int], str]:
    """What answers at `social`, seen from another machine, on both protocols."""
    social = instance.machine()
    places = [[address, port] for address in (social.address4, social.address6) for port in sorted(ports)]
    told = instance.machine(machine).exec(["python3", "-c", SCAN], stdin=json.dumps(places)).stdout
    return {(place[0], place[1]): found for place, found in json.loads(told)}


def _listening(instance: Deployed) -> set[int]:
    """Every TCP port that some process of the host listens on."""
    return {int(line.split()[3].rpartition(":")[2]) for line in instance.root("ss -Htln").splitlines()}


def test_only_web_ports_answer(instance: Deployed) -> None:
    """On IPv4 and IPv6; whatever else listens on the host is among the ports that were asked."""
    ports = _listening(instance) | INTERESTING | PUBLIC
    assert {22, 443, 6379} <= _listening(instance)
    found = _scan(instance, "outside", ports)
    social = instance.machine()
    assert {place for place, what in found.items() if what == "open"} == {
        (address, port) for address in (social.address4, social.address6) for port in PUBLIC
    }
    assert {what for what in found.values()} == {"open", "silent"}, found


def test_the_control_node_reaches_ssh(instance: Deployed) -> None:
    """The same port that is silent for the stranger."""
    assert instance.machine().answers()
    assert {what for (_, port), what in _scan(instance, "outside", {22}).items()} == {"silent"}


def _openssl(instance: Deployed, name: str, *options: str) -> str:
    """What a TLS handshake from outside shows."""
    instance.curl(f"https://{WEB}/health")  # the authority's certificate is on the machine from here on
    words = f"openssl s_client -connect {WEB}:443 -servername {name} -CAfile /root/lab-ca.pem {' '.join(options)}"
    done = instance.machine("outside").exec(f"{words} </dev/null 2>&1", check=False)
    return str(done.stdout)


def _certificate(instance: Deployed, name: str = WEB) -> x509.Certificate:
    text = _openssl(instance, name)
    pem = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", text, re.S)
    assert pem, text
    return x509.load_pem_x509_certificate(pem[0].encode())


@pytest.mark.parametrize("name", [WEB, MEDIA])
def test_the_certificate_is_by_acme_and_for_both_names(instance: Deployed, name: str) -> None:
    """It chains to the lab's authority and names exactly what is public."""
    assert "Verify return code: 0 (ok)" in _openssl(instance, name, "-verify_return_error", f"-verify_hostname {name}")
    certificate = _certificate(instance, name)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {WEB, MEDIA}
    assert "Pebble" in certificate.issuer.rfc4514_string()


def test_renewing_the_certificate_fails_no_request(instance: Deployed) -> None:
    """As the timer's service does it. nginx shows the new one without having been started anew."""
    before, main = _certificate(instance).serial_number, instance.root("systemctl show -P MainPID nginx")
    renew = "certbot renew -q --no-random-sleep-on-renew --force-renewal"
    surroundings = "$(systemctl show -P Environment certbot.service | tr ' ' '\\n' | sed 's/^/-E /')"
    assert "certbot" in instance.root("systemctl cat certbot.timer certbot.service | grep ExecStart")
    with load(instance) as seen:
        instance.root(f"systemd-run -q --wait --pipe {surroundings} {renew}")
        wait_for(lambda: _certificate(instance).serial_number != before, 20, "the new certificate")
    assert seen.failed == []
    assert instance.root("systemctl show -P MainPID nginx") == main
    assert "Verify return code: 0 (ok)" in _openssl(instance, WEB, "-verify_return_error")
    assert instance.deploy()["changes"] == []


@pytest.mark.parametrize("family", ["-4", "-6"])
def test_unknown_names_and_bare_addresses_get_nothing(instance: Deployed, family: str) -> None:
    """On port 80 the connection is closed without an answer, on 443 the handshake is refused."""
    social = instance.machine()
    bare = social.address4 if family == "-4" else f"[{social.address6}]"
    assert "Empty reply" in instance.curl(f"http://{WEB}/", family, "-H", "Host: evil.test")
    assert "Empty reply" in instance.curl(f"http://{bare}/")
    assert "unrecognized name" in instance.curl(f"https://{bare}/", "-k")
    assert instance.status_of(f"https://{WEB}/health", family) == 200
    shown = _openssl(instance, "evil.test", family)
    assert "unrecognized name" in shown
    assert "BEGIN CERTIFICATE" not in shown


@pytest.mark.parametrize("path", ["/auth/sign_in", "/api/v2/instance", "/nowhere", "/robots.txt"])
def test_every_answer_carries_the_security_headers(instance: Deployed, path: str) -> None:
    """HSTS for two years, each header once, nothing that tells versions."""
    text = instance.curl(f"https://{WEB}{path}", "-D", "-", "-o", "/dev/null")
    headers = [line.lower().partition(": ")[::2] for line in text.splitlines() if ": " in line]
    values = {name: [value for other, value in headers if other == name] for name, _ in headers}
    assert values["strict-transport-security"] == ["max-age=63072000; includesubdomains"]
    assert values["x-content-type-options"] == ["nosniff"]
    assert len(values["content-security-policy"]) == len(values["x-frame-options"]) == 1
    assert values["server"] == ["nginx"]
    assert "x-powered-by" not in values
    assert "x-runtime" not in values


@contextmanager
def _web_stopped(instance: Deployed) -> Iterator[None]:
    units = instance.root("systemctl list-units --plain --no-legend --state=active 'mastodon-web@*' | cut -d' ' -f1")
    assert units.split()
    instance.root(f"systemctl stop {units.strip()}")
    try:
        yield
    finally:
        instance.root(f"systemctl start {units.strip()}")


def test_a_page_says_so_while_the_application_is_down(instance: Deployed) -> None:
    """Every web process is stopped: a readable page with the right status; afterwards all is well again."""
    with _web_stopped(instance):
        body, _, status = instance.curl(f"https://{WEB}/auth/sign_in").rpartition("\n")
        posted = instance.status_of(f"https://{WEB}/auth", "-d", "x=y")
    assert status in ("502", "503")
    assert posted in (502, 503)
    assert "try again" in body
    assert "<h1>" in body
    assert instance.status_of(f"https://{WEB}/auth/sign_in") == 200
    assert instance.deploy()["changes"] == []


def _opens(instance: Deployed, user: str, where: str, port: int) -> bool:
    """Whether a process of a user on the host can open a connection."""
    words = ["runuser", "-u", user, "--", "python3", "-c", CONNECT, where, str(port)]
    done = instance.machine().exec(words, check=False)
    if done.returncode:
        assert re.search(r"ConnectionRefusedError|PermissionError|TimeoutError|OSError", str(done.stderr)), done
    return not done.returncode


ALLOWED = {
    S3: {"root", "mastodon", "mastodon-owner", "www-data", "postgres"},
    RELAY: {"root", "mastodon", "mastodon-owner"},
    ACME: {"root"},
    DNS: {"root", "mastodon", "mastodon-owner", "www-data", "postgres", "redis", "nobody"},
    OTHER: set(),
}


@pytest.fixture(scope="module")
def listener(instance: Deployed) -> Iterator[str]:
    """A server on the stranger's machine, on a private address that is nobody's business; gives that address."""
    outside = instance.machine("outside")
    serve = ["python3", "-m", "http.server", str(OTHER), "--bind", "::"]
    outside.exec(["systemd-run", "-q", "--collect", "--unit=listener", *serve])
    probe = ["python3", "-c", CONNECT, outside.address4, str(OTHER)]
    wait_for(lambda: outside.exec(probe, check=False).returncode == 0, 20, "the listener")
    yield outside.address4
    outside.exec(["systemctl", "stop", "listener"])


@pytest.mark.parametrize("user", ["root", "mastodon", "mastodon-owner", "www-data", "postgres", "redis", "nobody"])
def test_each_account_opens_only_what_it_needs(instance: Deployed, listener: str, user: str) -> None:
    """All these servers listen; the table of flows says who may reach which."""
    world, opened = instance.machine("world"), set()
    for port in ALLOWED:
        places = (listener, instance.machine("outside").address6) if port == OTHER else (world.address4, world.address6)
        found = {_opens(instance, user, place, port) for place in places}
        assert len(found) == 1, f"IPv4 and IPv6 differ for port {port}"
        opened |= {port} if found == {True} else set()
    assert opened == {port for port, users in ALLOWED.items() if user in users}


def test_units_reach_no_private_address_even_where_the_firewall_lets_them(instance: Deployed, listener: str) -> None:
    """A second lock: the rule of nftables is opened for the length of the test, and only processes outside the units'
    groups get through. Streaming reaches not even the storage."""
    rule = f"ip daddr {listener} tcp dport {OTHER} accept"
    handle = instance.root(f"nft -e -a insert rule inet mfg output {rule} | sed -n 's/.*# handle //p'").strip()
    world = instance.machine("world").address4
    try:
        assert _opens(instance, "mastodon", listener, OTHER)
        for kind, others, storage in (("web", False, True), ("sidekiq", False, True), ("streaming", False, False)):
            assert _opens_within(instance, kind, listener, OTHER) == others
            assert _opens_within(instance, kind, world, S3) == storage, kind
    finally:
        instance.root(f"nft delete rule inet mfg output handle {handle}")
    assert not _opens(instance, "mastodon", listener, OTHER)


def _opens_within(instance: Deployed, kind: str, where: str, port: int) -> bool:
    """The same from a process in the group of a running unit, where its `IPAddressDeny=` counts."""
    units = f"systemctl list-units --plain --no-legend --state=active 'mastodon-{kind}@*' | cut -d' ' -f1"
    join = f"echo $$ > /sys/fs/cgroup$(systemctl show -P ControlGroup $({units}))/cgroup.procs"
    probe = f"exec runuser -u mastodon -- python3 -c '{CONNECT}' {where} {port}"
    done = instance.machine().exec(["sh", "-c", f"{join} && {probe}"], check=False)
    assert not done.returncode or "Error" in str(done.stderr), done
    return not done.returncode
