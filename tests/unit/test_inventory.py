"""The hosts of an instance as pyinfra gets them: complete nodes, pinned host keys, the deploy account."""

from __future__ import annotations

import copy
import runpy
import socket
from pathlib import Path
from typing import Any

import pytest

from mastodon_gov import inventory, secrets
from mastodon_gov.errors import Refusal
from mastodon_gov.instance.node import ReleaseBundle
from tests.unit.instance_sample import good_directory

GIVEN = {name: f"given{number}" for number, name in enumerate(secrets.GIVEN)}
BUNDLE = ReleaseBundle(
    name="test", version="4.6.5", standin=True, archive="/nowhere", signature="", signers="", packages=()
)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good instance directory with secrets; its release needs no archive."""
    monkeypatch.delenv("MASTODON_GOV_IDENTITY", raising=False)
    monkeypatch.setattr(inventory, "selected", lambda *_: BUNDLE)
    place = good_directory(tmp_path / "instance")
    public = secrets.new_identity(place / "identity.txt")
    (place / "recipients.txt").write_text(f"# test\n{public}\n")
    secrets.create(place, GIVEN)
    return place


def groups(directory: Path) -> dict[str, Any]:
    """What the demo's inventory.py defines, as pyinfra sees it: the lists of the module."""
    found = runpy.run_path(str(directory / "inventory.py"))
    return {name: value for name, value in found.items() if isinstance(value, list) and not name.startswith("_")}


def test_every_list_is_a_group_of_hosts_with_their_node(directory: Path) -> None:
    found = groups(directory)
    assert set(found) == {"database", "redis", "mastodon", "proxy"}
    for hosts in found.values():
        ((name, data),) = hosts
        assert name == data["node"].name == "social"
        assert data["node"].groups == set(found)
        assert data["node"].secrets.mail.login.get_secret_value() == GIVEN["mail.login"]


def test_hosts_are_reached_by_address_key_and_pinned_host_key(directory: Path) -> None:
    ((_, data),) = groups(directory)["database"]
    assert data["ssh_hostname"] == "10.99.0.11"
    assert data["ssh_user"] == "deploy"
    assert data["_sudo"] is True
    assert data["ssh_known_hosts_file"] == str(directory / "known_hosts")
    assert data["ssh_strict_host_key_checking"] == "yes"
    assert "ssh_key" not in data
    (directory / "deploy_key").touch()
    ((_, data),) = groups(directory)["database"]
    assert data["ssh_key"] == str(directory / "deploy_key")


def test_a_host_without_listed_address_is_reached_by_name(directory: Path) -> None:
    found = inventory.read_groups(directory, {"database": ["db1.agency.test"]})
    assert found["database"][0][1]["ssh_hostname"] == "db1.agency.test"


def test_a_host_knows_its_groups(directory: Path) -> None:
    found = inventory.read_groups(directory, {"database": ["one"], "redis": ["one"], "mastodon": ["one"]})
    node = {name: data["node"].groups for hosts in found.values() for name, data in hosts}
    assert node == {"one": {"database", "redis", "mastodon"}}


def test_parts_that_would_not_find_each_other_are_refused(directory: Path) -> None:
    """PostgreSQL and Redis listen on the host alone: a deploy would end in the middle of it."""
    with pytest.raises(Refusal, match=r"found the hosts app, db\. Allowed: one host, in every group"):
        inventory.read_groups(directory, {"database": ["db"], "redis": ["db"], "mastodon": ["app"]})


def test_an_unknown_group_is_refused(directory: Path) -> None:
    with pytest.raises(Refusal, match=r"found the group databse\. Allowed: database"):
        inventory.read_groups(directory, {"databse": ["social"]})


def test_copies_of_a_node_cost_nothing(directory: Path) -> None:
    """pyinfra copies host data each time a role looks at it."""
    node = inventory.read_groups(directory, {"database": ["social"]})["database"][0][1]["node"]
    assert copy.copy(node) is node
    assert copy.deepcopy({"node": node})["node"] is node


def test_nobody_can_print_the_secrets_of_a_host(directory: Path) -> None:
    """pyinfra prints host data with `debug-inventory` and in its log."""
    text = str(groups(directory))
    values = secrets.read_values(directory, directory / "identity.txt")
    assert not [name for name, value in values.items() if value in text]


def test_small_packets_do_not_wait(directory: Path) -> None:
    ((_, data),) = groups(directory)["database"]
    factory = data["ssh_paramiko_connect_kwargs"]["transport_factory"]
    ours, theirs = _tcp_pair()
    with ours, theirs:
        factory(ours)
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def _tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    return ours, theirs


@pytest.mark.parametrize("where", ["environment", "beside", "home"])
def test_the_identity_is_looked_for_in_this_order(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    if where == "environment":
        monkeypatch.setenv("MASTODON_GOV_IDENTITY", str(tmp_path / "given.txt"))
        assert inventory.identity_path(directory) == tmp_path / "given.txt"
    elif where == "beside":
        assert inventory.identity_path(directory) == directory / "identity.txt"
    else:
        (directory / "identity.txt").unlink()
        assert inventory.identity_path(directory) == tmp_path / "home/.config/mastodon-gov/identity.txt"


def test_a_refusal_ends_with_sentences_and_wrong_usage(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "secrets.age").unlink()
    with pytest.raises(SystemExit) as ended:
        groups(directory)
    assert ended.value.code == 2
    assert "secrets.age does not exist" in capsys.readouterr().err
