"""The verb `fetch-configuration`: the instance directory again, from the backup bucket and a recipient's key."""

from __future__ import annotations

import socket
import ssl
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import boto3
import click
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from mastodon_gov.backups.configuration import PREFIX, unpacked
from mastodon_gov.backups.manifest import as_it_lay, names
from mastodon_gov.errors import Refusal
from mastodon_gov.restore import moment
from mastodon_gov.secrets.age import identities, put_private
from mastodon_gov.storage.client import SYSTEM_STORE

# The new host shows another key; the old one's would be in the way of its bootstrap.
NOT_TAKEN = ("known_hosts",)


@contextmanager
def _resolving(pairs: tuple[str, ...]) -> Iterator[None]:
    """Inside, NAME leads to ADDRESS, as curl's --resolve."""
    known = dict(pair.split("=", 1) for pair in pairs)
    real = socket.getaddrinfo

    def resolve(name: Any, *rest: Any, **options: Any) -> Any:
        return real(known.get(str(name), name), *rest, **options)

    socket.getaddrinfo = resolve  # type: ignore[assignment]  # passes on whatever it was given
    try:
        yield
    finally:
        socket.getaddrinfo = real


def _key() -> tuple[str, str]:
    """Access key and secret key: asked for on a terminal, otherwise two lines on standard input. Never an argument."""
    if sys.stdin.isatty():
        return click.prompt("access key"), click.prompt("secret key", hide_input=True)
    lines = sys.stdin.read().split()
    if len(lines) != 2:
        raise Refusal(
            "fetch-configuration: standard input must hold two lines, access key and secret key, of a user that may "
            "read the backup bucket (object_storage.backups, or the one in the envelope)."
        )
    return lines[0], lines[1]


@click.command()
@click.option("--endpoint", required=True, help="Address of the S3 service, as https://s3.example.")
@click.option("--bucket", required=True, help="The backup bucket.")
@click.option("--region", default="us-east-1", show_default=True)
@click.option("--identity", required=True, type=click.Path(path_type=Path), help="The age identity of a recipient.")
@click.option("--ca", type=click.Path(path_type=Path, exists=True), help="Certificates (PEM) of your own authority.")
@click.option("--resolve", multiple=True, metavar="NAME=ADDRESS", help="Where a name leads that DNS does not know.")
@click.option("--key", "wanted", help="Another configuration than the newest: its key in the bucket.")
@click.option("--as-of", help="The bucket as it lay at this time: after somebody deleted or overwrote what is in it.")
@click.pass_obj
def fetch_configuration(  # noqa: PLR0913, PLR0917  each is an option of the command line
    directory: Path,
    endpoint: str,
    bucket: str,
    region: str,
    identity: Path,
    ca: Path | None,
    resolve: tuple[str, ...],
    wanted: str | None,
    as_of: str | None,
) -> None:
    """Write the instance directory (--instance) anew from the bucket. Changes nothing but that directory, which must
    not exist or be empty. The access key and the secret key are two lines on standard input."""
    if directory.exists() and any(directory.iterdir()):
        raise Refusal(f"{directory} is not empty. Name a new directory with --instance; nothing was changed.")
    when = datetime.fromisoformat(moment(as_of, "--as-of")) if as_of else None
    keys, access = identities(identity), _key()
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as bundle, _resolving(resolve):
        store = Path(ssl.get_default_verify_paths().cafile or SYSTEM_STORE)
        bundle.write(store.read_text() + "\n" + (ca.read_text() if ca else ""))
        bundle.flush()
        config = Config(connect_timeout=10, retries={"total_max_attempts": 2}, s3={"addressing_style": "path"})
        try:
            client = boto3.client(
                "s3",
                endpoint_url=endpoint,
                region_name=region,
                verify=bundle.name,
                config=config,
                aws_access_key_id=access[0],
                aws_secret_access_key=access[1],
            )
            then = as_it_lay(client, bucket, PREFIX, when) if when else {}
            listed = sorted(then) if when else names(client, bucket, PREFIX)
            if not listed or (wanted and wanted not in listed):
                raise Refusal(
                    f"Bucket {bucket} at {endpoint} holds no {wanted or 'configuration'}. Is it the right "
                    "one? If somebody deleted what was in it, give a time before that with --as-of."
                )
            chosen = wanted or listed[-1]
            version = {"VersionId": then[chosen]} if when else {}
            body = client.get_object(Bucket=bucket, Key=chosen, **version)["Body"].read()
        except (ClientError, BotoCoreError, ValueError) as error:
            raise Refusal(f"{endpoint}, bucket {bucket}: {error}. Check address, bucket and key.") from None
    for name, content in unpacked(body, keys).items():
        path = directory / name
        if name in NOT_TAKEN or not path.resolve().is_relative_to(directory.resolve()):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        put_private(path, content)
    click.echo(f"{directory} is {chosen}.")
    click.echo(f"Next: export MASTODON_GOV_IDENTITY={identity.resolve()}; mastodon-gov bootstrap HOST")
