"""The verb `escrow`: the page for the sealed envelope, and the proof that the envelope opens the newest backup."""

from __future__ import annotations

import hmac
import json
import sys
import time
from pathlib import Path

import click
import pyrage

from mastodon_gov.backups.configuration import PREFIX, unpacked
from mastodon_gov.backups.envelope import page, sheet
from mastodon_gov.backups.manifest import differing, is_sealed, names, read_manifests
from mastodon_gov.backups.repository_file import labels
from mastodon_gov.errors import Refusal
from mastodon_gov.instance import Instance, Secrets
from mastodon_gov.instance.load import load
from mastodon_gov.inventory import identity_path
from mastodon_gov.remote import database_host
from mastodon_gov.secrets import read
from mastodon_gov.secrets.age import identities, put_private, recipients
from mastodon_gov.secrets.store import FILE, parse_values, typed
from mastodon_gov.storage.client import connect, reached, sentences

RECORD = "/var/lib/mastodon-gov/escrow.json"


@click.group(invoke_without_command=True)
@click.option("--html", is_flag=True, help="As HTML, for printing from a browser.")
@click.option(
    "--secrets-to",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the cipher pass and the S3 key: to this new file (0600), or to `-`, a terminal.",
)
@click.pass_context
def escrow(context: click.Context, html: bool, secrets_to: Path | None) -> None:
    """Print the page for the sealed envelope. Changes nothing; without --secrets-to no secret is on it."""
    if context.invoked_subcommand:
        return
    directory: Path = context.obj
    instance = load(directory)
    click.echo(page(instance, recipients(directory), "html" if html else "txt"), nl=False)
    if secrets_to:
        _write(secrets_to, sheet(instance, read(directory, identity_path(directory))))


def _write(place: Path, content: str) -> None:
    if str(place) == "-":
        if not sys.stdout.isatty():
            raise Refusal(
                "escrow --secrets-to -: found no terminal, so the secrets would stay where the output leads. Allowed: "
                "a terminal, or the name of a new file. Give a file name."
            )
        click.echo(content, nl=False)
        return
    if place.exists():
        raise Refusal(f"{place} exists, and secrets replace no file. Give the name of a new file.")
    put_private(place, content.encode())
    click.echo(f"{place}: print it, seal it with the page, then `shred -u {place}`.", err=True)


@escrow.command()
@click.argument("identity", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.pass_obj
def check(directory: Path, identity: Path) -> None:
    """Prove that the age identity in this file opens the newest backup.

    Changes nothing but a record on the database's host, for the audit. Takes the newest configuration from the bucket,
    opens it and the secrets in it with the identity, reads the newest backup's list with the cipher pass found there,
    and compares the secrets with that backup's manifest.
    """
    instance, known = load(directory), read(directory, identity_path(directory))
    key, found = _configuration(instance, known, identities(identity))
    click.echo(f"ok  {key}: opens, {len(found)} files")
    kept = _secrets(found, identities(identity))
    click.echo(f"ok  {FILE} in it: opens")
    label = _newest_label(instance, known, kept.backups.cipher_pass.get_secret_value())
    click.echo(f"ok  backup {label}: its list is readable with the cipher pass in it")
    _compare(instance, kept, label)
    click.echo(f"ok  manifest of {label}: sealed with that cipher pass, and every secret is the one it was made with")
    _record(directory, kept.backups.cipher_pass.get_secret_value())


def _record(directory: Path, cipher_pass: str) -> None:
    """For the audit. The envelope is good even where the host is away, as on the worst day."""
    told = {"at": int(time.time()), "fingerprint": hmac.digest(cipher_pass.encode(), b"escrow", "sha256").hex()}
    write = f"umask 077; cat > {RECORD}.new && mv {RECORD}.new {RECORD}"
    try:
        database_host(directory).run(["sh", "-c", write], stdin=json.dumps(told))
    except Refusal as refusal:
        click.echo(f"The host was not told, so the audit does not know of this check: {refusal}", err=True)


def _configuration(
    instance: Instance, secrets: Secrets, keys: list[pyrage.x25519.Identity]
) -> tuple[str, dict[str, bytes]]:
    bucket = instance.object_storage.backup_bucket
    with reached(instance) as bundle, sentences(instance, "backups", bucket):
        client = connect(instance, secrets.object_storage.backups, bundle)
        listed = names(client, bucket, PREFIX)
        if not listed:
            raise Refusal(f"Bucket {bucket} holds no configuration. Run deploy, which puts it there, then check again.")
        body = client.get_object(Bucket=bucket, Key=listed[-1])["Body"].read()
    return listed[-1], unpacked(body, keys)


def _secrets(found: dict[str, bytes], keys: list[pyrage.x25519.Identity]) -> Secrets:
    try:
        return typed(parse_values(pyrage.decrypt(found[FILE], keys).decode()))
    except (KeyError, pyrage.DecryptError) as error:
        raise Refusal(
            f"The newest configuration opens, but {FILE} in it does not ({error}). Run `mastodon-gov secrets "
            "recipients --help`, give this person access, deploy, and check again."
        ) from None


def _newest_label(instance: Instance, secrets: Secrets, cipher_pass: str) -> str:
    bucket, stanza = instance.object_storage.backup_bucket, instance.backups.stanza
    key = f"pg/backup/{stanza}/backup.info"
    with reached(instance) as bundle, sentences(instance, "backups", bucket):
        client = connect(instance, secrets.object_storage.backups, bundle)
        body = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    try:
        return labels(body, cipher_pass)[-1]
    except (ValueError, IndexError) as error:
        raise Refusal(
            f"{key} in bucket {bucket} cannot be read with backups.cipher_pass of the newest configuration ({error}). "
            "The envelope does not open the backups: find the cipher pass they were made with."
        ) from None


def _compare(instance: Instance, kept: Secrets, label: str) -> None:
    by_label = {manifest["label"]: manifest for manifest in read_manifests(instance, kept)}
    manifest = by_label.get(label)
    if manifest is None or not is_sealed(manifest, kept.backups.cipher_pass.get_secret_value()):
        raise Refusal(
            f"Backup {label} has no manifest that is sealed with this cipher pass. On the host, run "
            "`systemctl start mfg-backup-manifest.service`, then check again."
        )
    if wrong := differing(manifest, kept):
        raise Refusal(
            f"The newest configuration holds other values of {', '.join(wrong)} than backup {label} was made with. "
            "Deploy the right secrets, or make a backup with the present ones, then check again."
        )
