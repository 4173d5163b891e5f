"""The papers of the sealed envelope: a page without secrets, and the one sheet that is secret."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from mastodon_gov.instance import Instance, Secrets

TEMPLATES = Path(__file__).resolve().parents[2] / "templates/escrow"


def _render(name: str, **values: object) -> str:
    jinja = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=select_autoescape(("html.j2",)),
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return jinja.get_template(f"{name}.j2").render(**values)


def fingerprint(public: str) -> str:
    """Of a recipient's public key: short enough to compare by eye."""
    digest = sha256(public.encode()).hexdigest()[:32]
    return " ".join(digest[at : at + 4] for at in range(0, 32, 4))


def page(instance: Instance, people: list[tuple[str, str]], kind: str) -> str:
    """What must be kept outside, for whom, and how it is used; `kind` is `txt` or `html`."""
    listed = [(name, key, fingerprint(key)) for name, key in people]
    return _render(f"page.{kind}", instance=instance, people=listed, today=f"{datetime.now(UTC):%Y-%m-%d}")


def sheet(instance: Instance, secrets: Secrets) -> str:
    """Cipher pass and S3 key: with them and the bucket everything in the database can be read."""
    key = secrets.object_storage.backups
    return _render(
        "secrets.txt",
        instance=instance,
        cipher_pass=secrets.backups.cipher_pass.get_secret_value(),
        access_key=key.access_key.get_secret_value(),
        secret_key=key.secret_key.get_secret_value(),
    )
