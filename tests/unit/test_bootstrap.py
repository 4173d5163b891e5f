"""The first contact: which key is believed, and under which addresses the later verbs find it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mastodon_gov.bootstrap import prepare
from mastodon_gov.errors import Refusal
from mastodon_gov.instance import Instance
from mastodon_gov.remote import Host
from tests.unit.storage_sample import instance

SIX, FOUR = "fd00:99::11", "192.0.2.11"
# `ssh-keyscan` shows the host's key at any address, `ssh` keeps its words and says what the script says at its end.
KEYSCAN = '#!/bin/sh\nfor at; do :; done\necho "$at $(cut -d" " -f1,2 {place}/host.pub)"\n'
SSH = '#!/bin/sh\necho "$@" > {place}/ssh-words\necho ready\n'


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An instance directory, beside programs that stand for a host."""
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "host")]
    subprocess.run(words, check=True)
    for name, text in {"ssh-keyscan": KEYSCAN, "ssh": SSH}.items():
        (tmp_path / name).write_text(text.format(place=tmp_path))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def at(*addresses: str) -> Instance:
    """An instance whose addresses.yaml lists these for its host."""
    return instance(addresses={"social": addresses} if addresses else {})


def fingerprint(place: Path) -> str:
    """As the console of the host shows it."""
    words = ["ssh-keygen", "-l", "-f", str(place / "host.pub")]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[1]


def known(place: Path, address: str) -> bool:
    """Whether ssh would believe the host at this address."""
    words = ["ssh-keygen", "-F", address, "-f", str(place / "known_hosts")]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("addresses", [(SIX, FOUR), (FOUR, SIX), (SIX,), ()])
def test_the_key_is_known_where_later_verbs_sign_in(place: Path, addresses: tuple[str, ...]) -> None:
    """In whatever order addresses.yaml lists them."""
    here = at(*addresses)
    prepare(here, place, "social", "root", None, fingerprint(place))
    later = Host("social", place, here).address
    assert f"root@{later} " in (place / "ssh-words").read_text()
    assert all(known(place, address) for address in {later, "social", *addresses})
    before = (place / "known_hosts").read_text()
    prepare(here, place, "social", "root", None, None)
    assert (place / "known_hosts").read_text() == before


@pytest.mark.parametrize("given", [None, "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"])
def test_a_key_that_nobody_compared_is_not_believed(place: Path, given: str | None) -> None:
    """The sentence shows it, and how to go on."""
    with pytest.raises(Refusal, match="--fingerprint SHA256:") as refusal:
        prepare(at(FOUR), place, "social", "debian", None, given)
    assert str(refusal.value).endswith(fingerprint(place))
    assert not (place / "known_hosts").exists()
    assert not (place / "ssh-words").exists()


def test_a_cloud_image_s_user_becomes_root(place: Path) -> None:
    """Without a question that nobody could answer."""
    prepare(at(FOUR), place, "social", "debian", place / "host", fingerprint(place))
    told = (place / "ssh-words").read_text()
    assert f"-i {place}/host " in told
    assert f"debian@{FOUR} sudo -n sh -c " in told
