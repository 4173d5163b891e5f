"""What a probed host means for a deploy: pure functions from observations to findings. Nothing here is connected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mastodon_gov.instance import Node
from mastodon_gov.migrations import Migrations, read_installed, refusal


class State(StrEnum):
    """Only `ok` and `warn` let a deploy begin."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    BLIND = "could not look"


OK, WARN, FAIL, BLIND = State

GIB = 1024**3
# Free space a first deploy needs (GiB): Debian's packages with Ruby, PostgreSQL and ffmpeg unpack to about 1.5 GiB;
# an empty database with its log of changes, Redis' files and the journal's limit of 1 GiB stay below 5 GiB.
FIRST_DEPLOY = {"/": 2.0, "/var": 5.0, "/opt": 0.0}
# What a host that is deployed must have left, or an upgrade of a package fails half-way (GiB).
RESERVE = {"/": 0.5, "/var": 1.0, "/opt": 0.0}
# The release that runs, the one before it, and the one that is being unpacked.
RELEASES_KEPT = 3
# MiB that each part needs at work: a web process grows to 400 (DESIGN's model), Sidekiq to 600, streaming to 150;
# PostgreSQL, Redis and nginx below that leave no room for their caches.
WEB_WORKER, JOBS_AND_STREAMING, SYSTEM = 400, 750, 300
BY_GROUP = {"database": 512, "redis": 128, "proxy": 64}
# Seconds. TOTP codes and signed requests between servers tolerate half a minute; certificates of minutes' age do not.
CLOCK_WARN, CLOCK_FAIL = 5.0, 60.0
# Ports of each group, and the units that may hold them already.
PORTS: dict[str, dict[int, str]] = {
    "proxy": dict.fromkeys((80, 443), "nginx.service"),
    "database": {5432: "postgresql@17-main.service"},
    "redis": {6379: "redis-server.service"},
    "mastodon": {
        3000: "mastodon-web@a.service",
        3001: "mastodon-web@b.service",
        4000: "mastodon-streaming@a.service",
        4001: "mastodon-streaming@b.service",
    },
}


@dataclass(frozen=True)
class Finding:
    """The outcome of one check. `remedy` is a sentence, and empty when there is nothing to do."""

    host: str
    id: str
    state: State
    observed: str
    expected: str
    remedy: str = ""

    @property
    def lets_begin(self) -> bool:
        """Whether a deploy may begin in spite of it."""
        return self.state in (OK, WARN)

    @property
    def sentence(self) -> str:
        """For a person: what was found, what is allowed, what to do."""
        return f"{self.host}: {self.id}: found {self.observed}; allowed is {self.expected}. {self.remedy}"


@dataclass(frozen=True)
class Subject:
    """What is to be deployed on a host. Sizes in bytes; `migrations` are the release's own; `offset` in s."""

    node: Node
    arch: str
    bytes: int
    migrations: Migrations
    offset: float


Judgement = tuple[State, str, str, str]  # state, observed, expected, remedy
Judge = Callable[[Subject, dict[str, Any]], Judgement]
Check = tuple[str, str, Judge]  # id, the part of the observations it reads


def ports_of(node: Node) -> dict[int, str]:
    """Ports that a deploy will use on this host, and the unit that will hold each."""
    return {port: unit for group, ports in PORTS.items() if group in node.groups for port, unit in ports.items()}


def host_findings(subject: Subject, seen: dict[str, Any]) -> list[Finding]:
    """One finding for each thing the host itself decides."""
    checks: list[Check] = [
        ("operating system", "system", _operating_system),
        ("systemd", "system", _systemd),
        ("disk", "disks", _disk),
        ("memory", "memory", _memory),
        ("clock", "time", _clock),
        ("resolvers", "resolvers", _resolvers),
        ("ports", "listeners", _ports),
        ("mastodon", "mastodon", _mastodon),
    ]
    if "database" in subject.node.groups:
        checks.append(("database", "databases", _database))
    return [judged(subject, seen, *check) for check in checks]


def judged(subject: Subject, seen: dict[str, Any], name: str, part: str, judge: Judge) -> Finding:
    """Judge what was observed; what could not be looked at is never passed."""
    told = seen[part]
    if isinstance(told, dict) and set(told) == {"error"}:
        return blind(subject.node.name, name, told["error"])
    return Finding(subject.node.name, name, *judge(subject, seen))


def blind(host: str, name: str, why: str) -> Finding:
    """A check that could not be made is never passed."""
    return Finding(host, name, BLIND, why, "an answer", "Mend what kept it from looking, then run check again.")


def _operating_system(subject: Subject, seen: dict[str, Any]) -> Judgement:
    told = seen["system"]
    good = (told["id"], told["version"], told["arch"]) == ("debian", "13", subject.arch)
    return (
        OK if good else FAIL,
        f"{told['name']} on {told['arch']}",
        f"Debian 13 on {subject.arch}, which the release {subject.node.release.version} was built for",
        "" if good else "Install Debian 13 of that architecture, or choose a release bundle that was built for it.",
    )


def _systemd(subject: Subject, seen: dict[str, Any]) -> Judgement:
    good = seen["system"]["systemd"]
    remedy = "" if good else "Deploy to a whole (virtual) machine; a container without systemd cannot run the services."
    return OK if good else FAIL, f"systemd {'runs' if good else 'does not run'} this host", "systemd", remedy


def _disk(subject: Subject, seen: dict[str, Any]) -> Judgement:
    need = {place: size * GIB for place, size in (RESERVE if seen["deployed"] else FIRST_DEPLOY).items()}
    if "mastodon" in subject.node.groups and not seen["release"]:
        need["/opt"] += subject.bytes * (1 if seen["deployed"] else RELEASES_KEPT)
    shared: dict[int, list[str]] = {}
    for place, told in seen["disks"].items():
        shared.setdefault(told["device"], []).append(place)
    short, shown, wanted = [], [], []
    for places in shared.values():
        free, needed = seen["disks"][places[0]]["free"] / GIB, sum(need[place] for place in places) / GIB
        name = " and ".join(places)
        shown.append(f"{free:.1f} GiB free at {name}")
        wanted.append(f"{needed:.1f} GiB at {name}")
        short += [name] if free < needed else []
    remedy = f"Make more room at {', '.join(short)}." if short else ""
    return FAIL if short else OK, ", ".join(shown), f"at least {', '.join(wanted)}", remedy


def _memory(subject: Subject, seen: dict[str, Any]) -> Judgement:
    node = subject.node
    need = SYSTEM + sum(size for group, size in BY_GROUP.items() if group in node.groups)
    if "mastodon" in node.groups:
        need += node.instance.mastodon.web_workers * WEB_WORKER + JOBS_AND_STREAMING
    good = seen["memory"] >= need
    remedy = "" if good else "Give the host more memory, or write fewer mastodon.web_workers in instance.yaml."
    expected = f"{need} MiB or more for its groups and {node.instance.mastodon.web_workers} web processes"
    return OK if good else FAIL, f"{seen['memory']} MiB", expected, remedy


def _clock(subject: Subject, seen: dict[str, Any]) -> Judgement:
    away = abs(subject.offset)
    state = FAIL if away > CLOCK_FAIL else WARN if away > CLOCK_WARN else OK
    remedy = "" if state == OK else "Set the clock: let chrony or the hypervisor follow a time server."
    side = "ahead of" if subject.offset > 0 else "behind"
    observed = f"{away:.0f} s {side} this machine" if away > 1 else "the same time as on this machine"
    return state, observed, f"at most {CLOCK_WARN:.0f} s away from this machine's clock", remedy


def _resolvers(subject: Subject, seen: dict[str, Any]) -> Judgement:
    """The firewall lets the host ask no others: with one that is not listed it would find no name any more."""
    found, allowed = seen["resolvers"], [str(address) for address in subject.node.instance.network.resolvers]
    good = bool(found) and set(found) <= set(allowed)
    listed = ", ".join(allowed)
    remedy = (
        f"Have the host ask {listed} (its network settings, or DHCP's; /etc/resolv.conf shows what it uses), or write "
        "what it asks into network.resolvers in instance.yaml."
    )
    expected = f"one or more of network.resolvers, {listed}, and no other"
    return OK if good else FAIL, ", ".join(found) or "no resolver", expected, "" if good else remedy


def _ports(subject: Subject, seen: dict[str, Any]) -> Judgement:
    wanted = ports_of(subject.node)
    foreign = [each for each in seen["listeners"] if each["unit"] != wanted[each["port"]]]
    taken = [f"port {each['port']} held by {each['program']} ({each['unit'] or 'no unit'})" for each in foreign]
    free = f"ports {', '.join(map(str, sorted(wanted)))} free, or held by our own units"
    remedy = "Stop and disable what holds it: `systemctl disable --now UNIT`." if taken else ""
    return FAIL if taken else OK, ", ".join(taken) or "nothing foreign", free, remedy


def _mastodon(subject: Subject, seen: dict[str, Any]) -> Judgement:
    found = ", ".join(seen["mastodon"])
    remedy = (
        "Deploy to a new host: an instance that exists is not taken over. If it is no longer needed, keep a copy, "
        "then remove it."
    )
    expected = "no Mastodon that something else has installed"
    return FAIL if found else OK, found or "none", expected, remedy if found else ""


def _database(subject: Subject, seen: dict[str, Any]) -> Judgement:
    expected = "no database mastodon_production, an empty one, or ours, one that the release may run on"
    for told in seen["databases"]:
        if sentence := foreign_database(told):
            return FAIL, sentence, expected, FOREIGN
        installed = read_installed(seen["installed"])
        if newer := refusal(subject.node.release.name, subject.migrations, told.get("versions") or (), installed):
            return FAIL, "one that is newer", expected, f"Of this database: {newer}"
    return OK, "nothing foreign", expected, ""


FOREIGN = (
    "Nothing was touched. Deploy to a new host; if the data is no longer needed, keep a dump and drop the database."
)


def foreign_database(told: dict[str, Any]) -> str:
    """What is foreign in a PostgreSQL cluster, as the probe shows it; empty when a deploy may work on it."""
    if told["running"] and told.get("tables") and not (told["locked"] or told["marked"]):
        return f"mastodon_production in cluster {told['cluster']} with {told['tables']} tables that we did not make"
    if not told["running"] and told["databases"] and not told["ours"]:
        return f"a stopped cluster {told['cluster']} with databases that nobody can look at; start it, then try again"
    return ""
