"""Mail of the host and the probe of the relay; the relay here is a small server of the standard library."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mastodon_gov.relay import here, relay_findings, sentence_of
from roles.lib.files import ManagedFile
from roles.mail.role import files
from tests.unit.storage_sample import RELAY_PASSWORD, certificate, instance, node, secrets

ANSWERS = {
    "EHLO": "250-relay\r\n250-STARTTLS\r\n250 AUTH PLAIN",
    "STARTTLS": "220 go",
    "AUTH": "235 in",
    "DATA": "354 go",
    "QUIT": "221 bye",
}


class Relay:
    """An SMTP server that says what a test tells it to, and remembers what it heard."""

    def __init__(self, pem: Path, answers: dict[str, str]) -> None:
        self.pem, self.answers = pem, {**ANSWERS, **answers}
        self.heard: list[str] = []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        """One connection."""
        try:
            connection, _ = self.server.accept()
            self.talk(connection)
        except OSError:
            return  # the client has left, or the test is over

    def talk(self, connection: socket.socket) -> None:
        """Lines in, answers out."""
        connection.sendall(self.answers.get("greeting", "220 relay").encode() + b"\r\n")
        lines = connection.makefile("rb")
        while line := lines.readline().decode().strip():
            word = line.split()[0].upper()
            self.heard.append(word + line[len(word) :])
            connection.sendall(self.answers.get(word, "250 yes").encode() + b"\r\n")
            if word == "STARTTLS" and self.answers.get(word, "2").startswith("2"):
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(self.pem)
                connection = context.wrap_socket(connection, server_side=True)
                lines = connection.makefile("rb")
            if word == "DATA" and self.answers[word].startswith("354"):
                while (text := lines.readline().decode().strip()) != ".":
                    self.heard.append(text)
                connection.sendall(self.answers.get("message", "250 taken").encode() + b"\r\n")


@contextmanager
def relay(tmp_path: Path, **answers: str) -> Iterator[tuple[Relay, str]]:
    """A running relay and the certificate to trust."""
    pem, text = certificate(tmp_path)
    running = Relay(pem, answers)
    try:
        yield running, text
    finally:
        running.server.close()


def findings(port: int, trusted: list[str], **options: Any) -> list[str]:
    """What `check` would say of a relay on this machine; the model wants a name, so the address goes in late."""

    def run(command: Any, given: str) -> str:
        assert not any(RELAY_PASSWORD in word for word in command)
        return here(command, json.dumps({**json.loads(given), "relay": "127.0.0.1", "port": port}))

    at = instance(trusted_ca=tuple(trusted))
    return relay_findings(at, options.pop("secrets", secrets()), run=run, **options)


def test_a_good_relay_gives_no_sentence_and_gets_no_message(tmp_path: Path) -> None:
    with relay(tmp_path) as (running, trusted):
        assert findings(running.port, [trusted]) == []
    assert "RCPT TO:<owner@agency.test>" in running.heard
    assert "DATA" not in running.heard


def test_a_message_is_really_sent_when_asked_for(tmp_path: Path) -> None:
    with relay(tmp_path) as (running, trusted):
        assert findings(running.port, [trusted], send=True) == []
    assert "DATA" in running.heard
    assert "To: owner@agency.test" in running.heard


def test_nothing_secret_is_said_before_tls(tmp_path: Path) -> None:
    with relay(tmp_path) as (running, trusted):
        findings(running.port, [trusted])
    words = [line.split()[0] for line in running.heard]
    assert words.index("STARTTLS") < words.index("AUTH")


def test_a_relay_that_knows_us_by_address(tmp_path: Path) -> None:
    with relay(tmp_path) as (running, trusted):
        assert findings(running.port, [trusted], secrets=secrets(mail={})) == []
    assert not [line for line in running.heard if line.startswith("AUTH")]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"greeting": "554 go away"}, "does not speak with this machine: 554 go away"),
        ({"EHLO": "250 relay"}, "offers no STARTTLS (not offered)"),
        ({"STARTTLS": "454 not now"}, "offers no STARTTLS"),
        ({"AUTH": "535 wrong password"}, "refuses to sign us in: 535 wrong password"),
        ({"MAIL": "550 not yours"}, "refuses the sender social@agency.test (mail.from_address): 550 not yours"),
        ({"RCPT": "554 relaying denied"}, "refuses mail to owner@agency.test (owner.address): 554 relaying denied"),
        ({"message": "552 smells of spam"}, "refused the test message: 552 smells of spam"),
    ],
)
def test_each_refusal_has_its_sentence(tmp_path: Path, answers: dict[str, str], expected: str) -> None:
    with relay(tmp_path, **answers) as (running, trusted):
        found = findings(running.port, [trusted], send=True)
    assert len(found) == 1
    assert expected in found[0]
    assert RELAY_PASSWORD not in found[0]


def test_a_certificate_that_nobody_trusts(tmp_path: Path) -> None:
    with relay(tmp_path) as (running, _):
        assert "shows a certificate that is not trusted: self-signed certificate" in findings(running.port, [])[0]
    assert [line.split()[0] for line in running.heard] == ["EHLO", "STARTTLS"]


def test_a_relay_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "cannot be reached: Connection refused" in findings(port, [])[0]


def test_every_step_of_the_probe_has_a_sentence() -> None:
    for step in ("connect", "greeting", "starttls", "certificate", "login", "sender", "recipient", "message"):
        assert "mail.world.test port 587 (mail.relay)" in sentence_of(instance(), step, 550, "no")


def written() -> dict[str, ManagedFile]:
    """Files by path."""
    return {entry.path: entry for entry in files(node()) if isinstance(entry, ManagedFile)}


def test_the_password_stands_in_one_file_that_only_root_reads() -> None:
    for path, entry in written().items():
        assert (RELAY_PASSWORD in entry.content) == (path == "/etc/msmtprc")
    assert (written()["/etc/msmtprc"].user, written()["/etc/msmtprc"].mode) == ("root", 0o600)


def test_tls_is_never_optional() -> None:
    lines = written()["/etc/msmtprc"].content.splitlines()
    assert {"tls on", "tls_starttls on", "tls_certcheck on"} <= set(lines)
    assert f'password "{RELAY_PASSWORD}"' in lines


def test_mail_of_every_account_goes_to_the_owner() -> None:
    lines = written()["/etc/aliases"].content.splitlines()
    assert {"root: owner@agency.test", "default: owner@agency.test"} <= set(lines)
