"""The command `mastodon-gov`: every verb that is not a deploy, and the deploy with progress."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from mastodon_gov import invite
from mastodon_gov.bootstrap import bootstrap
from mastodon_gov.check import check
from mastodon_gov.deploying import deploy, plan
from mastodon_gov.errors import Refusal
from mastodon_gov.init import init
from mastodon_gov.lab.cli import lab
from mastodon_gov.lab.demo import demo
from mastodon_gov.lab.world_cli import mail
from mastodon_gov.release.cli import release
from mastodon_gov.runner import ROOT
from mastodon_gov.secrets.cli import secrets
from mastodon_gov.status import application_host, owner, status


class Sentences(click.Group):
    """Turns a refusal into its sentence on stderr and exit code 1; no traceback for what a person can mend."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb."""
        try:
            return super().invoke(ctx)
        except Refusal as refusal:
            click.echo(str(refusal), err=True)
            sys.exit(1)


@click.group(cls=Sentences)
@click.option(
    "--instance",
    type=click.Path(path_type=Path, file_okay=False),
    default=ROOT / "inventories/demo",
    show_default="the demo",
    help="Directory of the instance: instance.yaml, inventory.py, secrets.age …",
)
@click.version_option(package_name="mastodon-gov")
@click.pass_context
def main(ctx: click.Context, instance: Path) -> None:
    """Install and operate a hardened, staff-only Mastodon."""
    ctx.obj = instance.resolve()


def _on_application_host(words: list[str], stdin: str) -> str:
    return application_host(click.get_current_context().find_object(Path) or Path()).run(words, stdin)


for verb in (
    init,
    bootstrap,
    check,
    plan,
    deploy,
    status,
    owner,
    release,
    secrets,
    lab,
    *invite.commands(_on_application_host),
):
    main.add_command(verb)
for verb in (demo, mail):
    lab.add_command(verb)


if __name__ == "__main__":
    main()
