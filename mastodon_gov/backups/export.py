"""The verb `export`: everything another operator needs to carry the instance on (docs/operator/leaving.md)."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import file_digest
from pathlib import Path
from typing import Any

import click
import pyrage

from mastodon_gov.errors import Refusal
from mastodon_gov.instance import Instance, Secrets
from mastodon_gov.inventory import identity_path
from mastodon_gov.remote import LIB, Host, database_host
from mastodon_gov.secrets import read
from mastodon_gov.storage.client import connect, reached, sentences

DATABASE = "mastodon_production"
OBSERVE = f"{LIB}/backup-manifest"
# Made anew by any server (reference: mastodon-production §8); people's own archives are private and short-lived.
LEFT_OUT = ("cache/", "backups/", "mfg-probe/")
# The table of contents stands first in a dump; that of Mastodon takes less than 1 MB.
HEAD = 16 << 20
# What another operator's server must have to read second factors and signing keys, and to keep people signed in.
CARRIED = (
    "secret_key_base",
    "active_record_encryption_primary_key",
    "active_record_encryption_deterministic_key",
    "active_record_encryption_key_derivation_salt",
    "vapid_private_key",
    "vapid_public_key",
)


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--to", "recipient", metavar="AGE1…", help="Also the secrets, readable by this age recipient alone.")
@click.pass_obj
def export(instance_directory: Path, directory: Path, recipient: str | None) -> None:
    """Write a dump of the database, the list of the media and the identity of the instance into the new directory DIR.

    Changes nothing on the hosts. Secrets are listed by name; their values are written only with --to.
    """
    host = database_host(instance_directory)
    instance, known = host.instance, read(instance_directory, identity_path(instance_directory))
    key = _recipient(recipient)
    observed: dict[str, Any] = json.loads(host.run([OBSERVE, "--observe"]))
    draft = directory.with_name(f".{directory.name}.partial")
    _space(directory, host)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700, parents=True)
    _dump(host, draft / "database.dump")
    (draft / "database.list").write_text(_contents(host, draft / "database.dump"))
    media = _media(instance, known, draft / "media.tsv")
    if key:
        (draft / "secrets.env.age").write_bytes(pyrage.encrypt(_environment(instance, known).encode(), [key]))
    _describe(draft, instance, {**observed, "media": media})
    draft.rename(directory)
    click.echo(
        f"{directory}: {observed['observed']['counts']}, {media['objects']} media. See docs/operator/leaving.md."
    )


def _recipient(text: str | None) -> pyrage.x25519.Recipient | None:
    try:
        return pyrage.x25519.Recipient.from_str(text) if text else None
    except pyrage.RecipientError:
        raise Refusal(
            "--to: found no age recipient. Allowed: age1… as the other operator's age-keygen prints it. Copy it again."
        ) from None


def _space(directory: Path, host: Host) -> None:
    """Refuse a directory that is there, and a disk that the whole database would not fit on."""
    if directory.exists():
        raise Refusal(f"{directory} exists, and an export replaces nothing. Name a directory that does not exist yet.")
    size = f"select pg_database_size('{DATABASE}')"
    need = int(host.run(["runuser", "-u", "postgres", "--", "psql", "-XAtqc", size]))
    above = next(place for place in directory.resolve().parents if place.exists())
    free = shutil.disk_usage(above).free
    if free < need:
        raise Refusal(
            f"{above} has {free >> 20} MiB free, and the database takes {need >> 20}. Nothing was written. "
            "Name a directory on a larger disk."
        )


def _dump(host: Host, path: Path) -> None:
    """One snapshot of Mastodon's own schema; the lock in the database stays here, it belongs to this product."""
    words = ["runuser", "-u", "postgres", "--", "pg_dump", "-Fc", "-n", "public", DATABASE]
    with path.open("xb") as stream:
        done = subprocess.run(host.ssh(words), stdout=stream, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise Refusal(f"{host.name}: pg_dump ended with {done.returncode}: {done.stderr.strip()}. Nothing is exported.")


def _contents(host: Host, dump: Path) -> str:
    """The list for `pg_restore -L`: everything but our triggers, whose functions do not travel."""
    with dump.open("rb") as stream:
        head = stream.read(HEAD)
    done = subprocess.run(host.ssh(["pg_restore", "-l"]), input=head, capture_output=True, check=False)
    if done.returncode:
        raise Refusal(f"{host.name}: pg_restore cannot list the dump: {done.stderr.decode(errors='replace').strip()}")
    lines = done.stdout.decode().splitlines()
    return "\n".join(line for line in lines if " TRIGGER public " not in line or " gov_" not in line) + "\n"


def _media(instance: Instance, secrets: Secrets, path: Path) -> dict[str, Any]:
    """Key, bytes and digest of every object that must be carried over."""
    storage, objects, size = instance.object_storage, 0, 0
    with path.open("x") as stream:
        for key, each, etag in _objects(instance, secrets):
            stream.write(f"{key}\t{each}\t{etag}\n")
            objects, size = objects + 1, size + each
    return {"endpoint": storage.endpoint, "bucket": storage.media_bucket, "objects": objects, "bytes": size}


def _objects(instance: Instance, secrets: Secrets) -> Iterator[tuple[str, int, str]]:
    bucket = instance.object_storage.media_bucket
    with reached(instance) as bundle, sentences(instance, "media", bucket):
        client = connect(instance, secrets.object_storage.media, bundle)
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for each in page.get("Contents", []):
                if not each["Key"].startswith(LEFT_OUT):
                    yield each["Key"], each["Size"], each["ETag"].strip('"')


def _environment(instance: Instance, secrets: Secrets) -> str:
    """Lines of an environment file, in the names Mastodon reads."""
    lines = [f"LOCAL_DOMAIN={instance.domain.handle}", f"WEB_DOMAIN={instance.domain.web}"]
    lines += [f"{name.upper()}={getattr(secrets.mastodon, name).get_secret_value()}" for name in CARRIED]
    return "\n".join(lines) + "\n"


def _describe(draft: Path, instance: Instance, observed: dict[str, Any]) -> None:
    """export.json last: it names the digests of all the others."""
    digests = {}
    for path in sorted(draft.iterdir()):
        with path.open("rb") as stream:
            digests[path.name] = file_digest(stream, "sha256").hexdigest()
    told = {
        "format": 1,
        "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "domain": {"handle": instance.domain.handle, "web": instance.domain.web, "media": instance.domain.media},
        **observed,
        "secrets": [f"mastodon.{name}" for name in CARRIED],
        "sha256": digests,
    }
    (draft / "export.json").write_text(json.dumps(told, indent=1) + "\n")
