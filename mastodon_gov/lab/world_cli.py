"""The verb `mastodon-gov lab mail`: what the lab's mail server received."""

from __future__ import annotations

from pathlib import Path

import click

from mastodon_gov.errors import Refusal
from mastodon_gov.lab.lab import Lab
from mastodon_gov.lab.state import DEFAULT_STATE_DIR
from mastodon_gov.lab.world.mail import read_mail, set_mode, text_of
from mastodon_gov.lab.world.services import MAIL_MODES


@click.command()
@click.argument("number", type=int, required=False)
@click.option("--newest", is_flag=True, help="Show the newest message.")
@click.option("--mode", type=click.Choice(sorted(MAIL_MODES)), help="Make the server accept or refuse all mail.")
@click.option("--lab", "lab_name", default="demo", show_default=True, help="Name of the lab.")
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_STATE_DIR,
    show_default=True,
    help="Where labs lie.",
)
def mail(number: int | None, newest: bool, mode: str | None, lab_name: str, state_dir: Path) -> None:
    """List the mail that the lab's server received, or show message NUMBER. Changes nothing without --mode."""
    lab = Lab.open(lab_name, state_dir)
    if mode:
        set_mode(lab, mode)
        return
    messages = read_mail(lab)
    wanted = len(messages) if newest else number
    if wanted is None:
        for index, message in enumerate(messages, 1):
            click.echo(f"{index:4}  {message['Date']}  {message['To']}  {message['Subject']}")
    elif 1 <= wanted <= len(messages):
        click.echo(text_of(messages[wanted - 1]))
    else:
        raise Refusal(f"there is no message {wanted}: {len(messages)} have arrived. `lab mail` lists them.")
