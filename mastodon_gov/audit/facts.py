"""What the facts programs of the hosts say, over one kept SSH connection a host: one remote command for each role."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import testinfra

from mastodon_gov.errors import Refusal
from mastodon_gov.instance import Instance
from mastodon_gov.remote import UNREACHABLE, Host

PROGRAMS = "/usr/local/lib/mastodon-gov/facts"
TIMEOUT = 60  # seconds a facts program may take
AT_ONCE = 4  # programs of one host that run at the same time; sshd allows ten sessions on a connection
# The inventory's group whose hosts have a role; roles that are not named are on every host.
GROUP_OF = {
    "postgresql": "database",
    "backups": "database",
    "redis": "redis",
    "mastodon": "mastodon",
    "object_storage": "mastodon",
    "nginx": "proxy",
}


class CouldNotLook(Exception):  # not an error of the check: it becomes "not run"
    """A fact could not be observed; the text says why."""


class Foreseen(CouldNotLook):
    """It could not, and that was known before: it stands on the pinned list, needs a kernel, or is a probe."""


class Facts(dict[str, Any]):
    """A part of what a program said. Taking out what could not be looked at raises CouldNotLook, at any depth."""

    def __getitem__(self, key: str) -> Any:
        if key not in self:
            raise CouldNotLook(f"The facts program says nothing of {key}; deploy, so that host and audit fit.")
        return seen(super().__getitem__(key))

    def get(self, key: str, default: Any = None) -> Any:
        """As a dict's, but never something that could not be looked at."""
        return self[key] if key in self else default  # noqa: SIM401  # dict.get would go past our own look

    def values(self) -> Any:
        """As above."""
        return [self[key] for key in self]

    def items(self) -> Any:
        """As above."""
        return [(key, self[key]) for key in self]


def seen(value: Any) -> Any:
    """The value, in which nested parts are Facts. Raises CouldNotLook for `{"error": sentence}`."""
    if isinstance(value, dict):
        if set(value) == {"error"}:
            raise CouldNotLook(str(value["error"]))
        return Facts(value)
    return [seen(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Account:
    """Who asks: the account on the hosts, and its key (without one, SSH's own choice)."""

    name: str
    key: Path | None


class Hosts:
    """Kept connections to the hosts of an instance, and what was asked over them. Use as a context."""

    def __init__(self, directory: Path, instance: Instance, names: Iterable[str], account: Account) -> None:
        self.names, self.commands = list(names), 0
        self.unreachable: dict[str, str] = {}
        self.clocks: dict[str, float] = {}
        self._told: dict[tuple[str, str], dict[str, Any]] = {}
        # Short: the path of a socket may have 107 characters.
        self._place = Path(tempfile.mkdtemp(prefix="mfg-"))
        self._config = self._place / "ssh_config"
        addresses = {name: Host(name, directory, instance).address for name in self.names}
        self._config.write_text(_ssh_config(directory, addresses, account, self._place))

    def __enter__(self) -> Hosts:
        return self

    def __exit__(self, *_: object) -> None:
        for name in self.names:
            words = ["ssh", "-F", str(self._config), "-O", "exit", name]
            subprocess.run(words, capture_output=True, check=False)
        shutil.rmtree(self._place, ignore_errors=True)

    def connection(self, name: str) -> Any:
        """testinfra's host on the kept connection, without sudo."""
        return testinfra.get_host(f"ssh://{name}", ssh_config=str(self._config), timeout=15)

    def fetch(self, wanted: Iterable[tuple[str, str]]) -> None:
        """Ask hosts for the facts of roles. The first question opens a host's connection, the others share it."""
        by_host: dict[str, list[str]] = {}
        for host, role in wanted:
            by_host.setdefault(host, []).append(role)
        for host, roles in by_host.items():
            self._told[host, roles[0]] = self._ask(host, roles[0])
            with ThreadPoolExecutor(AT_ONCE) as pool:
                rest = roles[1:]
                answers = pool.map(lambda role, host=host: self._ask(host, role), rest)
                self._told |= {(host, role): answer for role, answer in zip(rest, answers, strict=True)}

    def facts(self, host: str, role: str) -> Facts:
        """What the program of a role said on a host. Raises CouldNotLook when it said nothing that can be read."""
        if (host, role) not in self._told:
            self.fetch([(host, role)])
        told: Facts = seen(self._told[host, role])
        return told

    def session(self) -> dict[str, Any]:
        """What the report says of the run itself; see results.Session."""
        known = {}
        for name in self.names:
            try:
                known[name] = dict(self.facts(name, "base")["host"])
            except CouldNotLook as why:
                known[name] = {"error": str(why)}
        return {"commands": self.commands, "unreachable": self.unreachable, "hosts": known, "clocks": self.clocks}

    def _ask(self, host: str, role: str) -> dict[str, Any]:
        if why := self.unreachable.get(host):
            return {"error": why}
        self.commands += 1
        before = time.time()
        try:
            done = self.connection(host).run(f"timeout {TIMEOUT} sudo -n {PROGRAMS}/{role}")
        except RuntimeError as error:  # testinfra's word for ssh's own exit code
            told = getattr(error.args[0], "stderr", "").strip() if error.args else ""
            self.unreachable[host] = f"{host}: no SSH connection ({told or f'ssh ended with {UNREACHABLE}'})."
            return {"error": self.unreachable[host]}
        answer = _read(host, role, done.rc, done.stdout, done.stderr)
        if isinstance(answer.get("time"), float):
            self.clocks[host] = round(answer["time"] - min(max(answer["time"], before), time.time()), 3)
        return answer


def _ssh_config(directory: Path, addresses: dict[str, str], account: Account, place: Path) -> str:
    common = f"""Host *
  User {account.name}
  BatchMode yes
  ConnectTimeout 15
  StrictHostKeyChecking yes
  UserKnownHostsFile "{directory / "known_hosts"}"
  LogLevel ERROR
  ControlMaster auto
  ControlPersist 60
  ControlPath {place}/%C
"""
    if account.key:
        common += f'  IdentityFile "{account.key}"\n  IdentitiesOnly yes\n'
    return "".join(f"Host {name}\n  HostName {address}\n" for name, address in addresses.items()) + common


def _read(host: str, role: str, code: int, out: str, err: str) -> dict[str, Any]:
    """A program's answer, or an error in words; what it printed otherwise is not shown, it may be anything."""
    last = err.strip().splitlines()[-1] if err.strip() else "it said nothing"
    if "command not found" in last:
        return {"error": f"{host}: the role {role} has not put its facts program there; deploy."}
    if code and ("a password is required" in err or "not allowed" in err):
        return {"error": f"{host}: this account may not run {PROGRAMS}/{role} with sudo; deploy, then try again."}
    if code:
        return {"error": f"{host}: {PROGRAMS}/{role} ended with {code}: {last[:300]}"}
    try:
        told = json.loads(out)
    except ValueError:
        return {"error": f"{host}: {PROGRAMS}/{role} printed {len(out)} characters that are not JSON; deploy again."}
    if not isinstance(told, dict):
        return {"error": f"{host}: {PROGRAMS}/{role} printed JSON that is not a group of facts; deploy again."}
    return told


def hosts_of(role: str, members: dict[str, list[str]]) -> list[str]:
    """Hosts that a role is on. Raises Refusal when the inventory has no host at all."""
    every = list(dict.fromkeys(name for names in members.values() for name in names))
    if not every:
        raise Refusal("inventory.py: found no host. Allowed: at least one host in a group. Add yours.")
    return members.get(GROUP_OF[role], []) if role in GROUP_OF else every
