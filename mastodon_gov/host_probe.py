"""What a host is like before a deploy: one JSON document. Reads, never writes; standard library only (Debian 13).

Runs on the host. `look` and `outside` are called with what to look at; every part says what it observed, or
`{"error": sentence}` when it could not look.
"""

from __future__ import annotations

import ipaddress
import json
import os
import platform
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

OUR_HOME = "/opt/mastodon/"
# Each unit of ours that carries Mastodon's name speaks of one of these; upstream's own lead to /home/mastodon/live.
OUR_PLACES = (OUR_HOME, "/etc/mastodon/", "/usr/local/lib/mastodon-gov/")
RECOVERY = 20  # seconds; a small server reads its log in one or two
TIMEOUT = 8  # seconds, for each answer from the network
STUBS = ("127.0.0.53", "127.0.0.54")  # where systemd-resolved listens for programs of the host
LISTEN = "0A"  # the kernel's number for a socket that listens (proc_net_tcp in the kernel's documentation)

# Lines of JSON: what the database holds; its migrations. The comment is what the role postgresql writes on a
# database while it is empty: from then on its tables are ours.
SQL = """\\set ON_ERROR_STOP on
SELECT EXISTS (SELECT FROM pg_database WHERE datname = 'mastodon_production') AS there \\gset
\\if :there
\\connect mastodon_production
SELECT json_build_object(
  'tables', (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p')),
  'locked', to_regnamespace('gov') IS NOT NULL,
  'marked', coalesce(shobj_description((SELECT oid FROM pg_database WHERE datname = current_database()),
                                       'pg_database') = 'made by mastodon-gov', false));
SELECT to_regclass('public.schema_migrations') IS NOT NULL AS migrated \\gset
\\if :migrated
SELECT json_build_object('versions', json_agg(version)) FROM public.schema_migrations;
\\endif
\\endif
"""


def output(*words: str, given: str = "") -> str:
    """What a program printed; its own words when it failed."""
    env = os.environ | {"LC_ALL": "C.UTF-8"}
    done = subprocess.run(words, input=given, capture_output=True, text=True, timeout=30, check=False, env=env)
    if done.returncode:
        raise OSError(f"{words[0]} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def system() -> dict[str, object]:
    """Operating system, architecture as Debian names it, and who is process 1."""
    told = platform.freedesktop_os_release()
    names = {"x86_64": "amd64", "aarch64": "arm64"}
    return {
        "id": told.get("ID", ""),
        "version": told.get("VERSION_ID", ""),
        "name": told.get("PRETTY_NAME", "an unnamed system"),
        "arch": names.get(platform.machine(), platform.machine()),
        # sd_booted(3): this directory is there exactly when systemd runs the machine.
        "systemd": Path("/run/systemd/system").is_dir(),
    }


def disks() -> dict[str, dict[str, int]]:
    """Free bytes and the file system's number for /, /var and /opt; parts may share a file system."""
    found = {}
    for place in ("/", "/var", "/opt"):
        seen = Path(place) if Path(place).exists() else Path("/")
        space = os.statvfs(seen)
        found[place] = {"free": space.f_bavail * space.f_frsize, "device": seen.stat().st_dev}
    return found


def installed() -> list[str]:
    """Paths of the migrations of every installed release, such as 4.6.5-0123abcd/db/migrate/20260101000000_add_x.rb."""
    home = Path(OUR_HOME, "releases")
    return [str(path.relative_to(home)) for path in sorted(home.glob("[0-9]*/db/*migrate/[0-9]*"))]


def memory() -> int:
    """MiB in all; a container shows its host's."""
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    return int(line.split()[1]) // 1024


def resolvers() -> list[str]:
    """Whom the host asks for names; where it asks systemd-resolved, whom that asks."""
    found = _nameservers("/etc/resolv.conf")
    return _nameservers("/run/systemd/resolve/resolv.conf") if set(found) & set(STUBS) else found


def _nameservers(path: str) -> list[str]:
    rows = [line.split() for line in Path(path).read_text().splitlines()]
    return [
        str(ipaddress.ip_address(row[1].partition("%")[0])) for row in rows if row[:1] == ["nameserver"] and row[1:]
    ]


def listeners(ports: list[int]) -> list[dict[str, object]]:
    """Port, program and unit of everything that listens on one of these ports."""
    inodes = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            port = int(fields[1].rpartition(":")[2], 16)
            if fields[3] == LISTEN and port in ports:
                inodes[f"socket:[{fields[9]}]"] = port
    found = {(port, *_owner(inode)) for inode, port in inodes.items()}
    return [{"port": port, "program": program, "unit": unit} for port, program, unit in sorted(found)]


def _owner(inode: str) -> tuple[str, str]:
    """Program and unit that hold a socket; systemd itself, process 1, holds those it listens on for others."""
    for process in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: -int(path.name)):
        try:
            if any(os.readlink(each) == inode for each in (process / "fd").iterdir()):
                group = (process / "cgroup").read_text().strip().rpartition("/")[2]
                return (process / "comm").read_text().strip(), group
        except OSError:
            continue  # it ended while we looked
    return "a program that this host does not show", ""


def mastodon() -> list[str]:
    """Traces of a Mastodon that is not ours: the usual directory, and units that do not lead into our directory."""
    found = ["/home/mastodon/live"] if Path("/home/mastodon/live").exists() else []
    for place in ("/etc/systemd/system", "/usr/lib/systemd/system", "/usr/local/lib/systemd/system"):
        for unit in sorted(Path(place).glob("mastodon*.service")):
            text = unit.read_text(errors="replace")
            if not any(place in text for place in OUR_PLACES):
                found.append(str(unit))
    return found


def databases() -> list[dict[str, object]]:
    """Every PostgreSQL cluster and what its mastodon_production holds; none where there is no PostgreSQL."""
    if not Path("/usr/bin/pg_lsclusters").exists():
        return []
    found = []
    for line in output("pg_lsclusters", "--no-header").splitlines():
        version, name, port, state, _, data = line.split()[:6]
        seen: dict[str, object] = {"cluster": f"{version}/{name}", "running": state.startswith("online")}
        if seen["running"]:
            for row in _answers(port).splitlines():
                seen |= json.loads(row)
        else:
            seen["databases"] = _databases_at_rest(Path(data))
            seen["ours"] = Path(f"/etc/postgresql/{version}/{name}/conf.d/60-mfg.conf").exists()
        found.append(seen)
    return found


def _answers(port: str) -> str:
    """What a running server says. After a crash it takes connections only when it has read its log again."""
    words = ["runuser", "-u", "postgres", "--", "psql", "-qtAX", "-p", port, "-d", "postgres", "-f", "-"]
    deadline = time.monotonic() + RECOVERY
    while True:
        try:
            return output(*words, given=SQL)
        except OSError as error:
            if "starting up" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def _databases_at_rest(data: Path) -> int:
    """How many databases of users a stopped cluster holds: initdb's own have numbers below 16384."""
    return sum(1 for each in (data / "base").glob("[0-9]*") if int(each.name) >= 16384)


def names(wanted: list[str]) -> dict[str, dict[str, object]]:
    """Addresses of names as this host's resolver says, and which of them are this host's."""
    found: dict[str, dict[str, object]] = {}
    for name in wanted:
        try:
            known = sorted({str(row[4][0]) for row in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)})
            found[name] = {"addresses": known, "here": [each for each in known if _is_here(each)]}
        except socket.gaierror as error:
            found[name] = {"addresses": [], "here": [], "said": error.strerror}
    return found


def _is_here(address: str) -> bool:
    """The kernel lets a socket be bound only to an address of its own."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def answer(url: str, trusted: list[str], proxy: str) -> dict[str, object]:
    """What a web server says to a request without credentials: `status`, or `said` when none could be had."""
    # Imported here and below, because a look at the host alone must not pay for it.
    import ssl
    import urllib.request
    from urllib.error import HTTPError

    context = ssl.create_default_context()
    for pem in trusted:
        context.load_verify_locations(cadata=pem)
    proxies = {"http": proxy, "https": proxy} if proxy else {}
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler(proxies), urllib.request.HTTPSHandler(context=context)
    )
    try:
        with opener.open(url, timeout=TIMEOUT) as reply:
            return {"status": reply.status}
    except HTTPError as error:
        return {"status": error.code}
    except (OSError, ValueError) as error:  # URLError is an OSError; its reason is what a person needs
        return {"said": str(getattr(error, "reason", error))}


def package_sources() -> list[str]:
    """Addresses that apt asks first. Without its caches, or apt-get would write them."""
    caches = ("-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=")
    # By itself it names only sources that `apt-get update` has read, and a new host has read none.
    asked = ("indextargets", "--no-release-info", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages")
    text = output("apt-get", *caches, *asked)
    rows = sorted({tuple(line.split()) for line in text.splitlines() if line})
    return [f"{base.rstrip('/')}/dists/{release}/InRelease" for base, release in rows]


def apt_proxy(scheme: str) -> str:
    """The web proxy that apt is told to use."""
    return output("apt-config", "shell", "P", f"Acquire::{scheme}::Proxy").strip().partition("=")[2].strip("'")


def packages(trusted: list[str], proxy: str) -> dict[str, dict[str, object]]:
    """The answer of every source of packages; through `proxy`, of which a deploy tells apt, or as apt asks now."""
    return {
        url: answer(url, trusted, proxy or apt_proxy(url.partition(":")[0]) or os.environ.get("http_proxy", ""))
        for url in package_sources()
    }


def tried(part: Callable[..., object], *given: object) -> object:
    """The part's observation, or why it could not look."""
    try:
        return part(*given)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def look(asked: dict[str, Any]) -> dict[str, object]:
    """Look at the host itself (a part of a second)."""
    return {
        "time": time.time(),
        "deployed": Path(asked["deployed"]).exists(),
        "release": Path(OUR_HOME, "releases", asked["release"]).exists(),
        "system": tried(system),
        "disks": tried(disks),
        "memory": tried(memory),
        "resolvers": tried(resolvers),
        "listeners": tried(listeners, asked["ports"]),
        "mastodon": tried(mastodon),
        "databases": tried(databases),
        "installed": installed(),
    }


def outside(asked: dict[str, Any]) -> dict[str, object]:
    """Look at what the host must reach: names and servers, all at once, as each may take its whole time."""
    from concurrent.futures import ThreadPoolExecutor

    trusted = asked["trusted_ca"]
    with ThreadPoolExecutor(max_workers=8) as pool:
        resolved = pool.submit(tried, names, asked["names"])
        sources = pool.submit(tried, packages, trusted, asked["packages"])
        servers = {
            name: pool.submit(tried, answer, each["url"], trusted, each["proxy"])
            for name, each in asked["servers"].items()
        }
        return {
            "names": resolved.result(),
            "packages": sources.result(),
            "servers": {name: each.result() for name, each in servers.items()},
        }
