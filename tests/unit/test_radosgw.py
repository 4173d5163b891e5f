"""The role radosgw: what is missing is made, what is settled is left alone."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from mastodon_gov.lab.world import WORLD_PACKAGES
from roles.lib.files import ManagedFile
from roles.radosgw import role
from roles.radosgw.role import Storage, StorageState, User

STORAGE = Storage("s3.agency.example", "/etc/ssl/s3.pem", "/etc/ssl/s3.key", (User("owner", True), User("media")))


def commands(monkeypatch: pytest.MonkeyPatch, operation: Any, state: dict[str, Any], *arguments: Any) -> list[str]:
    """What the operation would run on a host in this state."""

    class Host:
        def get_fact(self, fact: object) -> dict[str, Any]:
            assert fact is StorageState
            return state

    monkeypatch.setattr(role, "host", Host())
    return [command.get_raw_value() for command in operation._inner(*arguments)]


@pytest.mark.parametrize("missing", [["mon"], ["rgw"], ["all"]])
def test_missing_parts_are_made(monkeypatch: pytest.MonkeyPatch, missing: list[str]) -> None:
    assert commands(monkeypatch, role.cluster, {"missing": missing, "users": {}}) == [f"{role.PROGRAM} cluster"]


def test_whole_cluster_and_right_users_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"missing": [], "users": {"owner": 1000, "media": -1, "former": None}}
    assert commands(monkeypatch, role.cluster, state) == []
    assert commands(monkeypatch, role.users, state, list(STORAGE.users)) == []


@pytest.mark.parametrize("media", [5, 0, None])
def test_wrong_user_is_set_right_and_undeclared_one_suspended(monkeypatch: pytest.MonkeyPatch, media: int) -> None:
    state = {"missing": [], "users": {"owner": 1000, "media": media, "former": -1}}
    wanted = [f"{role.PROGRAM} user media -1", f"{role.PROGRAM} suspend former"]
    assert commands(monkeypatch, role.users, state, list(STORAGE.users)) == wanted


def test_fact_reads_what_the_program_prints() -> None:
    fact = StorageState()
    assert fact.process([json.dumps({"missing": [], "users": {"a": -1}})]) == {"missing": [], "users": {"a": -1}}
    assert fact.default()["missing"]


def test_everything_of_ceph_is_told_to_listen_on_loopback() -> None:
    conf = next(entry for entry in role.files(STORAGE) if entry.path == role.CONF)
    assert isinstance(conf, ManagedFile)
    assert set(re.findall(r"\d+\.\d+\.\d+\.\d+", conf.content)) == {"127.0.0.1", "127.0.0.0"}
    assert "tcp_nodelay=1" in conf.content


def test_layer_of_the_lab_has_every_package_of_the_role() -> None:
    assert set(role.PACKAGES) <= set(WORLD_PACKAGES)
