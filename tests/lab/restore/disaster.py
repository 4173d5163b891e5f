"""What a bad day does: the machine gone, or everything that a stolen key can destroy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import md5
from pathlib import Path

import pytest

from mastodon_gov.instance.load import load
from mastodon_gov.lab.build import Builder
from mastodon_gov.lab.demo import REPOSITORY, machines
from mastodon_gov.storage.client import connect, reached
from tests.lab.deployed import Deployed


def machine_gone(doomed: Deployed) -> None:
    """The host and its disk are no more; an empty one stands in its place."""
    lab = doomed.demo.lab
    spec = next(spec for spec in machines(("python3",)) if spec.name == "social")
    lab.machine("social").destroy()
    Builder(lab.places, lab.number, print).complete([spec])


def fetched(doomed: Deployed, place: Path, monkeypatch: pytest.MonkeyPatch, as_of: str = "") -> Deployed:
    """The instance directory again, from the bucket, a key that may read it, and a recipient's identity."""
    world = doomed.demo.world
    monkeypatch.setenv("MASTODON_GOV_IDENTITY", str(doomed.directory / "identity.txt"))
    key = world.keys["backups"]
    words = ["fetch-configuration", "--endpoint", world.endpoint, "--bucket", "social-backups", "--ca"]
    words += [str(world.bundle), "--resolve", f"s3.world.test={world.address4}"]
    words += ["--identity", str(doomed.directory / "identity.txt"), *(["--as-of", as_of] if as_of else [])]
    told = f"{key.access_key.get_secret_value()}\n{key.secret_key.get_secret_value()}\n"
    command = [sys.executable, "-m", "mastodon_gov.cli", "--instance", str(place), *words]
    done = subprocess.run(
        command, cwd=REPOSITORY, input=told, capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    shutil.copy(doomed.demo.lab.known_hosts, place / "known_hosts")
    return Deployed(replace(doomed.demo, directory=place))


def ransom(doomed: Deployed) -> str:
    """Everything in both buckets deleted or overwritten with the hosts' own keys; returns a moment before it."""
    world, instance = doomed.demo.world, load(doomed.directory)
    before = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    time.sleep(1.1)  # the bucket keeps time by the second
    with reached(instance) as bundle:
        for user, bucket in (("backups", "social-backups"), ("media", "social-media")):
            client = connect(instance, world.keys[user], bundle)
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
            for key in [each["Key"] for page in pages for each in page.get("Contents", [])]:
                client.delete_object(Bucket=bucket, Key=key)
                if key.endswith((".info", ".png")):
                    checksum = b64encode(md5(b"pay", usedforsecurity=False).digest()).decode()
                    client.put_object(Bucket=bucket, Key=key, Body=b"pay", ContentMD5=checksum)
    return before
