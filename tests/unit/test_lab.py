"""The lab's parts that need no machine: names, keys, choice of addresses, refusals."""

from __future__ import annotations

import datetime
import json
import os
import shutil
from collections import namedtuple
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from click.testing import CliRunner

from mastodon_gov.errors import Refusal
from mastodon_gov.lab import image, network, preflight
from mastodon_gov.lab.build import assign_indexes, check_same
from mastodon_gov.lab.cli import lab as lab_group
from mastodon_gov.lab.identity import lab_resolvers
from mastodon_gov.lab.image import Cache, base_key, layer_key
from mastodon_gov.lab.remove import abandoned, remove_cache
from mastodon_gov.lab.state import (
    LabRecord,
    MachineSpec,
    Places,
    all_labs,
    check_name,
    lock_lab,
    save_record,
    try_lock,
    write_json,
)
from mastodon_gov.lab.world.layer import layer_name


def make_places(state_dir: Path, name: str = "demo") -> Places:
    places = Places(state_dir, name)
    places.machines.mkdir(parents=True)
    return places


def make_record(places: Places, spec: MachineSpec, lowers: list[Path]) -> None:
    places.machine_record(spec.name).parent.mkdir()
    record = {"spec": {**vars(spec)}, "lowers": [str(p) for p in lowers]}
    write_json(places.machine_record(spec.name), record)


# --- preflight ------------------------------------------------------------------------------------------------


def test_not_root_is_one_sentence_and_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    state_dir = tmp_path / "state"
    result = CliRunner().invoke(lab_group, ["up", "--state-dir", str(state_dir)])
    assert isinstance(result.exception, Refusal)
    assert "1234" in str(result.exception)
    assert "sudo" in str(result.exception)
    assert not state_dir.exists()


def test_missing_packages_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.which
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda cmd, **kw: None if cmd == "nft" else real("sh"))
    assert preflight.missing_packages() in (["nftables"], ["nftables", "debian-archive-keyring"])
    with pytest.raises(Refusal, match="apt-get install nftables"):
        preflight.check_host()


def test_too_little_disk_names_both_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(8_900_000_000))
    with pytest.raises(Refusal, match=r"8\.9 GB free; 3 new machines need 9 GB"):
        preflight.check_disk(tmp_path, 3)
    preflight.check_disk(tmp_path, 2)


def test_the_inotify_limit_is_raised_once_and_never_lowered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limit = tmp_path / "max_user_instances"
    monkeypatch.setattr(preflight, "INOTIFY", limit)
    limit.write_text("128\n")
    assert "from 128 to 1024" in str(preflight.raise_inotify_limit())
    assert preflight.raise_inotify_limit() is None
    limit.write_text("8192\n")
    assert preflight.raise_inotify_limit() is None
    assert limit.read_text() == "8192\n"


# --- names and addresses --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "Demo", "1a", "a_b", "../x", "a b", "a" * 31, "cache", "locks", "a\n"])
def test_names_that_would_break_paths_or_host_names_are_refused(name: str) -> None:
    with pytest.raises(Refusal, match="not usable"):
        check_name(name, "lab name")


def test_networks_in_use_are_skipped_whoever_uses_them() -> None:
    addresses = [{"addr_info": [{"family": "inet", "local": "10.89.1.77", "prefixlen": 24}]}]
    addresses.append({"addr_info": [{"family": "inet6", "local": "fe80::1", "prefixlen": 64}]})
    routes = [{"dst": "default"}, {"dst": "10.89.2.128/25"}, {"dst": "10.89.3.9"}, {"dst": "10.0.0.0/8"}]
    taken = network.taken_networks(addresses, routes)
    assert network.choose_number(taken, reserved={4}) == 5


def test_no_free_network_is_refused() -> None:
    with pytest.raises(Refusal, match="no free lab network"):
        network.choose_number([IPv4Network("10.89.0.0/16")], set())


def test_indexes_keep_what_is_made_and_know_the_demo() -> None:
    specs = [MachineSpec("social"), MachineSpec("db"), MachineSpec("extra", index=77), MachineSpec("web")]
    indexes = assign_indexes(specs, {"db": 25, "old": 20})
    assert indexes == {"db": 25, "old": 20, "social": 11, "extra": 77, "web": 21}


def test_two_machines_with_one_address_are_refused() -> None:
    with pytest.raises(Refusal, match="same address"):
        assign_indexes([MachineSpec("a", index=11), MachineSpec("social")], {})


def test_resolvers_may_be_machines() -> None:
    assert lab_resolvers(["world", "192.0.2.1"], {"world": 12}, 7) == ["10.89.7.12", "fd89:7::12", "192.0.2.1"]


# --- keys -----------------------------------------------------------------------------------------------------


def test_base_changes_with_the_week_and_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    sunday, monday = datetime.date(2026, 1, 4), datetime.date(2026, 1, 5)
    assert base_key(sunday) != base_key(monday)
    assert base_key(monday) == base_key(monday + datetime.timedelta(days=6))
    before = base_key(monday)
    monkeypatch.setattr(image, "PACKAGES", (*image.PACKAGES, "vim"))
    assert base_key(monday) != before


def test_layer_depends_on_base_and_packages_not_on_their_order() -> None:
    assert layer_key("2026w01-x", ["b", "a", "a"]) == layer_key("2026w01-x", ["a", "b"])
    assert layer_key("2026w01-x", ["a"]) != layer_key("2026w01-x", ["a", "b"])
    assert layer_key("2026w01-x", ["a"]) != layer_key("2026w01-y", ["a"])


# --- ownership ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ephemeral", "ready", "gone"), [(False, True, False), (True, True, True), (False, False, True)]
)
def test_only_ephemeral_and_never_complete_labs_are_abandoned(
    tmp_path: Path, ephemeral: bool, ready: bool, gone: bool
) -> None:
    places = make_places(tmp_path)
    save_record(places, LabRecord(7, ephemeral, ready))
    assert abandoned(places) is gone


def test_a_second_user_of_a_lab_is_told_who_has_it(tmp_path: Path) -> None:
    places = make_places(tmp_path)
    held = lock_lab(places)
    with pytest.raises(Refusal, match=f"process {os.getpid()}"):
        lock_lab(places)
    os.close(held)
    os.close(lock_lab(places))


def test_a_lock_file_that_was_removed_does_not_count(tmp_path: Path) -> None:
    """Whoever removes a lab removes its lock; a lock on the removed file would protect nothing."""
    path = tmp_path / "lock"
    first = try_lock(path)
    path.unlink()
    second = try_lock(path)
    assert first is not None
    assert second is not None
    assert try_lock(path) is None


def test_a_changed_wish_for_a_made_machine_is_refused(tmp_path: Path) -> None:
    places = make_places(tmp_path)
    spec = MachineSpec("social", layer_packages=("nginx",), index=11)
    make_record(places, spec, [])
    check_same(places, spec)
    with pytest.raises(Refusal, match=r"layer_packages=\['nginx'\]"):
        check_same(places, MachineSpec("social", index=11))


# --- cache ----------------------------------------------------------------------------------------------------


def test_pruning_keeps_this_week_snapshots_and_whatever_is_stood_on(tmp_path: Path) -> None:
    cache, week = Cache(tmp_path), base_key()
    names = ["bases/2020w01-used", "bases/2020w02-free", f"bases/{week}", "layers/2020w01-used", "layers/mine"]
    names.append(f"layers/{check_name(layer_name(), 'layer name')}")
    for name in [*names, "layers/2020w02-free", "layers/world-2020w02-free", "bases/.2020w03-x.new"]:
        (cache.root / name / "upper").mkdir(parents=True)
    (cache.root / "bases/2020w02-free.tar.zst").touch()
    write_json(cache.root / "layers/mine/layer.json", {"lowers": [str(cache.root / "bases/2020w01-used")]})
    lab = make_places(tmp_path)
    make_record(lab, MachineSpec("a"), [cache.root / "layers/2020w01-used/upper"])
    removed = cache.prune(all_labs(tmp_path))
    left = {str(p.relative_to(cache.root)) for kind in ("bases", "layers") for p in (cache.root / kind).iterdir()}
    assert left == set(names) - {"bases/2020w02-free"}
    assert len(removed) == 5


def test_the_cache_is_not_removed_under_a_lab(tmp_path: Path) -> None:
    make_places(tmp_path, "other")
    (tmp_path / "cache").mkdir()
    with pytest.raises(Refusal, match="in use by lab other"):
        remove_cache(tmp_path)
    assert (tmp_path / "cache").exists()


def test_an_unknown_layer_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    write_json_at = tmp_path / "cache/layers/deployed/layer.json"
    write_json_at.parent.mkdir(parents=True)
    write_json_at.write_text(json.dumps({"lowers": []}))
    with pytest.raises(Refusal, match="known layers: deployed"):
        Cache(tmp_path).lowers("deploid")


def test_an_unknown_lab_is_refused(tmp_path: Path) -> None:
    make_places(tmp_path, "demo")
    result = CliRunner().invoke(lab_group, ["status", "--lab", "dema", "--state-dir", str(tmp_path)])
    assert isinstance(result.exception, Refusal)
    assert "known labs: demo" in str(result.exception)
