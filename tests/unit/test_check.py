"""What a probed host means for a deploy: each finding, from canned answers of the probe."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mastodon_gov import host_probe, secrets
from mastodon_gov.check import clock_offset, refuse_unfit
from mastodon_gov.errors import Refusal
from mastodon_gov.findings import FAIL, GIB, OK, WARN, Finding, Subject, foreign_database, host_findings
from mastodon_gov.instance import Node
from mastodon_gov.migrations import Migrations
from mastodon_gov.outside import outside_findings, questions
from tests.unit.instance_sample import good_directory
from tests.unit.storage_sample import node as sample_node
from tests.unit.test_inventory import BUNDLE

Seen = dict[str, Any]
GROUPS = frozenset({"database", "redis", "mastodon", "proxy"})
RELEASE_BYTES = 2 * GIB
RESOLVER = "10.90.0.12"  # of network.resolvers


def node(**changes: Any) -> Node:
    return sample_node(**changes).model_copy(update={"groups": GROUPS})


def subject(offset: float = 0.0, **changes: Any) -> Subject:
    return Subject(node(**changes), "amd64", RELEASE_BYTES, Migrations(frozenset({"20260611150940"})), offset)


def cluster(**changes: Any) -> Seen:
    ours = {"cluster": "17/main", "running": True, "tables": 120, "locked": True, "marked": True}
    return {**ours, "versions": ["20260611150940"], **changes}


def fit() -> Seen:
    """A bare machine with nothing against it, and a world that answers."""
    inner = {"s3.world.test": ["10.90.0.12"], "mail.world.test": ["10.90.0.12"], "acme.world.test": ["198.51.100.9"]}
    here = {"social.agency.test": ["203.0.113.5"], "files.social.agency.test": ["203.0.113.5"]}
    names = {name: {"addresses": known, "here": []} for name, known in {**inner, "agency.test": ["192.0.2.1"]}.items()}
    return {
        "time": 0.0,
        "deployed": False,
        "release": False,
        "system": {"id": "debian", "version": "13", "name": "Debian 13", "arch": "amd64", "systemd": True},
        "disks": {place: {"free": 40 * GIB, "device": 1} for place in ("/", "/var", "/opt")},
        "memory": 4096,
        "resolvers": [RESOLVER],
        "listeners": [],
        "mastodon": [],
        "databases": [],
        "installed": [],
        "names": names | {name: {"addresses": known, "here": known} for name, known in here.items()},
        "packages": {"http://packages.test/dists/trixie/InRelease": {"status": 200}},
        "servers": {"object storage": {"status": 403}, "certificates": {"status": 200}},
    }


def judged(seen: Seen, of: Subject | None = None) -> list[Finding]:
    return host_findings(of or subject(), seen) + outside_findings(of or subject(), seen)


def failing(found: list[Finding]) -> set[str]:
    return {each.id for each in found if each.state != OK}


def test_a_fit_host_has_nothing_against_it() -> None:
    found = judged(fit())
    assert failing(found) == set()
    assert len(found) == 14
    assert {each.remedy for each in found} == {""}


def put(*path: str, value: Any) -> Callable[[Seen], None]:
    """Set one observation."""

    def change(seen: Seen) -> None:
        for key in path[:-1]:
            seen = seen[key]
        seen[path[-1]] = value

    return change


def listener(port: int, unit: str) -> Callable[[Seen], None]:
    return put("listeners", value=[{"port": port, "program": "python3", "unit": unit}])


BROKEN: dict[str, tuple[str, Callable[[Seen], None], tuple[str, ...]]] = {
    "other distribution": ("operating system", put("system", "id", value="ubuntu"), ("Debian 13 on amd64",)),
    "other version": ("operating system", put("system", "version", value="12"), ("Debian 13 on amd64",)),
    "other processor": ("operating system", put("system", "arch", value="arm64"), ("arm64", "amd64")),
    "no systemd": ("systemd", put("system", "systemd", value=False), ("systemd does not run",)),
    "shared disk too small": (
        "disk",
        put("disks", value={place: {"free": 12 * GIB, "device": 1} for place in ("/", "/var", "/opt")}),
        ("12.0 GiB free at / and /var and /opt", "13.0 GiB"),
    ),
    "disk of its own too small": (
        "disk",
        put("disks", "/opt", value={"free": 5 * GIB, "device": 2}),
        ("5.0 GiB free at /opt", "6.0 GiB at /opt", "Make more room at /opt"),
    ),
    "memory": ("memory", put("memory", value=2048), ("2048 MiB", "2554 MiB")),
    "asks others too": (
        "resolvers",
        put("resolvers", value=[RESOLVER, "192.0.2.53"]),
        (f"found {RESOLVER}, 192.0.2.53", f"network.resolvers, {RESOLVER},", "/etc/resolv.conf"),
    ),
    "asks nobody": ("resolvers", put("resolvers", value=[]), ("no resolver",)),
    "port held by a program": ("ports", listener(80, "stranger.service"), ("port 80 held by python3", "disable")),
    "port held without a unit": ("ports", listener(5432, "session-3.scope"), ("port 5432",)),
    "our unit on another's port": ("ports", listener(443, "redis-server.service"), ("port 443",)),
    "foreign Mastodon": ("mastodon", put("mastodon", value=["/home/mastodon/live"]), ("/home/mastodon/live",)),
    "foreign database": (
        "database",
        put("databases", value=[cluster(locked=False, marked=False)]),
        ("17/main", "120 tables", "Nothing was touched"),
    ),
    "newer database": (
        "database",
        put("databases", value=[cluster(versions=["20260611150940", "20991231000000"])]),
        ("20991231000000", "20260611150940", "newer release"),
    ),
    "stopped foreign cluster": (
        "database",
        put("databases", value=[{"cluster": "17/main", "running": False, "databases": 1, "ours": False}]),
        ("stopped cluster 17/main",),
    ),
    "web name elsewhere": (
        "public names",
        put("names", "social.agency.test", value={"addresses": ["198.51.100.1"], "here": []}),
        ("social.agency.test leads to 198.51.100.1",),
    ),
    "media name half elsewhere": (
        "public names",
        put("names", "files.social.agency.test", value={"addresses": ["203.0.113.5", "::5"], "here": ["203.0.113.5"]}),
        ("files.social.agency.test leads to ::5",),
    ),
    "handle without address": (
        "public names",
        put("names", "agency.test", value={"addresses": [], "here": [], "said": "Name not known"}),
        ("agency.test has no address (Name not known)",),
    ),
    "service without address": (
        "names of services",
        put("names", "s3.world.test", value={"addresses": [], "here": [], "said": "Name not known"}),
        ("s3.world.test has no address",),
    ),
    "service at an address that the firewall does not open": (
        "names of services",
        put("names", "mail.world.test", value={"addresses": ["10.90.0.99"], "here": []}),
        ("10.90.0.99", "addresses.yaml"),
    ),
    "private service that is not listed": (
        "names of services",
        put("names", "acme.world.test", value={"addresses": ["10.1.1.1"], "here": []}),
        ("private address 10.1.1.1", "addresses.yaml"),
    ),
    "S3 away": ("object storage", put("servers", "object storage", value={"said": "refused"}), ("refused",)),
    "S3 broken": ("object storage", put("servers", "object storage", value={"status": 503}), ("503",)),
    "ACME not trusted": (
        "certificates",
        put("servers", "certificates", value={"said": "self-signed certificate"}),
        ("self-signed", "network.trusted_ca_files"),
    ),
    "packages away": (
        "packages",
        put("packages", "http://packages.test/dists/trixie/InRelease", value={"said": "timed out"}),
        ("packages.test", "timed out"),
    ),
    "no source of packages": ("packages", put("packages", value={}), ("no source of packages",)),
}


@pytest.mark.parametrize("case", BROKEN)
def test_each_fault_fails_in_its_own_row_with_a_sentence(case: str) -> None:
    row, breaking, said = BROKEN[case]
    seen = copy.deepcopy(fit())
    breaking(seen)
    found = [each for each in judged(seen) if each.state != OK]
    assert [(each.id, each.state) for each in found] == [(row, FAIL)]
    assert all(part in found[0].sentence for part in (*said, found[0].observed, found[0].expected))
    assert found[0].remedy.endswith(".")


@pytest.mark.parametrize(
    "part", ["system", "disks", "memory", "resolvers", "listeners", "mastodon", "databases", "names", "packages"]
)
def test_what_could_not_be_looked_at_is_never_ok(part: str) -> None:
    seen = fit() | {part: {"error": "PermissionError: no"}}
    blind = [each for each in judged(seen) if each.state != OK]
    assert blind
    assert {str(each.state) for each in blind} == {"could not look"}
    assert not any(each.lets_begin for each in blind)
    assert all("PermissionError: no" in each.sentence for each in blind)


@pytest.mark.parametrize(("offset", "state"), [(0, OK), (-4, OK), (6, WARN), (-59, WARN), (61, FAIL), (-3600, FAIL)])
def test_clock(offset: float, state: str) -> None:
    clock = next(each for each in judged(fit(), subject(offset)) if each.id == "clock")
    assert clock.state == state
    assert clock.lets_begin == (abs(offset) < 60)
    assert (f"{abs(offset)} s {'ahead of' if offset > 0 else 'behind'}" in clock.sentence) == (abs(offset) > 1)


def test_a_clock_is_only_blamed_for_what_the_question_did_not_take() -> None:
    assert clock_offset(105.0, 100.0, 110.0) == 0
    assert clock_offset(95.0, 100.0, 110.0) == -5
    assert clock_offset(3710.0, 100.0, 110.0) == 3600


OWN = {80: "nginx.service", 5432: "postgresql@17-main.service", 6379: "redis-server.service"}
OWN |= {3001: "mastodon-web@b.service", 4000: "mastodon-streaming@a.service"}


@pytest.mark.parametrize("port", OWN)
def test_our_own_units_may_hold_their_ports(port: int) -> None:
    seen = fit()
    listener(port, OWN[port])(seen)
    assert failing(judged(seen)) == set()


def test_a_deployed_host_needs_only_a_reserve() -> None:
    small = {place: {"free": 2 * GIB, "device": 1} for place in ("/", "/var", "/opt")}
    assert failing(judged(fit() | {"disks": small})) == {"disk"}
    assert failing(judged(fit() | {"disks": small, "deployed": True, "release": True})) == set()
    assert failing(judged(fit() | {"disks": small, "deployed": True})) == {"disk"}  # the new release finds no room


DATABASES: dict[str, tuple[Seen, bool]] = {
    "none of this name": ({"cluster": "17/main", "running": True}, False),
    "empty": (cluster(tables=0, locked=False, marked=False), False),
    "ours": (cluster(), False),
    "half made by us": (cluster(locked=False), False),
    "ours, restored without its comment": (cluster(marked=False), False),
    "somebody's": (cluster(locked=False, marked=False), True),
    "stopped, ours": ({"cluster": "17/main", "running": False, "databases": 1, "ours": True}, False),
    "stopped, empty": ({"cluster": "17/main", "running": False, "databases": 0, "ours": False}, False),
    "stopped, somebody's": ({"cluster": "17/main", "running": False, "databases": 1, "ours": False}, True),
}


@pytest.mark.parametrize("case", DATABASES)
def test_which_database_is_foreign(case: str) -> None:
    told, foreign = DATABASES[case]
    assert bool(foreign_database(told)) == foreign


def test_only_what_a_host_carries_is_asked_of_it() -> None:
    alone = Subject(node().model_copy(update={"groups": frozenset({"redis"})}), "amd64", RELEASE_BYTES, Migrations(), 0)
    ids = {each.id for each in judged(fit(), alone)}
    assert {"database", "public names", "certificates"}.isdisjoint(ids)


def test_the_probe_is_asked_no_secret() -> None:
    at = node()
    asked = json.dumps(questions(at))
    stored = at.secrets.object_storage
    for secret in (at.secrets.mail.password, stored.owner.secret_key, stored.media.access_key):
        assert json.dumps(secret.get_secret_value()).strip('"') not in asked


def test_the_probe_runs_with_the_standard_library_alone() -> None:
    asked = json.dumps({"deployed": "/", "release": "x", "ports": []})
    program = f"{Path(host_probe.__file__).read_text()}\nprint(json.dumps(look(json.loads({asked!r}))))\n"
    done = subprocess.run([sys.executable, "-I", "-S", "-"], input=program, capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout)
    assert (seen["deployed"], seen["release"], seen["listeners"]) == (True, False, [])
    assert seen["memory"] > 0


@pytest.mark.parametrize(
    ("own", "resolved", "known"),
    [
        ("nameserver 192.0.2.1\n#nameserver 192.0.2.9\nnameserver fe80::1%eth0\n", "", ["192.0.2.1", "fe80::1"]),
        ("nameserver\t192.0.2.1 # the first\nnameserver FD00:0::2\n", "", ["192.0.2.1", "fd00::2"]),
        ("nameserver 127.0.0.53\noptions edns0\n", "nameserver 192.0.2.1\nnameserver 192.0.2.2\n", None),
        ("search agency.test\nnameserver\n", "nameserver 192.0.2.1\n", []),
    ],
    ids=["plain", "spelt otherwise", "behind systemd-resolved", "none"],
)
def test_whom_a_host_asks_for_names(
    own: str, resolved: str, known: list[str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As resolv.conf says it; systemd-resolved's own address says nothing."""
    for path, text in {"etc/resolv.conf": own, "run/systemd/resolve/resolv.conf": resolved}.items():
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text)
    monkeypatch.setattr(host_probe, "Path", lambda path: tmp_path / str(path).lstrip("/"))
    assert host_probe.resolvers() == (["192.0.2.1", "192.0.2.2"] if known is None else known)


def test_a_part_of_the_probe_that_fails_says_so() -> None:
    def part() -> None:
        raise PermissionError("not allowed")

    assert host_probe.tried(part) == {"error": "PermissionError: not allowed"}


def test_a_database_that_reads_its_log_again_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    said = ["the database system is starting up", "the database system is starting up", ""]

    def output(*words: str, given: str) -> str:
        if word := said.pop(0):
            raise OSError(f"runuser ended with 2: FATAL: {word}")
        return "{}"

    monkeypatch.setattr(host_probe, "output", output)
    assert host_probe._answers("5432") == "{}"
    said[:] = ["no such role"]
    with pytest.raises(OSError, match="no such role"):
        host_probe._answers("5432")


WRITTEN = {
    "the relay": ("instance.yaml", "port: 587", "port: 2525"),
    "the endpoint": ("instance.yaml", "https://s3.world.test", "https://s3.world.test:8443"),
    "the media name": ("instance.yaml", "media: files.", "media: pictures."),
    "an address": ("addresses.yaml", "s3.world.test: [10.99.0.12]", "s3.world.test: [10.99.0.13]"),
    "a group": ("inventory.py", '"redis": ["social"],', ""),
}


class Deploys:
    """An instance whose one host is deployed already, and what its checks ask besides the host."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self.directory, self.asked, self.refuses = directory, list[str](), False
        for name in ("inventory", "check"):
            patch.setattr(f"mastodon_gov.{name}.selected", lambda *_: BUNDLE)
        patch.setattr("mastodon_gov.check._ask", lambda *_: fit() | {"deployed": True})
        patch.setattr("mastodon_gov.check.read_release", lambda _: (SimpleNamespace(arch="amd64", bytes=1), None))
        patch.setattr("mastodon_gov.check.migrations_of", lambda _: Migrations())
        for name in ("host_findings", "outside_findings"):
            patch.setattr(f"mastodon_gov.check.{name}", lambda *_: [])
        for name in ("_mail", "_release", "_storage"):
            patch.setattr(f"mastodon_gov.check.{name}", partial(self._part, name))

    def _part(self, name: str, *_: object) -> Any:
        self.asked.append(name)
        found = Finding("x", name, FAIL if self.refuses else OK, "", "")
        return found if name == "_release" else [found]

    def deploy(self, **how: Any) -> set[str]:
        """The parts that a deploy's checks ask."""
        self.asked.clear()
        with suppress(Refusal):
            refuse_unfit(self.directory, **how)
        return set(self.asked)


@pytest.fixture
def deploys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deploys:
    monkeypatch.delenv("MASTODON_GOV_IDENTITY", raising=False)
    place = good_directory(tmp_path / "instance")
    (place / "recipients.txt").write_text(f"# test\n{secrets.new_identity(place / 'identity.txt')}\n")
    secrets.create(place, {name: f"given{number}" for number, name in enumerate(secrets.GIVEN)})
    return Deploys(place, monkeypatch)


EVERYTHING = {"_mail", "_release", "_storage"}


def test_a_deploy_that_brings_nothing_new_asks_only_the_host(deploys: Deploys) -> None:
    assert deploys.deploy() == EVERYTHING
    assert deploys.deploy() == set()
    path = deploys.directory / "instance.yaml"
    path.write_text(path.read_text().replace("title: Demonstration Social", "title: Another"))
    assert deploys.deploy() == set()


@pytest.mark.parametrize("change", WRITTEN)
def test_whatever_services_are_asked_with_makes_the_check_whole_again(deploys: Deploys, change: str) -> None:
    deploys.deploy()
    file, old, new = WRITTEN[change]
    path = deploys.directory / file
    before = path.read_text()
    assert before.count(old) == 1
    path.write_text(before.replace(old, new))
    assert deploys.deploy() == EVERYTHING
    assert deploys.deploy() == set()


def test_a_changed_secret_makes_the_check_whole_until_it_has_passed(deploys: Deploys) -> None:
    deploys.deploy()
    values = secrets.read_values(deploys.directory, deploys.directory / "identity.txt")
    secrets.store.write(deploys.directory, values | {"object_storage.media.secret_key": "another0123456789"})
    deploys.refuses = True
    assert deploys.deploy() == deploys.deploy() == EVERYTHING
    deploys.refuses = False
    assert deploys.deploy(limit="social") == deploys.deploy(limit="social") == EVERYTHING
    assert deploys.deploy() == EVERYTHING
    assert deploys.deploy() == set()
