"""The command `mastodon-gov`: every verb that is not a deploy, and the deploy with progress."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from mastodon_gov.errors import Refusal

# Where each verb is. Only the one that was asked for is loaded: all of them take longer than a deploy's checks.
VERBS = {
    "init": "mastodon_gov.init:init",
    "bootstrap": "mastodon_gov.bootstrap:bootstrap",
    "check": "mastodon_gov.check:check",
    "plan": "mastodon_gov.deploying:plan",
    "deploy": "mastodon_gov.deploying:deploy",
    "upgrade": "mastodon_gov.upgrade:upgrade",
    "rollback": "mastodon_gov.rollback:rollback",
    "maintain": "mastodon_gov.maintain:maintain",
    "status": "mastodon_gov.status:status",
    "audit": "mastodon_gov.audit.cli:audit",
    "owner": "mastodon_gov.owner:owner",
    "people": "mastodon_gov.people:people",
    "invite": "mastodon_gov.invite:invite",
    "invitations": "mastodon_gov.invite:invitations",
    "revoke": "mastodon_gov.invite:revoke",
    "offboard": "mastodon_gov.leaving:offboard",
    "lockdown": "mastodon_gov.leaving:lockdown",
    "handback": "mastodon_gov.leaving:handback",
    "handover": "mastodon_gov.leaving:handover",
    "drill": "mastodon_gov.drill:drill",
    "fetch-configuration": "mastodon_gov.fetch_configuration:fetch_configuration",
    "restore": "mastodon_gov.restore:restore",
    "sweep": "mastodon_gov.sweep:sweep",
    "release": "mastodon_gov.release.cli:release",
    "export": "mastodon_gov.backups.export:export",
    "escrow": "mastodon_gov.backups.escrow:escrow",
    "secrets": "mastodon_gov.secrets.cli:secrets",
    "lab": "mastodon_gov.lab.cli:lab",
}
JSON = f"{__name__}.json"


class Sentences(click.Group):
    """Loads verbs when they are asked for, and turns a refusal into its sentence on stderr and its exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which a person needs them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb, or None for a word nobody knows."""
        if cmd_name not in VERBS:
            return None
        module, name = VERBS[cmd_name].split(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; remembers whether a program reads what the verb prints."""
        ctx.meta[JSON] = "--json" in args
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb; no traceback for what a person can mend."""
        try:
            return super().invoke(ctx)
        except Refusal as refusal:
            click.echo(str(refusal), err=True)
            if ctx.meta.get(JSON):
                click.echo(json.dumps({"refused": str(refusal).splitlines()}))
            sys.exit(refusal.code)


@click.group(cls=Sentences)
@click.option(
    "--instance",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(__file__).resolve().parents[1] / "inventories/demo",
    show_default="the demo",
    help="Directory of the instance: instance.yaml, inventory.py, secrets.age …",
)
@click.version_option(package_name="mastodon-gov")
@click.pass_context
def main(ctx: click.Context, instance: Path) -> None:
    """Install and operate a hardened, staff-only Mastodon."""
    ctx.obj = instance.resolve()


if __name__ == "__main__":
    main()
