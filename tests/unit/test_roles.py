"""Every role: its files render with nothing undefined, units read files that somebody writes, secrets stay narrow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from pyinfra.api import StringCommand

from mastodon_gov.instance import Node
from mastodon_gov.instance.flows import outgoing
from roles.backups import role as backups
from roles.base import role as base
from roles.base import system
from roles.certificates import role as certificates
from roles.firewall import role as firewall
from roles.lib.files import Entry, FileStates, ManagedFile
from roles.lib.live import live
from roles.mail import role as mail
from roles.mastodon import role as mastodon
from roles.nginx import role as nginx
from roles.postgresql import role as postgresql
from roles.redis import role as redis
from roles.ssh import role as ssh
from tests.unit.locally import commands, shell
from tests.unit.storage_sample import CIPHER, RELAY_PASSWORD, WRITER, instance, node_of, secrets

MEMORY = 1024  # MiB
# Files that units read and that a package, the release or another step writes.
ELSEWHERE = ("/etc/mastodon-gov/tls/", "/etc/ssl/certs/", "/usr/share/", "/etc/letsencrypt/")

FILES: dict[str, Callable[[Node], list[Entry]]] = {
    "base": base.files,
    "ssh": lambda node: [*ssh.files(node), ssh.config(node)],
    "firewall": lambda node: [*firewall.files(), firewall.config(node)],
    "certificates": certificates.files,
    "mail": mail.files,
    "postgresql": lambda node: [*postgresql.cluster_files(), *postgresql.files(node, MEMORY)],
    "backups": lambda node: backups.files(node, 4096),
    "redis": redis.files,
    "mastodon": mastodon.files,
    "nginx": nginx.files,
}
UNITS = {
    "base": base.UNITS,
    "ssh": ssh.UNITS,
    "firewall": firewall.UNITS,
    "certificates": certificates.UNITS,
    "mail": mail.UNITS,
    "postgresql": postgresql.UNITS,
    "backups": backups.UNITS,
    "redis": redis.UNITS,
    "mastodon": mastodon.UNITS,
    "nginx": nginx.UNITS,
}


def sample() -> Node:
    """One host with every part of the instance."""
    return node_of(instance(), secrets())


@pytest.mark.parametrize("role", FILES)
def test_files_render_and_do_not_collide(role: str) -> None:
    """An undefined name in a template is an error, and one path has one owner."""
    paths = [entry.path for entry in FILES[role](sample())]
    assert paths
    assert len(paths) == len(set(paths))


def test_no_file_belongs_to_two_roles() -> None:
    """Directories may be shared; what is in a file is one role's decision."""
    owners: dict[str, str] = {}
    for role, files in FILES.items():
        for entry in files(sample()):
            if isinstance(entry, ManagedFile):
                assert owners.setdefault(entry.path, role) == role, entry.path


@pytest.mark.parametrize("role", UNITS)
def test_units_read_files_that_are_written(role: str) -> None:
    """A path with a typing error would never cause a restart."""
    written = {entry.path for entry in FILES[role](sample())}
    for unit in UNITS[role]:
        for path in unit.reads:
            assert path in written or path.startswith(ELSEWHERE), (
                f"{unit.name} reads {path}, which {role} does not write"
            )


@pytest.mark.parametrize("role", FILES)
def test_files_with_secrets_are_narrow(role: str) -> None:
    """Nobody but the owner and one group reads a file in which a secret stands."""
    values = (CIPHER, WRITER, RELAY_PASSWORD, "media-secret")
    for entry in FILES[role](sample()):
        if isinstance(entry, ManagedFile) and any(value in entry.content for value in values):
            assert entry.mode & 0o027 == 0, f"{entry.path} is {entry.mode:o}"


def test_the_bucket_owners_key_is_in_no_file() -> None:
    """It can undo every protection of the backups, so it stays on the control node."""
    key = sample().secrets.object_storage.owner.secret_key.get_secret_value()
    for files in FILES.values():
        for entry in files(sample()):
            assert not isinstance(entry, ManagedFile) or key not in entry.content, entry.path


def test_every_flow_is_a_rule_and_nothing_else_is() -> None:
    """The firewall has exactly the table's rules for outgoing connections, each once."""
    text = firewall.config(sample()).content
    rules = [rule for flow in outgoing(sample().instance) for rule in firewall.rules(flow)]
    assert rules
    chain = text.split("chain output")[1].split("jump deny")[0]
    allowed = [line.strip() for line in chain.splitlines() if line.strip().endswith("accept")]
    fixed = [line for line in allowed if line.startswith(("ct ", "oif lo", "icmpv6 ")) or "tcp sport 22" in line]
    assert sorted(set(allowed) - set(fixed)) == sorted(set(rules))


@pytest.mark.parametrize(
    ("seen", "planned"),
    [((3880, 3919, 3960), 1792), ((15700, 15980, 16100), 7168), ((1930, 1967, 1990), 896), ((460, 480), 224)],
)
def test_another_kernel_does_not_restart_the_database(seen: tuple[int, ...], planned: int) -> None:
    """What virtual machines of 4, 16, 2 and half a GiB show under different kernels, in MiB."""
    assert {postgresql.share(total) for total in seen} == {planned}
    assert planned * 2 > seen[0] * 0.75


def test_the_user_of_a_cloud_image_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless instance.yaml names the same person; a run that was killed in the middle is repeated."""
    rule, kept = tmp_path / "rule", tmp_path / "usermod-words"
    rule.write_text("# User rules for debian\ndebian ALL=(ALL) NOPASSWD:ALL\nalice ALL=(ALL) NOPASSWD:ALL\n")
    for name, text in {"id": "exit 0", "usermod": f'echo "$@" >> {kept}'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    person = {
        "name": "alice",
        "keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g a"],
    }
    access = {**instance().access.model_dump(mode="json"), "administrators": [person]}
    asked = [each for each in system.mended(node_of(instance(access=access), secrets())) if system.CLOUD in each.look]
    here = [
        replace(each, look=each.look.replace(system.CLOUD, str(rule)), mend=each.mend.replace(system.CLOUD, str(rule)))
        for each in asked
    ]
    assert [shell(command).returncode for command in commands(lambda: live(name="x", wanted=here))] == [0]
    assert kept.read_text() == "--shell /usr/sbin/nologin debian\n"
    assert not rule.exists()
    assert commands(lambda: live(name="x", wanted=here)) == []


def test_a_new_redis_password_is_taken_beside_the_old_one_until_the_slots_are_swapped() -> None:
    """Also after a run that died in between; what somebody else wrote into the file is gone at once."""

    def node(password: str) -> Node:
        return node_of(instance(), secrets(redis={"password": password * 40}))

    def written(current: ManagedFile, digests: list[str]) -> list[str]:
        facts = {FileStates: {redis.USERS: current.state}, redis.Digests: digests}
        todo = commands(lambda: redis.users_beside(name="x", node=node("n")), facts)
        return [str(command.connector_arguments["_stdin"]) for command in todo]

    old, new = (sha256(letter.encode() * 40).hexdigest() for letter in "on")
    [both] = written(redis.users(node("o")), [old])
    assert f"user mastodon on #{new} #{old} ~* " in both
    assert written(ManagedFile(redis.USERS, both, "redis", "redis", 0o640), [new, old]) == []
    assert written(redis.users(node("n")), []) == []
    only = redis.users(node("n")).content
    assert f"user mastodon on #{new} ~* " in only
    assert old not in only
    assert written(ManagedFile(redis.USERS, f"{only}user eve on nopass +@all\n"), [new]) == [only]


def test_digests_are_read_from_the_file_of_users(tmp_path: Path) -> None:
    """Mastodon's alone."""
    place = tmp_path / "users.acl"
    place.write_text(redis.users(sample(), ["b" * 64, "a" * 64]).content)
    done = shell(StringCommand(redis.Digests().command().replace(redis.USERS, str(place))))
    assert redis.Digests().process(done.stdout.splitlines())[1:] == ["a" * 64, "b" * 64]
    place.unlink()
    assert shell(StringCommand(redis.Digests().command().replace(redis.USERS, str(place)))).returncode == 0
