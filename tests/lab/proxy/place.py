"""The lab of these tests: a proxy with a toy application, an outside world, and a stranger who asks."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.client import Config

from mastodon_gov.instance import Instance
from mastodon_gov.lab.lab import Lab
from mastodon_gov.lab.machine import Machine
from mastodon_gov.lab.world import WorldFacts
from tests.lab.roles_alone import changed, run_roles
from tests.unit.storage_sample import instance, storage

DEPLOY = Path(__file__).with_name("deploy.py")
WEB, MEDIA = "social.agency.test", "files.social.agency.test"
OTHER_MEDIA = "pictures.agency.test"
CA = "/root/lab-ca.pem"
ALWAYS = {"x-content-type-options": "nosniff", "referrer-policy": "same-origin"}
TOY = Path(__file__).with_name("toy_application.py")
RUN_TOY = "-p DynamicUser=yes python3 /usr/local/bin/toy"
RELEASES = """\
cd /opt && mkdir -p mastodon/new/public/{packs/.vite,emoji} mastodon/old/public/packs && cd mastodon
echo new > new/public/packs/new.js; echo old > old/public/packs/old.js; echo '{}' > new/public/packs/.vite/manifest.json
echo secret > new/public/.env; echo svg > new/public/emoji/1f600.svg; echo robots > new/public/robots.txt
ln -sfn new current; ln -sfn old previous
"""


@dataclass(frozen=True)
class Answer:
    """What curl got; names of headers in small letters, a header sent twice has two values."""

    status: int
    headers: dict[str, list[str]]
    body: str

    def header(self, name: str) -> str:
        """The one value of a header; "" if there is none."""
        values = self.headers.get(name, [])
        assert len(values) < 2, f"{name} twice: {values}"
        return values[0] if values else ""


@dataclass(frozen=True)
class Place:
    """The lab and what belongs to it."""

    lab: Lab
    world: WorldFacts
    told: Path

    @property
    def host(self) -> Machine:
        """The machine that the roles are for."""
        return self.lab.machine("social")

    @property
    def outside(self) -> Machine:
        """A stranger's machine; it trusts the lab's authorities where it says so."""
        return self.lab.machine("outside")

    def instance(self, **changes: Any) -> Instance:
        """The demo's instance, as this lab knows it. Nobody administers from the stranger's machine."""
        here = [self.world.address4, self.world.address6]
        parts: dict[str, Any] = {
            "access": {"networks": [f"{self.host.address4}/32"], "deploy_keys": ["ssh-ed25519 AAAA"]},
            "object_storage": storage(endpoint=self.world.endpoint),
            "addresses": {name: here for name in ("s3.world.test", "mail.world.test", "acme.world.test")},
            "network": {"resolvers": here, "time_servers": ["time.agency.test"]},
            "certificates": {"acme": {"directory": self.world.acme_directory, "contact": "it@agency.test"}},
            "trusted_ca": (self.world.bundle.read_text(),),
        }
        return instance(**{**parts, **changes})

    def deploy(self, *options: str, certificate: Any = None, **changes: Any) -> tuple[Any, str]:
        """Run pyinfra over the roles; returns its report and its log."""
        values = {"instance": json.loads(self.instance(**changes).model_dump_json()), "certificate": certificate or {}}
        return run_roles(self.lab, DEPLOY, self.told, values, *options)

    def settled(self, certificate: Any = None, **changes: Any) -> list[str]:
        """Deploy; returns the names of the operations that changed something, and fails if one failed."""
        report, log = self.deploy(certificate=certificate, **changes)
        assert report, log
        return changed(report)

    def get(self, url: str, *options: str, verify: bool = True) -> Answer:
        """One request from the stranger's machine. `000` as status: no answer at all."""
        trust = ["--cacert", CA] if verify else ["--insecure"]
        words = ["curl", "-sS", "-i", "--raw", "--path-as-is", "--max-time", "20", *trust, *options, url]
        done = self.outside.ssh(words, check=False)
        head, _, body = re.sub(r"\AHTTP/\S+ 100.*?\r\n\r\n", "", done.stdout, flags=re.DOTALL).partition("\n\n")
        if not head:
            return Answer(0, {}, done.stderr)
        headers: dict[str, list[str]] = {}
        for line in head.splitlines()[1:]:
            name, _, value = line.partition(":")
            headers.setdefault(name.strip().lower(), []).append(value.strip())
        return Answer(int(head.split()[1]), headers, body)

    def start_application(self) -> None:
        """A toy on every port of the first slot, and a release with files; one release was there before it."""
        self.host.ssh("cat > /usr/local/bin/toy", stdin=TOY.read_text())
        self.host.ssh(RELEASES)
        for port in (3000, 4000):
            self.host.ssh(f"systemctl is-active -q toy-{port} || systemd-run -q -u toy-{port} {RUN_TOY} {port}")
            listens = f"until : < /dev/tcp/127.0.0.1/{port}; do sleep 0.1; done"
            self.host.ssh(["timeout", "20", "bash", "-c", f"{listens} 2>/dev/null"])

    @contextmanager
    def application_down(self) -> Iterator[None]:
        """No slot serves for the length of the block."""
        self.host.ssh("systemctl stop toy-3000 toy-4000")
        try:
            yield
        finally:
            self.start_application()

    @contextmanager
    def storage(self) -> Iterator[Any]:
        """A client of the world's S3 with the owner's key; the host's own resolver does not know the name."""
        real, key = socket.getaddrinfo, self.world.keys["owner"]

        def known(name: Any, *rest: Any, **options: Any) -> Any:
            return real(self.world.address4 if str(name).endswith(".world.test") else name, *rest, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", known)
            yield boto3.client(
                "s3",
                endpoint_url=self.world.endpoint,
                aws_access_key_id=key.access_key.get_secret_value(),
                aws_secret_access_key=key.secret_key.get_secret_value(),
                region_name="us-east-1",
                verify=str(self.world.bundle),
                config=Config(s3={"addressing_style": "path"}),
            )

    def trust(self) -> None:
        """Give the stranger the lab's authorities."""
        self.outside.ssh(f"cat > {CA}", stdin=self.world.bundle.read_text())


def told(answer: Answer) -> dict[str, Any]:
    """What the toy application says has reached it."""
    found: dict[str, Any] = json.loads(answer.body)
    return found


def check_headers(answer: Answer) -> None:
    """Each security header exactly once, and of the right strength."""
    hsts = answer.header("strict-transport-security")
    assert int(hsts.removeprefix("max-age=").partition(";")[0]) >= 63072000
    assert {name: answer.header(name) for name in ALWAYS} == ALWAYS
    assert "camera=()" in answer.header("permissions-policy")
    policy = answer.header("content-security-policy")
    assert "unsafe-inline" not in policy
    assert answer.header("x-frame-options") == "DENY"
    assert answer.header("server") == "nginx"
    assert answer.header("x-runtime") == ""
