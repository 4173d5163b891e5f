"""What every host has: its system, its packages, its people and the sandboxes of its services."""

from __future__ import annotations

import re

import pytest

from mastodon_gov.audit.facts import Facts
from mastodon_gov.instance import Instance
from tests.compliance.conftest import Evidence
from tests.compliance.expect import holds, none, same

UNWANTED = "telnetd xinetd nis rpcbind avahi-daemon cups snmpd vsftpd samba gcc git make".split()
KERNEL = {
    "kernel.dmesg_restrict": "1",
    "kernel.kptr_restrict": "2",
    "kernel.randomize_va_space": "2",
    "kernel.sysrq": "0",
    "kernel.perf_event_paranoid": "3",
    "kernel.unprivileged_bpf_disabled": "1|2",
}
TRACING = {"kernel.yama.ptrace_scope": "1|2|3", "kernel.kexec_load_disabled": "1", "net.core.bpf_jit_harden": "2"}
LINKS = {
    "fs.protected_hardlinks": "1",
    "fs.protected_symlinks": "1",
    "fs.protected_fifos": "2",
    "fs.protected_regular": "2",
    "fs.suid_dumpable": "0",
}
IPV4 = {
    "accept_redirects": "0",
    "send_redirects": "0",
    "secure_redirects": "0",
    "accept_source_route": "0",
    "rp_filter": "1",
    "log_martians": "1",
}
IPV6 = {"accept_redirects": "0", "accept_source_route": "0", "forwarding": "0"}
# What Debian's packages ship set-uid or set-gid; each needs rights that its user has not, and each was looked at for
# years. First what a small system has, then what the agents and file systems of providers bring. dpkg keeps no modes,
# so a list must say it: a bit that somebody adds to another of Debian's programs is as red as a program of his own.
SETUID = set(
    "/usr/bin/chage /usr/bin/chfn /usr/bin/chsh /usr/bin/crontab /usr/bin/expiry /usr/bin/gpasswd /usr/bin/mount "
    "/usr/bin/newgrp /usr/bin/passwd /usr/bin/ssh-agent /usr/bin/su /usr/bin/sudo /usr/bin/umount "
    "/usr/lib/dbus-1.0/dbus-daemon-launch-helper /usr/lib/openssh/ssh-keysign /usr/sbin/unix_chkpwd "
    "/usr/lib/polkit-1/polkit-agent-helper-1 /usr/bin/pkexec "
    "/usr/bin/at /usr/bin/dotlockfile /usr/bin/fusermount3 /usr/bin/newgidmap /usr/bin/newuidmap /usr/bin/ntfs-3g "
    "/usr/bin/plocate /usr/bin/vmware-user-suid-wrapper /usr/bin/wall /usr/bin/write "
    "/usr/sbin/mount.cifs /usr/sbin/mount.nfs "
    "/usr/lib/x86_64-linux-gnu/utempter/utempter /usr/lib/aarch64-linux-gnu/utempter/utempter".split()
)
# Sockets of the product's own services: what everybody may reach, and what stays on the host.
PUBLIC = {"tcp 22", "tcp 80", "tcp 443"}
# What a machine gets its address by and asks for names with, by the program that listens (15 letters of its name).
DHCP = {"dhclient", "dhcpcd", "systemd-network", "NetworkManager"}
RESOLVED = {"systemd-resolve"}
LISTENERS = {"udp 68": DHCP, "udp 546": DHCP}
LOCAL_LISTENERS = {"udp 53": RESOLVED, "tcp 53": RESOLVED}
LOCAL = {f"tcp {port}" for port in (3000, 3001, 4000, 4001, 6379)}
PLANNED = "active, enabled"  # a timer that runs now and after the next start
DAY = 86400


def sysctl(facts: Facts, evidence: Evidence, name: str, allowed: str) -> None:
    """One setting, of which several values may be good."""
    observed = facts["sysctl"][name]
    holds(evidence, observed in allowed.split("|"), observed, allowed.replace("|", " or "), f"sysctl {name}")


@pytest.mark.control("MFG-OS-01")
def test_debian_13(facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["host"]["version_id"], "13", "/etc/os-release")


@pytest.mark.control("MFG-OS-01")
def test_no_security_update_waits(facts: Facts, evidence: Evidence) -> None:
    none(evidence, facts["waiting"], "apt-get -s upgrade")


@pytest.mark.control("MFG-OS-02")
@pytest.mark.parametrize("package", UNWANTED)
def test_no_needless_package(package: str, facts: Facts, evidence: Evidence) -> None:
    observed = "installed" if package in facts["packages"] else "absent"
    same(evidence, observed, "absent", f"dpkg-query -W {package}")


@pytest.mark.control("MFG-OS-03")
@pytest.mark.parametrize("setting", ["APT::Install-Recommends", "APT::Install-Suggests"])
def test_packages_bring_no_company(setting: str, facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["apt"].get(setting), ["false"], "apt-config dump")


@pytest.mark.control("MFG-OS-03")
def test_unsigned_packages_are_refused(facts: Facts, evidence: Evidence) -> None:
    names = ("APT::Get::AllowUnauthenticated", "Acquire::AllowInsecureRepositories")
    observed = {name: facts["apt"][name][-1] for name in names if name in facts["apt"]}
    good = all(value in ("0", "false", "no") for value in observed.values())
    holds(evidence, good, observed, "off, or not set", "apt-config dump")


@pytest.mark.control("MFG-OS-04")
def test_sources_name_their_keys(facts: Facts, evidence: Evidence) -> None:
    observed = [source["uri"] for source in facts["sources"] if not (source["signed_by"] and source["key_safe"])]
    none(evidence, observed, "/etc/apt/sources.list.d")


@pytest.mark.control("MFG-OS-05")
def test_only_our_sockets(facts: Facts, evidence: Evidence) -> None:
    """A socket of the host alone has a loopback address."""
    wrong = []
    for line in facts["sockets"]:
        protocol, place, program = line.split(" ", 2)
        address, _, port = place.rpartition(":")
        local, socket = address.startswith(("127.", "[::1]")), f"{protocol} {port}"
        known = LISTENERS | LOCAL_LISTENERS if local else LISTENERS
        if socket not in (PUBLIC | LOCAL if local else PUBLIC) and program not in known.get(socket, ()):
            wrong.append(line)
    none(evidence, wrong, "ss -Hltnup")


@pytest.mark.control("MFG-OS-05")
def test_no_unit_failed(facts: Facts, evidence: Evidence) -> None:
    none(evidence, facts["failed_units"], "systemctl --failed")


@pytest.mark.control("MFG-OS-08")
@pytest.mark.parametrize("place", ["/tmp", "/dev/shm"])
def test_no_programs_where_everybody_writes(place: str, facts: Facts, evidence: Evidence) -> None:
    options = facts["mounts"].get(place) or ["not a mount"]
    wanted = {"tmpfs", "nodev", "nosuid", "noexec"}
    same(evidence, sorted(wanted & set(options)), sorted(wanted), f"findmnt {place}")


@pytest.mark.control("MFG-OS-10")
@pytest.mark.parametrize("name", KERNEL)
def test_kernel_keeps_its_secrets(name: str, facts: Facts, evidence: Evidence) -> None:
    sysctl(facts, evidence, name, KERNEL[name])


@pytest.mark.control("MFG-OS-11")
@pytest.mark.parametrize("name", TRACING)
def test_processes_cannot_watch_others(name: str, facts: Facts, evidence: Evidence) -> None:
    sysctl(facts, evidence, name, TRACING[name])


@pytest.mark.control("MFG-OS-12")
@pytest.mark.parametrize("name", LINKS)
def test_links_of_others_lead_nowhere(name: str, facts: Facts, evidence: Evidence) -> None:
    sysctl(facts, evidence, name, LINKS[name])


@pytest.mark.control("MFG-OS-13")
@pytest.mark.parametrize("setting", IPV4)
@pytest.mark.parametrize("interface", ["all", "default"])
def test_ipv4_trusts_no_router(interface: str, setting: str, facts: Facts, evidence: Evidence) -> None:
    sysctl(facts, evidence, f"net.ipv4.conf.{interface}.{setting}", IPV4[setting])


@pytest.mark.control("MFG-OS-13")
@pytest.mark.parametrize(("name", "value"), [("ip_forward", "0"), ("tcp_syncookies", "1")])
def test_ipv4_routes_for_nobody(name: str, value: str, facts: Facts, evidence: Evidence) -> None:
    sysctl(facts, evidence, f"net.ipv4.{name}", value)


@pytest.mark.control("MFG-OS-14")
@pytest.mark.parametrize("setting", IPV6)
@pytest.mark.parametrize("interface", ["all", "default"])
def test_ipv6_trusts_no_router(interface: str, setting: str, facts: Facts, evidence: Evidence) -> None:
    sysctl(facts, evidence, f"net.ipv6.conf.{interface}.{setting}", IPV6[setting])


@pytest.mark.control("MFG-OS-15")
def test_modules_nobody_needs(facts: Facts, evidence: Evidence) -> None:
    wrong = [name for name, does in facts["modules"].items() if not does.startswith("install /bin/false")]
    none(evidence, wrong, "modprobe -nv")


@pytest.mark.control("MFG-OS-16")
def test_no_core_in_a_sign_in(facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["cores"]["hard"], "0", "/etc/security/limits.d")


@pytest.mark.control("MFG-OS-16")
@pytest.mark.parametrize(("setting", "value"), [("Storage", "none"), ("ProcessSizeMax", "0")])
def test_no_core_is_kept(setting: str, value: str, facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["cores"]["coredump"].get(setting), value, "systemd-analyze cat-config systemd/coredump.conf")


@pytest.mark.control("MFG-OS-19")
@pytest.mark.parametrize("kind", ["unowned", "writable"])
def test_every_file_has_one_master(kind: str, facts: Facts, evidence: Evidence) -> None:
    none(evidence, facts["tree"][kind], "find / -xdev")


@pytest.mark.control("MFG-OS-19")
def test_setuid_programs_are_debian_s(facts: Facts, evidence: Evidence, instance: Instance) -> None:
    declared = set(instance.access.privileged_programs)
    none(evidence, sorted(set(facts["tree"]["setuid"]) - SETUID - declared), "find / -xdev -perm /6000")


@pytest.mark.control("MFG-OS-20")
@pytest.mark.parametrize("name", ["passwd", "group", "shadow", "gshadow"])
def test_files_of_accounts(name: str, facts: Facts, evidence: Evidence) -> None:
    """The file and the copy that useradd makes of it."""
    good = (
        {"root:root 0644", "root:root 0600"} if name in ("passwd", "group") else {"root:shadow 0640", "root:root 0600"}
    )
    observed = {path: facts["modes"].get(path) for path in (f"/etc/{name}", f"/etc/{name}-") if path in facts["modes"]}
    whole = f"/etc/{name}" in observed and set(observed.values()) <= good
    holds(evidence, whole, observed, " or ".join(sorted(good)), f"stat /etc/{name} /etc/{name}-")


@pytest.mark.control("MFG-OS-21")
def test_cron_is_root_s(facts: Facts, evidence: Evidence) -> None:
    seen = {path: mode for path, mode in facts["modes"].items() if "cron" in path}
    wrong = [f"{p} {mode}" for p, mode in seen.items() if mode not in ("root:root 0600", "root:root 0700")]
    none(evidence, wrong, "stat /etc/cron*")


@pytest.mark.control("MFG-OS-21")
def test_only_root_has_a_crontab(facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["cron_allow"], ["root"], "cat /etc/cron.allow")


@pytest.mark.control("MFG-OS-22")
def test_the_clock_is_right(facts: Facts, evidence: Evidence) -> None:
    seen = facts["clock"]
    follows = seen["leap"] == "Normal" and seen["sources"] > 0
    good = follows and abs(seen["offset"]) < 0.1 and not seen["others"]
    holds(
        evidence, good, dict(seen), "Normal, less than 0.1 s off, one time daemon", "chronyc tracking, chronyc sources"
    )


@pytest.mark.control("MFG-LOG-01")
@pytest.mark.parametrize("setting", ["Storage", "Compress", "SystemMaxUse", "MaxRetentionSec"])
def test_the_journal_lasts(setting: str, facts: Facts, evidence: Evidence) -> None:
    observed = facts["journal"]["settings"].get(setting, "")
    wanted = {"Storage": "persistent", "Compress": "yes", "SystemMaxUse": r"\d+[MGT]", "MaxRetentionSec": r"\d+day"}
    good = bool(re.fullmatch(wanted[setting], observed))
    if setting == "MaxRetentionSec" and good:
        good = int(observed.removesuffix("day")) >= 180
    holds(evidence, good, observed, f"{wanted[setting]}, 180 days or more", "systemd-analyze cat-config journald.conf")


@pytest.mark.control("MFG-LOG-01")
def test_the_journal_is_on_disk(facts: Facts, evidence: Evidence) -> None:
    same(evidence, facts["journal"]["persistent"], True, "ls /var/log/journal")


@pytest.mark.control("MFG-LOG-04")
def test_logs_are_not_for_everybody(facts: Facts, evidence: Evidence) -> None:
    none(evidence, facts["logs"], "find /var/log -type f")


@pytest.mark.control("MFG-UPD-01")
def test_security_updates_come_by_themselves(facts: Facts, evidence: Evidence, instance: Instance) -> None:
    if not instance.updates.automatic:
        holds(evidence, False, "updates.automatic is false", "true", "instance.yaml")
    apt = facts["apt"]
    origins = [value for value in apt.get("Unattended-Upgrade::Origins-Pattern", []) if value]
    observed = {
        "on": apt.get("APT::Periodic::Unattended-Upgrade"),
        "origins": origins,
        "timer": facts["updates"]["timer"],
    }
    good = observed["on"] == ["1"] and any("-security" in each for each in origins) and observed["timer"] == PLANNED
    holds(evidence, good, observed, "on, for the security archive, by a timer", "apt-config dump")


@pytest.mark.control("MFG-UPD-01")
def test_the_last_update_worked(facts: Facts, evidence: Evidence) -> None:
    """A host that was made today has had no night yet."""
    seen = facts["updates"]
    age = seen["made"] if seen["age"] is None else seen["age"]
    holds(evidence, age < 2 * DAY, f"{age / 3600:.0f} hours", "48 hours or less", "unattended-upgrades-stamp")


@pytest.mark.control("MFG-UPD-02")
def test_no_restart_waits(facts: Facts, evidence: Evidence) -> None:
    waited = facts["updates"]["reboot"]
    holds(evidence, waited is None or waited < 7 * DAY, waited, "none, or for less than 7 days", "/run/reboot-required")
