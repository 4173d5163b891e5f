"""A bare host whose only way to the internet is the ministry's web proxy: checked, deployed, and kept to it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from mastodon_gov.bootstrap import prepare
from mastodon_gov.instance.load import load
from mastodon_gov.lab.demo import bring_up
from mastodon_gov.lab.state import MachineSpec
from mastodon_gov.lab.world import build_world, services, world_spec
from tests.lab.deployed import Deployed, copy_instance, wait_for
from tests.lab.edits import edited
from tests.lab.labs import MakeLab

pytestmark = pytest.mark.long
PROXY, PORT = "proxy.agency.test", 3128
TINYPROXY = f"""\
User tinyproxy
Group tinyproxy
Port {PORT}
LogFile "/var/log/tinyproxy/log"
Allow 10.0.0.0/8
Allow fd89::/16
"""
ASK = """\
import sys, urllib.request as r
way = {} if sys.argv[1] == "direct" else {"http": sys.argv[1]}
url = "http://deb.debian.org/debian/dists/trixie/InRelease"
print(r.build_opener(r.ProxyHandler(way)).open(url, timeout=20).status)
"""


@pytest.fixture(scope="module")
def proxied(make_lab: MakeLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """No package of ours on `social`, no route out of its network, and a proxy that only the instance knows."""
    gateway = MachineSpec("gateway", layer_packages=("tinyproxy-bin",), dns=("world",))
    lab = make_lab("proxied", [MachineSpec("social", dns=("world",)), world_spec(), gateway])
    demo = bring_up(lab, copy_instance(tmp_path_factory.mktemp("proxied")), print, first_contact=False)
    build_world(lab, names=services.NAMES | {"gateway": (PROXY,)})
    lab.machine("gateway").ssh(
        "useradd --system tinyproxy; install -d -o tinyproxy /var/log/tinyproxy; cat >/etc/proxy && "
        "systemd-run -q --unit=proxy tinyproxy -d -c /etc/proxy",
        stdin=TINYPROXY,
    )
    wait_for(lambda: lab.machine("gateway").ssh(f"ss -Hltn sport = {PORT}").stdout, 20, "the proxy listens")
    lab.machine("social").ssh(
        "sed -i /^Gateway=/d /etc/systemd/network/10-lab.network; networkctl reload; ip route del default || true"
    )
    with (demo.directory / "addresses.yaml").open("a") as file:
        gateway_at = lab.machine("gateway")
        file.write(f"{PROXY}: {json.dumps([gateway_at.address4, gateway_at.address6])}\n")
    at = Deployed(demo)
    with edited(at, "network:\n", f"network:\n  http_proxy: http://{PROXY}:{PORT}\n"):
        prepare(load(at.directory), at.directory, "social", "root", lab.root_key, None)
        yield at


def asked(proxied: Deployed, user: str, way: str) -> str:
    """What an account gets from Debian's server, directly or through a proxy."""
    return proxied.root(f"runuser -u {user} -- python3 - {way} 2>&1 | tail -n 1", stdin=ASK).strip()


def test_a_bare_host_is_deployed_through_the_proxy_alone(proxied: Deployed) -> None:
    assert "Network is unreachable" in asked(proxied, "root", "direct")
    told = json.loads(proxied.cli("check", "--json").stdout)
    assert [each for each in told["findings"] if each["state"] != "ok"] == []
    proxied.deploy()
    second = proxied.deploy()
    assert (second["changes"], second["differences"]) == ([], [])
    assert json.loads(proxied.cli("audit", "--json", check=False).stdout)["numbers"]["failed"] == 0


def test_accounts_that_need_the_web_reach_the_proxy_and_nobody_else(proxied: Deployed) -> None:
    """With its own route out again, the host still goes no other way."""
    gateway = f"http://{PROXY}:{PORT}"
    proxied.root(f"ip route add default via {proxied.demo.lab.machine('gateway').address4.rpartition('.')[0]}.1")
    assert {user: asked(proxied, user, gateway) for user in ("root", "mastodon")} == {"root": "200", "mastodon": "200"}
    for user, way in (("postgres", gateway), ("www-data", gateway), ("root", "direct"), ("mastodon", "direct")):
        assert "refused" in asked(proxied, user, way), (user, way)
    assert f"http_proxy={gateway}" in proxied.root("cat /etc/mastodon/mastodon.env").split("\n")
    seen = proxied.machine("gateway").ssh("cat /var/log/tinyproxy/log").stdout
    assert "deb.debian.org" in seen
