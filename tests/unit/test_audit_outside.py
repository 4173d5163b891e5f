"""From outside, without a host: what a machine cannot reach is not open, and what answers a stranger is red."""

from __future__ import annotations

import errno
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from mastodon_gov.audit import stranger
from mastodon_gov.audit.facts import CouldNotLook, Facts, Foreseen
from mastodon_gov.instance import Instance
from tests.compliance import test_firewall as firewall
from tests.compliance import test_outside as outside
from tests.unit.audit_sample import evidence, instance, public_store


class Shell:
    """A host on which every connection is refused, or none is; `sudo` says whether this account has it."""

    def __init__(self, answer: str, sudo: bool = True) -> None:
        self.answer, self.sudo = answer, sudo

    def run(self, words: str) -> SimpleNamespace:
        return SimpleNamespace(rc=int(words.endswith("true") and not self.sudo), stderr=self.answer)


def test_the_probe_asks_for_what_the_table_refuses() -> None:
    """With a public S3 service two accounts may go there; the auditor may not act for them."""

    def asked(user: str, port: int, known: Instance, shell: Shell) -> None:
        firewall.test_others_are_refused(user, port, shell, evidence, known)

    for user in ("postgres", "www-data"):
        asked(user, 443, instance(), Shell("Connection refused"))
        with pytest.raises(Foreseen, match="may go to port 443"):
            asked(user, 443, public_store(), Shell(""))
        with pytest.raises(AssertionError):
            asked(user, 22, public_store(), Shell(""))
    with pytest.raises(AssertionError):
        asked("redis", 443, public_store(), Shell(""))
    with pytest.raises(Foreseen):
        asked("redis", 443, instance(), Shell("", sudo=False))


def listening() -> tuple[socket.socket, int]:
    sock = socket.create_server(("127.0.0.1", 0))
    return sock, sock.getsockname()[1]


def test_only_a_connection_is_an_open_port(monkeypatch: pytest.MonkeyPatch) -> None:
    sock, port = listening()
    with sock:
        monkeypatch.setattr(stranger, "PORTS", (port,))
        assert stranger._open("127.0.0.1") == {port}
    assert stranger._open("127.0.0.1") == set()


class NoNetwork(socket.socket):
    """Of a machine without a way there: the error comes at once, and SO_ERROR is 0 afterwards."""

    def connect_ex(self, _: object) -> int:
        return errno.ENETUNREACH

    def connect(self, _: object) -> None:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")


def test_a_machine_without_ipv6_does_not_see_every_port_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mastodon_gov.audit.stranger.socket.socket", NoNetwork)
    resolved = {"web.test": ["2001:db8::1"]}
    assert stranger.ports({"resolved": resolved}) == {"2001:db8::1": stranger.NO_WAY}
    monkeypatch.undo()
    sock, port = listening()
    with sock:
        monkeypatch.setattr(stranger, "PORTS", (port,))
        monkeypatch.setattr(stranger, "HTTPS", port)
        assert stranger.ports({"resolved": {"web.test": ["127.0.0.1"]}}) == {"127.0.0.1": [port]}


def test_the_address_that_answers_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lexically first one may be of a network that this machine has no way to."""
    monkeypatch.setattr(stranger, "_answers", lambda address: address == "203.0.113.7")
    found = stranger.answering_first({"web.test": ["2001:db8::1", "203.0.113.7"], "media.test": ["2001:db8::1"]})
    assert found == {"web.test": ["203.0.113.7", "2001:db8::1"], "media.test": ["2001:db8::1"]}


def test_ports_are_judged_for_each_version() -> None:
    seen = {"from": "there", "addresses": {"web.test": ["2001:db8::1", "203.0.113.7"]}}

    def judged(version: int, **ports: object) -> None:
        told = {address.replace("_", "."): found for address, found in ports.items()}
        outside.test_only_the_web_answers(version, Facts(seen | {"ports": told}), evidence)

    four: dict[str, Any] = {"203_0_113_7": [80, 443]}
    judged(4, **four, **{"2001:db8::1": stranger.NO_WAY})
    with pytest.raises(Foreseen, match="no IPv6"):
        judged(6, **four, **{"2001:db8::1": stranger.NO_WAY})
    with pytest.raises(CouldNotLook) as why:
        judged(6, **four, **{"2001:db8::1": {"error": "2001:db8::1 cannot be reached from here"}})
    assert not isinstance(why.value, Foreseen)
    with pytest.raises(AssertionError):
        judged(6, **four, **{"2001:db8::1": [22, 80, 443]})


def test_a_bucket_that_answers_a_list_is_red() -> None:
    """nginx answers 404 whatever the bucket's policy is; the service itself is asked."""
    bucket = instance().object_storage.media_bucket

    def judged(answer: dict[str, object], known: Instance) -> None:
        facts = Facts({"storage": {f"GET /{bucket}?list-type=2": answer}})
        outside.test_buckets_cannot_be_listed("media", facts, evidence, known)

    judged({"status": 403, "body": "<Code>AccessDenied</Code>"}, instance())
    for wrong in (
        {"status": 200, "body": "<ListBucketResult>"},
        {"status": 301, "body": ""},
        {"status": 0, "body": ""},
    ):
        with pytest.raises(AssertionError):
            judged(wrong, instance())
    with pytest.raises(Foreseen, match="private address"):
        judged({"error": "s3.world.test cannot be reached from here"}, instance())
    with pytest.raises(CouldNotLook) as why:
        judged({"error": "s3.example.org cannot be reached from here"}, public_store())
    assert not isinstance(why.value, Foreseen)


def test_nobody_puts_or_deletes() -> None:
    name = f"PUT https://media/{stranger.PROBE}"
    outside.test_nothing_is_put_or_deleted(
        "media name", "PUT", Facts({"storage": {name: {"status": 403}}}), evidence, instance()
    )
    words = f"DELETE /{instance().object_storage.media_bucket}/{stranger.PROBE}"
    with pytest.raises(AssertionError):
        outside.test_nothing_is_put_or_deleted(
            "media_bucket", "DELETE", Facts({"storage": {words: {"status": 204}}}), evidence, instance()
        )
