"""The verbs of `mastodon-gov secrets`."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from mastodon_gov.errors import Refusal
from mastodon_gov.inventory import identity_path
from mastodon_gov.secrets.age import identities
from mastodon_gov.secrets.age import recipients as read_recipients
from mastodon_gov.secrets.store import FILE, parse_values, read_values, to_text, value_faults, write
from mastodon_gov.secrets.values import KINDS, PLACEHOLDER, Values, fault

MEMORY = Path("/dev/shm")  # noqa: S108  (memory, never a disk)
HEADER = """# Saved only if every value is right. {placeholder} stands for what others still have to give.
# Values that can never change once deployed are refused: see `mastodon-gov secrets rotate --help`.
"""

key_argument = click.argument("key", type=click.Choice(list(KINDS)), metavar="KEY")


@click.group()
def secrets() -> None:
    """The encrypted secrets of the instance. No verb here reaches a host; a deploy brings new values there."""


@secrets.command()
@click.argument("key", type=click.Choice(list(KINDS)), metavar="[KEY]", required=False)
@click.option("--force", is_flag=True, help="Also into a file or another program.")
@click.pass_obj
def show(instance: Path, key: str | None, force: bool) -> None:
    """Print one secret, or all, on a terminal. Changes nothing."""
    if not force and not sys.stdout.isatty():
        raise Refusal("The output is not a terminal, so secrets would stay where it leads. Use --force if you mean it.")
    values = read_values(instance, identity_path(instance))
    click.echo(values[key] if key else to_text(values), nl=bool(key))


@secrets.command("set")
@key_argument
@click.pass_obj
def set_(instance: Path, key: str) -> None:
    """Replace one secret with a value from standard input (asked for on a terminal)."""
    _replace(instance, key, _given(key))


@secrets.command()
@key_argument
@click.pass_obj
def rotate(instance: Path, key: str) -> None:
    """Replace a secret: a made one by a new one, a given one by a value from standard input.

    redis.password: Redis restarts twice in the deploy, a second each. mastodon.secret_key_base: everybody signs in
    again. mail.* and object_storage.*: get the new value from the service first, remove the old one there after the
    deploy. Refused, because data is encrypted with them: mastodon.active_record_encryption_*, backups.cipher_pass; and
    mastodon.vapid_*.
    """
    _refuse_kept(key)
    make = KINDS[key].make
    _replace(instance, key, make() if make else _given(key))


@secrets.command()
@click.option("--encrypt", is_flag=True, help="Encrypt the secrets anew to exactly these people.")
@click.pass_obj
def recipients(instance: Path, encrypt: bool) -> None:
    """List who can read the secrets (recipients.txt).

    To add or remove somebody, change recipients.txt and run this with --encrypt. Who is removed has known the old
    values: rotate what can be rotated.
    """
    people = read_recipients(instance)
    if encrypt:
        mine = {str(identity.to_public()) for identity in identities(identity_path(instance))}
        if not mine & {public for _, public in people}:
            raise Refusal(
                "recipients.txt does not name your own identity, so this would lock you out. Let one of "
                f"{', '.join(name for name, _ in people)} run it, or add yourself: {', '.join(sorted(mine))}"
            )
        write(instance, read_values(instance, identity_path(instance)))
    for name, public in people:
        click.echo(f"{name}: {public}")


@secrets.command()
@click.pass_obj
def edit(instance: Path) -> None:
    """Open all secrets in $EDITOR, in memory only; save them if they are right."""
    old = read_values(instance, identity_path(instance))
    if not MEMORY.is_dir():
        raise Refusal(
            f"{MEMORY} is not there, and secrets are never written to a disk. Use `mastodon-gov secrets set`."
        )
    folder = Path(tempfile.mkdtemp(dir=MEMORY, prefix="mastodon-gov-"))
    try:
        new = _edited(folder / "secrets.yaml", old)
    finally:
        shutil.rmtree(folder)
    if new == old:
        click.echo("Nothing changed.")
        return
    write(instance, new)
    click.echo(f"{FILE} is replaced. Changed: {', '.join(name for name in new if new[name] != old.get(name))}.")


def _edited(path: Path, old: Values) -> Values:
    """What the person leaves in the file once it is right; asks again while it is not."""
    path.touch(0o600)
    path.write_text(HEADER.format(placeholder=PLACEHOLDER) + to_text(old))
    while True:
        _open_editor(path)
        try:
            return _checked(path.read_text(), old)
        except Refusal as refusal:
            click.echo(str(refusal), err=True)
        if not (sys.stdin.isatty() and click.confirm("Edit again?", default=True, err=True)):
            raise Refusal("The secrets are not changed.")


def _open_editor(path: Path) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        done = subprocess.run([*shlex.split(editor), str(path)], check=False)
    except OSError as error:
        raise Refusal(
            f"The editor {editor} does not start ({error.strerror}). Set EDITOR; nothing is changed."
        ) from None
    if done.returncode:
        raise Refusal(f"The editor {editor} ended with {done.returncode}; the secrets are not changed.")


def _checked(text: str, old: Values) -> Values:
    """The values of an edited text. Raises Refusal for a fault, or for a change of what can never change."""
    new = parse_values(text)
    if faults := value_faults(new, unfinished=True):
        raise Refusal("\n".join(faults))
    for name, value in new.items():
        if value != old.get(name, value):
            _refuse_kept(name)
    return new


def _refuse_kept(name: str) -> None:
    if reason := KINDS[name].keep:
        raise Refusal(f"{name} can never be replaced: {reason}. Keep the value; keep a copy of {FILE} in a safe.")


def _given(name: str) -> str:
    """One value from standard input; on a terminal it is asked for and not shown."""
    if sys.stdin.isatty():
        return str(click.prompt(name, hide_input=True, default="", show_default=False, err=True))
    return sys.stdin.read().removesuffix("\n")


def _replace(instance: Path, name: str, value: str) -> None:
    values = read_values(instance, identity_path(instance))
    if value != values.get(name, value):
        _refuse_kept(name)
    if words := fault(name, value):
        raise Refusal(f"{name}: found {words}. Allowed: {KINDS[name].words}. {FILE} is not changed.")
    write(instance, values | {name: value})
    click.echo(f"{name} is replaced. Next: {KINDS[name].after or 'deploy'}.")
