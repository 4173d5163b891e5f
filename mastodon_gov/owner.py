"""Verb `owner`: the owner's first password, and the way back in for an owner who is locked out."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

import click

from mastodon_gov.errors import Refusal
from mastodon_gov.leaving import ask_host
from mastodon_gov.remote import LIB, Host, application_host

FIRST_PASSWORD = "/var/lib/mastodon-gov/owner-first-password"  # noqa: S105  # a path
SHOWN = "/var/lib/mastodon-gov/owner-password-shown"
RELEASE = "/opt/mastodon/current"


def first_password(host: Host) -> str:
    """The password that waits on the host, which is removed there; "" when none does."""
    take = f"cat {FIRST_PASSWORD} && touch {SHOWN} && rm {FIRST_PASSWORD}"
    return host.run(["sh", "-c", f"if [ -e {FIRST_PASSWORD} ]; then {take}; fi"]).strip()


def reset(host: Host, by: str, why: str) -> None:
    """Break glass: the owner of instance.yaml gets an administrator's role, its address and a new first password; the
    second factor, sessions and tokens of whoever holds the account now end."""
    owner = host.instance.owner
    request = {"handles": [owner.username], "must": [], "verb": "owner --reset", "why": why, "by": by}
    ask_host(host, "release", request)
    host.run([f"{LIB}/owner_account.py", "restore", RELEASE, owner.username, owner.address])


@click.command()
@click.option("--yes", is_flag=True, help="Show it although this is not a terminal.")
@click.option("--reset", "again", is_flag=True, help="Break glass: let a locked-out owner in again (docs/operator).")
@click.option("--why", default="", help="Reason for --reset, kept in the journal.")
@click.option("--by", default=getpass.getuser, show_default="your user name", help="Who does it.")
@click.pass_obj
def owner(directory: Path, yes: bool, again: bool, why: str, by: str) -> None:
    """Show the owner's first password, once. Changes the host: the file with the password is removed.

    With --reset: gives the owner of instance.yaml a new password, role, address and freedom from a lost second factor,
    and shows the password. Whoever was signed in as the owner is signed out.
    """
    if not (yes or sys.stdout.isatty()):
        raise Refusal(
            "owner: this is not a terminal, and a password in a file or a log stays there. Use --yes if you mean it."
        )
    if again and not why:
        raise Refusal("owner --reset: found no --why. Breaking the glass is kept in the journal with its reason.")
    host = application_host(directory)
    if again:
        reset(host, by, why)
    password = first_password(host)
    if not password:
        raise Refusal(
            f"{host.name}: no first password waits. It was shown before; the sign-in page replaces a forgotten one, "
            "and `mastodon-gov owner --reset` lets a locked-out owner in again."
        )
    click.echo(f"address:  {host.instance.owner.address}\npassword: {password}")
    click.echo(f"Sign in at https://{host.instance.domain.web}/auth/sign_in and set up the second factor it asks for.")
