"""What makes a machine itself: host name, addresses, resolvers, host key, and who may sign in as root."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from mastodon_gov.lab.machine import Machine
from mastodon_gov.lab.network import address4, address6
from mastodon_gov.lab.state import Places

NETWORK = """[Match]
Name=host0

[Network]
IPv6AcceptRA=no
LinkLocalAddressing=ipv6
Gateway={gateway}

[Address]
Address={address4}/24

[Address]
Address={address6}/64
DuplicateAddressDetection=none
"""
HOSTS = """127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
{address4} {name}
{address6} {name}
"""
SSH_CONFIG = """Host {name}
  HostName {address}
  User root
  IdentityFile {places.root_key}
  IdentitiesOnly yes
  UserKnownHostsFile {places.known_hosts}
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  UpdateHostKeys no
  BatchMode yes
  LogLevel ERROR
  ConnectTimeout 10
  ServerAliveInterval 15
  ServerAliveCountMax 4
  ControlMaster auto
  ControlPath {places.sockets}/%r@%n
  ControlPersist 60s

"""


def make_key(path: Path, comment: str) -> None:
    """Make an ed25519 key pair without a passphrase; keep one that is there."""
    if path.exists() and path.with_name(path.name + ".pub").exists():
        return
    path.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def host_resolvers() -> str:
    """The host's resolv.conf; behind systemd-resolved's stub, the file with the real servers."""
    behind_stub = Path("/run/systemd/resolve/resolv.conf")
    text = Path("/etc/resolv.conf").read_text()
    return behind_stub.read_text() if "127.0.0.53" in text and behind_stub.exists() else text


def write_identity(machine: Machine, resolvers: Sequence[str]) -> None:
    """Write the machine's own files into its overlay, before its first boot."""
    upper = machine.directory / "upper"
    gateway = address4(machine.number, 1)
    addresses = {"address4": machine.address4, "address6": machine.address6}
    _put(upper / "etc/hostname", machine.name + "\n")
    _put(upper / "etc/hosts", HOSTS.format(name=machine.name, **addresses))
    servers = "".join(f"nameserver {r}\n" for r in resolvers)
    _put(upper / "etc/resolv.conf", servers or host_resolvers())
    _put(upper / "etc/machine-id", "")
    _put(upper / "etc/systemd/network/10-lab.network", NETWORK.format(gateway=gateway, **addresses))
    key = machine.directory / "ssh_host_ed25519_key"
    make_key(key, machine.name)
    _put(upper / "etc/ssh/ssh_host_ed25519_key", key.read_text(), 0o600)
    _put(upper / "etc/ssh/ssh_host_ed25519_key.pub", key.with_suffix(".pub").read_text())
    public = machine.places.root_key.with_suffix(".pub").read_text()
    _put(upper / "root/.ssh/authorized_keys", public, 0o600)
    (upper / "root").chmod(0o700)
    (upper / "root/.ssh").chmod(0o700)


def _put(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    path.unlink(missing_ok=True)
    path.touch(mode)
    path.chmod(mode)
    path.write_text(text)


def write_ssh_files(places: Places, machines: Sequence[Machine]) -> None:
    """ssh_config and known_hosts for all machines of the lab, each replaced in one step."""
    config, known = "", ""
    for machine in machines:
        config += SSH_CONFIG.format(name=machine.name, address=machine.address4, places=places)
        kind, key, *_ = (machine.directory / "ssh_host_ed25519_key.pub").read_text().split()
        known += f"{machine.name},{machine.address4},{machine.address6} {kind} {key}\n"
    for path, text in ((places.ssh_config, config), (places.known_hosts, known)):
        draft = path.with_name(path.name + ".new")
        draft.write_text(text)
        draft.rename(path)
    places.sockets.mkdir(exist_ok=True, mode=0o700)


def make_directories(directory: Path) -> None:
    """Make the empty directories of a new machine."""
    for part in ("upper", "work", "root"):
        (directory / part).mkdir(parents=True)
    (directory / "upper").chmod(0o755)


def lab_resolvers(dns: Sequence[str], known: dict[str, int], number: int) -> list[str]:
    """Resolver addresses; a machine's name stands for its two addresses."""
    found: list[str] = []
    for entry in dns:
        index = known.get(entry)
        found += [entry] if index is None else [address4(number, index), address6(number, index)]
    return found
