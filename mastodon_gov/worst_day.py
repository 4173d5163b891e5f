"""The worst day: an empty host becomes the instance again, from the bucket, a recipient's key and the bundle."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from mastodon_gov import secrets
from mastodon_gov.backups.manifest import differing, read_manifests
from mastodon_gov.deploying import Progress, run_roles
from mastodon_gov.errors import Refusal
from mastodon_gov.instance.load import load
from mastodon_gov.inventory import identity_path
from mastodon_gov.migrations import number
from mastodon_gov.release.select import selected
from mastodon_gov.remote import Host
from mastodon_gov.restore import PROGRAM
from mastodon_gov.runner import ROOT, last_words

PLACE = ROOT / "roles/restore/place.py"
LOOK = """cat /var/lib/mastodon-gov/restore.json 2>/dev/null && exit
[ ! -e /opt/mastodon/current ] || { echo full; exit; }
runuser -u postgres -- psql -XAtqc 'select 1' >/dev/null 2>&1 && echo full; true
"""


def phases(directory: Path, host: Host, asked: list[str]) -> dict[str, float]:
    """Bring the host to a serving, held instance; seconds of each phase. Every phase may be repeated."""
    done, took = _done(host), {}

    def phase(name: str, work: Any) -> None:
        began = time.monotonic()
        work()
        took[name] = round(time.monotonic() - began, 1)
        click.echo(f"{took[name]:7.1f} s  === {name}", err=True)

    if "hold" not in done:
        phase("secrets and release", lambda: _fits(directory, asked))
        phase("host", lambda: _deploy(directory, PLACE))
        phase("database, from the bucket", lambda: host.follow([PROGRAM, "beside", *asked]))
    if "check" not in done:
        phase("database in place", lambda: host.follow([PROGRAM, "switch"]))
    phase("everything else", lambda: _deploy(directory, ROOT / "deploy.py"))
    click.echo(f"{sum(took.values()):7.1f} s  === it serves; feeds and the first backup follow", err=True)
    phase("feeds and first backup", lambda: host.follow([PROGRAM, "switch"]))
    return took


def _done(host: Host) -> dict[str, Any]:
    """Steps of an interrupted run. Raises Refusal for a host that is not empty."""
    told = host.run(["sh", "-c", LOOK]).strip()
    if told == "full":
        raise Refusal(
            f"{host.name}: it holds an instance already. --onto-empty is for an empty host; on this one use "
            "`mastodon-gov restore --to`, which keeps the database that is there. Nothing was changed."
        )
    done: dict[str, Any] = json.loads(told)["done"] if told else {}
    return done


def _fits(directory: Path, asked: list[str]) -> None:
    """Refuse secrets and releases that are not of these backups, before anything is written anywhere."""
    instance = load(directory)
    known = secrets.read(directory, identity_path(directory))
    as_of = datetime.fromisoformat(asked[-1] + ":00") if "--as-of" in asked else None
    to = datetime.fromisoformat(asked[1] + ":00") if asked[0] == "time" else as_of or datetime.now(UTC)
    when = to.timestamp()
    manifests = read_manifests(instance, known, as_of)
    if not manifests:
        click.echo("The bucket holds no manifest with a right seal: secrets and release cannot be compared.", err=True)
        return
    # Of the backup the restore begins with; what it says of secrets holds although it may speak of a later moment.
    manifest = next((each for each in reversed(manifests) if each["stop"] <= when), manifests[0])
    if wrong := differing(manifest, known):
        raise Refusal(
            f"secrets.age: {', '.join(wrong)} are not those of the backup {manifest['label']}; nobody with a second "
            "factor could sign in. Use the configuration of that time (`fetch-configuration`). Nothing was changed."
        )
    release = selected(instance, directory)
    if manifest["release"] and number(manifest["release"]["version"]) > number(release.version):
        raise Refusal(
            f"release in instance.yaml is {release.version}, and the backup {manifest['label']} was made by "
            f"{manifest['release']['version']}. Write that version and put its bundle into releases/. "
            "Nothing was changed."
        )


def _deploy(directory: Path, deploy: Path) -> None:
    run = run_roles(directory, Progress(Console(stderr=True, soft_wrap=True)), deploy=deploy)
    if run.failed or not run.hosts:
        raise Refusal(f"{deploy.name} failed on {', '.join(run.failed) or 'no host'}:\n{last_words(run.log)}")
