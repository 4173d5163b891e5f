"""The verb `init`: a commented instance directory with fresh secrets, made whole or not at all."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import click
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mastodon_gov import secrets
from mastodon_gov.errors import Refusal
from mastodon_gov.instance.load import load
from mastodon_gov.instance.types import DOMAIN
from mastodon_gov.release.pins import pins

TEMPLATES = Path(__file__).resolve().parents[1] / "templates" / "init"
FILES = {
    "instance.yaml": "instance.yaml.j2",
    "organisations.yaml": "organisations.yaml.j2",
    "addresses.yaml": "addresses.yaml.j2",
    "inventory.py": "inventory.py.j2",
    "recipients.txt": "recipients.txt.j2",
    ".gitignore": "gitignore.j2",
    "server/about.md": "server/about.md.j2",
    "server/privacy-policy.md": "server/privacy-policy.md.j2",
}


def make(directory: Path, web: str, handle: str, recipients: list[tuple[str, str]]) -> None:
    """Write the directory; without recipients, with an age identity of its own.

    Raises Refusal if a name is not a host name or the directory has content. The directory appears when it is
    complete.
    """
    for name in (web, handle):
        if not re.fullmatch(DOMAIN, name):
            raise Refusal(f'found "{name}". Allowed: a full host name in small letters, such as social.agency.example.')
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise Refusal(f"{directory} exists and is not empty. Choose another directory; init never overwrites.")
    draft = directory.with_name(f".{directory.name}.init")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True, mode=0o700)
    try:
        if not recipients:
            recipients = [("identity.txt, made by init", secrets.new_identity(draft / "identity.txt"))]
        _write_files(draft, web=web, handle=handle, recipients=recipients)
        secrets.create(draft)
        draft.chmod(0o755)
        draft.rename(directory)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_files(directory: Path, **values: object) -> None:
    # Not HTML; an undefined name is an error, never an empty string.
    jinja = Environment(  # noqa: S701
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True
    )
    values |= {"media": f"files.{values['web']}", "release": pins().known()[0]}
    (directory / "server").mkdir()
    for name, template in FILES.items():
        (directory / name).write_text(jinja.get_template(template).render(values), encoding="utf-8")


def _recipient(text: str) -> tuple[str, str]:
    name, equals, key = text.partition("=")
    if not equals or not name.strip():
        raise Refusal(f'--recipient: found "{text}". Allowed: NAME=age1…. Write whose key it is before the key.')
    return name.strip(), key.strip()


@click.command()
@click.argument("domain")
@click.option("--directory", type=click.Path(path_type=Path), help="Where to write.  [default: ./DOMAIN]")
@click.option("--handle-domain", help="What stands after the @, if it differs from DOMAIN.")
@click.option("--recipient", "recipient", multiple=True, metavar="NAME=AGE1…", help="Who can read the secrets.")
def init(domain: str, directory: Path | None, handle_domain: str | None, recipient: tuple[str, ...]) -> None:
    """Write a commented instance directory for DOMAIN, the name that browsers open, with fresh secrets.

    Reaches no host and overwrites nothing. Without --recipient it makes an age identity (identity.txt).
    """
    place = directory or Path(domain)
    make(place, domain, handle_domain or domain, [_recipient(text) for text in recipient])
    click.echo(f"Wrote {place}.")
    if not recipient:
        click.echo(f"{place}/identity.txt opens the secrets. Keep a copy in a safe; it is not in git.")
    try:
        load(place)
    except Refusal as still:
        click.echo(f"Still to be filled in:\n{still}")
    click.echo("Still to be given to the secrets, each with `mastodon-gov secrets set KEY`:")
    click.echo(f"  {', '.join(secrets.GIVEN)}")
