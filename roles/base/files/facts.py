#!/usr/bin/python3 -IB
"""Facts of the role base for the audit: one JSON document. Reads only; no arguments."""

from __future__ import annotations

import os
import platform
import re
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roles.base.files import facts_people, facts_services
    from roles.base.files.facts_lib import output, state, tell
else:  # on the host the programs' common part lies one directory up
    sys.path.insert(0, "/usr/local/lib/mastodon-gov")
    import facts_people
    import facts_services
    from facts_lib import output, state, tell

# Every program may write these, and what they hold is no secret.
SHARED_LOGS = {"wtmp", "btmp", "lastlog"}
# An account that may not write apt's caches: they are used where they are good, and left alone where they are not.
AS_APT = ("runuser", "-u", "_apt", "--", "apt-get")
MODULES = "cramfs hfs jffs2 udf usb-storage firewire-core dccp sctp rds tipc".split()
ACCOUNT_FILES = [f"/etc/{name}{copy}" for name in ("passwd", "group", "shadow", "gshadow") for copy in ("", "-")]
CRON = ["/etc/crontab", *(f"/etc/cron.{each}" for each in ("d", "hourly", "daily", "weekly", "monthly"))]


def host() -> dict[str, object]:
    """Which system this is; `container` because a shared kernel is not the host's own. `booted` in s since 1970."""
    told = platform.freedesktop_os_release()
    release = Path("/opt/mastodon/current")
    return {
        "name": platform.node(),
        "system": told.get("PRETTY_NAME", ""),
        "version_id": told.get("VERSION_ID", ""),
        "kernel": platform.release(),
        "container": output("systemd-detect-virt", "--container", codes=(0, 1)).strip() not in ("", "none"),
        "release": release.resolve().name if release.exists() else "",
        "booted": round(time.time() - float(Path("/proc/uptime").read_text().split()[0]) + first_process()),
    }


def first_process() -> float:
    """Seconds from the kernel's start to that of process 1: in a container, what counts is its own start."""
    fields = Path("/proc/1/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


def sysctl() -> dict[str, str]:
    """Every kernel setting that can be read."""
    lines = output("sysctl", "-a", codes=(0, 1, 255)).splitlines()
    return {name.strip(): value.strip() for name, sign, value in (line.partition("=") for line in lines) if sign}


def packages() -> list[str]:
    """Names of what is installed."""
    lines = output("dpkg-query", "-W", "-f", "${db:Status-Abbrev}|${Package}\n").splitlines()
    return [line.split("|")[1] for line in lines if line.startswith("ii ")]


def apt() -> dict[str, list[str]]:
    """apt's settings in force, by name; a list has one name and many values."""
    found: dict[str, list[str]] = {}
    for line in output("apt-config", "dump").splitlines():
        name, _, value = line.partition(" ")
        found.setdefault(name.removesuffix("::"), []).append(value.strip('";'))
    return found


def waiting() -> list[str]:
    """Upgrades that apt would take from a security archive."""
    _readable()
    lines = output(*AS_APT, "-s", "-o", "Debug::NoLocking=1", "upgrade").splitlines()
    return [line.split()[1] for line in lines if line.startswith("Inst ") and "-security" in line]


def sources() -> list[dict[str, object]]:
    """Each source of packages as it is written (apt itself lists only those it has read), with the keys that may sign
    it and whether somebody else could change them."""
    found: list[dict[str, object]] = []
    for path in sorted([Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]):
        text = path.read_text() if path.suffix in (".list", ".sources") and path.exists() else ""
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        if path.suffix == ".list":
            texts = [line for line in lines if line.strip()]
            keys = [(re.findall(r"signed-by=([^] ]+)", line) or [""])[0] for line in texts]
        else:
            texts = [each for each in "\n".join(lines).split("\n\n") if each.strip()]
            keys = [(re.findall(r"(?im)^signed-by:\s*(\S.*)$", each) or [""])[0] for each in texts]
        for each, key in zip(texts, keys, strict=True):
            uri = (re.findall(r"[a-z+]+:/\S*", each) or ["?"])[0]
            found.append({"uri": uri, "signed_by": key, "key_safe": _safe(key)})
    if not found:
        raise OSError("no source of packages is written down")
    return found


def _readable() -> None:
    """Raises OSError where apt's own account would see fewer sources than root."""
    for path in Path("/etc/apt").glob("sources.list*/*"):
        if not path.stat().st_mode & 0o004:
            raise OSError(f"{path} cannot be read by apt's own account")


def _safe(key: str) -> bool:
    if not key.startswith("/"):
        return bool(key)  # a key that is written out stands in the source itself
    seen = os.stat(key)
    return seen.st_uid == 0 and not seen.st_mode & 0o022


def sockets() -> list[str]:
    """What listens, as `protocol address:port program`; loopback and public alike."""
    found = set()
    for line in output("ss", "-Hltnup").splitlines():
        fields = line.split()
        program = line.partition('(("')[2].partition('"')[0]
        found.add(f"{fields[0]} {fields[4]} {program}")
    return sorted(found)


def mounts() -> dict[str, list[str]]:
    """Type and options of each mount, by place."""
    found = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options = line.split()[:4]
        found[place] = [kind, *options.split(",")]
    return found


def modules() -> dict[str, str]:
    """What loading each of these would do."""
    return {name: output("modprobe", "-nv", name, codes=(0, 1)).strip() for name in MODULES}


def cores() -> dict[str, object]:
    """The hard limits that pam_limits gives a session (the last line of a name counts; sudo would show its own), and
    systemd-coredump's settings."""
    limits: dict[str, str] = {}
    for path in (Path("/etc/security/limits.conf"), *sorted(Path("/etc/security/limits.d").glob("*.conf"))):
        for line in path.read_text().splitlines() if path.exists() else ():
            words = line.partition("#")[0].split()
            if len(words) == 4 and words[1] in ("hard", "-") and words[2] == "core":
                limits[words[0]] = words[3]
    return {
        "hard": " ".join(sorted(set(limits.values()))) if {"*", "root"} <= limits.keys() else "none",
        "coredump": facts_services.settings("systemd/coredump.conf"),
    }


def tree() -> dict[str, list[str]]:
    """Files of nobody, files that everybody may write, and set-uid programs. Other file systems are left out."""
    words = "find / -xdev -ignore_readdir_race ( -path /proc -o -path /sys ) -prune -o".split()
    tests = (
        "( -nouser -o -nogroup ) -printf U%p\\n -o -perm -0002 ! -type l ( ! -type d -o ! -perm -1000 ) -printf W%p\\n"
    )
    lines = output(*words, *tests.split(), "-o", "-type", "f", "-perm", "/6000", "-printf", "S%p\n", codes=(0, 1))
    rows = lines.splitlines()
    return {name: sorted(row[1:] for row in rows if row[0] == kind)[:50] for name, kind in KINDS.items()}


KINDS = {"unowned": "U", "writable": "W", "setuid": "S"}


def modes() -> dict[str, str]:
    """`owner:group mode` of the files that hold accounts, and of cron's; those that are not there are left out."""
    found = {}
    for path in map(Path, [*ACCOUNT_FILES, *CRON]):
        if path.exists():
            seen = path.stat()
            found[str(path)] = f"{path.owner()}:{path.group()} {seen.st_mode & 0o7777:04o}"
    return found


def cron_allow() -> list[str] | None:
    """Who may have a crontab; null where anybody may."""
    path = Path("/etc/cron.allow")
    return path.read_text().split() if path.exists() else None


def clock() -> dict[str, object]:
    """How far the clock is off (s), whether it follows anybody (`leap`), from how many sources that answer, and whether
    another daemon sets it too. A clock that follows nobody is 0 s off, by its own word."""
    units = ("systemd-timesyncd.service", "ntpsec.service", "openntpd.service")
    others = output("systemctl", "list-units", "--plain", "--no-legend", *units)
    tracking = output("chronyc", "-c", "tracking").strip().split(",")
    reach = [int(line.split(",")[5], 8) for line in output("chronyc", "-c", "sources").splitlines()]
    return {
        "offset": float(tracking[4]),
        "leap": tracking[-1],
        "sources": sum(each > 0 for each in reach),
        "others": [line.split()[0] for line in others.splitlines()],
    }


def logs() -> list[str]:
    """Logs that others than owner and group may read, or that the group may write."""
    found = []
    for directory, below, names in os.walk("/var/log"):
        # A directory that is closed to others closes what is in it.
        below[:] = [name for name in below if os.lstat(os.path.join(directory, name)).st_mode & stat.S_IXOTH]
        for name in names if "/journal/" not in f"{directory}/" else ():
            seen = os.lstat(path := os.path.join(directory, name))
            if stat.S_ISREG(seen.st_mode) and seen.st_mode & 0o137 and name not in SHARED_LOGS:
                found.append(f"{path} {seen.st_mode & 0o7777:04o}")
    return sorted(found)


def journal() -> dict[str, object]:
    """journald's settings in force, and whether what it writes outlives a restart."""
    kept = any(Path("/var/log/journal").glob("*/system.journal"))
    return {"settings": facts_services.settings("systemd/journald.conf"), "persistent": kept}


def updates() -> dict[str, object]:
    """Seconds since unattended-upgrades last succeeded; null when it never ran. `made`: seconds since the first
    deploy. `reboot`: seconds that a restart has been waiting for."""
    stamp = Path("/var/lib/apt/periodic/unattended-upgrades-stamp")
    reboot = Path("/run/reboot-required")
    made = float(output("stat", "-c", "%W", "/var/lib/mastodon-gov"))
    return {
        "age": time.time() - stamp.stat().st_mtime if stamp.exists() else None,
        "made": time.time() - made,
        "reboot": time.time() - reboot.stat().st_mtime if reboot.exists() else None,
        "timer": state("apt-daily-upgrade.timer"),
    }


if __name__ == "__main__":
    system = (host, sysctl, packages, apt, waiting, sources, sockets, mounts, modules, cores, tree, modes, cron_allow)
    parts = [*system, clock, logs, journal, updates, *facts_people.PARTS, *facts_services.PARTS]
    tell({"time": time.time, **{part.__name__: part for part in parts}})
