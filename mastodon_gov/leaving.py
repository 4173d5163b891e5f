"""Verbs `offboard`, `lockdown`, `handback` and `handover`: who leaves, who was hijacked, who comes next.

The work is done on the host by roles/mastodon/files/leaving.py in one transaction, within a second.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import click

from mastodon_gov.errors import Refusal
from mastodon_gov.instance import Instance, OfficialAccount
from mastodon_gov.instance.organisation_file import change_account
from mastodon_gov.remote import LIB, Host, application_host

Request = dict[str, Any]
NOTICE = (
    "The account {name} is closed for now: somebody else may have written there. Do not act on its latest posts. We "
    "will say here when it is ours again."
)


def ask_host(host: Host, what: str, request: Request) -> dict[str, Any]:
    """The answer of the host's program; its refusals become ours. Names travel on standard input."""
    answer: dict[str, Any] = json.loads(host.run([f"{LIB}/leaving.py", what], json.dumps(request)))
    return answer


def handle_of(word: str) -> str:
    """The name in `@press` or `press`."""
    return word.removeprefix("@")


def accounts_of(instance: Instance, who: str) -> Request:
    """What `offboard WHO` means: an account, or all accounts that a person can post as."""
    if who.startswith("@") or "@" not in who:
        return {"handles": [handle_of(who)], "must": [handle_of(who)]}
    person = who.lower()
    handles = [a.handle for a in instance.accounts if person in [each.lower() for each in (a.address, *a.people)]]
    return {"addresses": [person], "handles": handles}


def named_in(instance: Instance, who: str) -> list[str]:
    """Places of organisations.yaml that still name a person."""
    keys = ("responsible", "deputy", "records_contact", "data_protection_contact")
    places = [(f"{body.id}.{key}", getattr(body, key)) for body in instance.organisations for key in keys]
    places += [
        (f"@{each.handle}.{key}", getattr(each, key)) for each in instance.accounts for key in ("owner", "deputy")
    ]
    return [place for place, address in places if address and address.lower() == who.lower()]


def _options(verb: Callable[..., None]) -> Callable[..., None]:
    """What these verbs have in common."""
    for option in (
        click.option("--why", required=True, help="Reason, kept in the ledger, the evidence and the journal."),
        click.option("--by", default=getpass.getuser, show_default="your user name", help="Who does it."),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."),
        click.option("--dry-run", is_flag=True, help="Say what would end; change nothing."),
    ):
        verb = option(verb)
    return verb


def _shut(host: Host, request: Request, dry_run: bool) -> dict[str, Any]:
    return ask_host(host, "look" if dry_run else "shut", request)


def _tell(host: Host, answer: dict[str, Any], as_json: bool, dry_run: bool) -> None:
    if as_json:
        click.echo(json.dumps(answer))
    else:
        names = ", ".join(f"@{name}" for name in answer["accounts"]) or "no account, only invitations"
        counts = ((number, what.replace("_", " ")) for what, number in answer["cut"].items() if what != "accounts")
        held = ", ".join(f"{number} {what}" for number, what in counts)
        if dry_run:
            click.echo(f"Would shut {names}: {held}. Nothing was changed.")
            return
        click.echo(f"Shut in {answer['seconds']:.2f} s: {names}. Ended: {held}. Posts and followers stay.")
        if "evidence" in answer:
            click.echo(f"Evidence: {host.name}:{answer['evidence']} (only root reads it)")
        if answer["without_owner"]:
            click.echo("No owner is left who can sign in: `mastodon-gov owner --reset` lets one in again.", err=True)
    if answer.get("streams", "ended") != "ended":
        raise Refusal(
            f"The accounts are shut, but open streams could not be ended ({answer['streams']}): run the same command "
            "again, or restart the streaming service."
        )


@click.command()
@click.argument("who", metavar="PERSON|@HANDLE")
@_options
@click.pass_obj
def offboard(directory: Path, who: str, why: str, by: str, as_json: bool, dry_run: bool) -> None:  # noqa: PLR0913, PLR0917
    """End the access of a person who leaves: PERSON is a mail address, and means every account that person can post as,
    and an invitation that nobody has used yet.

    Changes the database, at once: sessions, tokens, streams, push, second factor, password, pending address changes,
    reset links, invitations and scheduled posts of these accounts end. Accounts, posts and followers stay. Give an
    account to somebody else with `handback` or `handover`. The last owner is refused.
    """
    host = application_host(directory)
    request = accounts_of(host.instance, who) | {"verb": "offboard", "why": why, "by": by}
    _tell(host, _shut(host, request, dry_run), as_json, dry_run)
    if not as_json and (left := named_in(host.instance, who)):
        click.echo(f"organisations.yaml still names {who}: {', '.join(left)}. Write somebody else there.", err=True)


def post_notice(host: Host, text: str) -> str | None:
    """Post in the name of the owner's account; returns the post's address. None, and a sentence on stderr, when that
    failed: the account that was shut stays shut. One text is posted once an hour, however often it is asked for."""
    owner, domain = host.instance.owner.username, host.instance.domain
    given = {"account": owner, "text": text, "key": sha256(text.encode()).hexdigest()}
    run = [f"{LIB}/mastodon-run", "mastodon-owner", "/opt/mastodon/current", "bundle", "exec", "rails", "runner"]
    try:
        number = host.run([*run, f"{LIB}/notice.rb"], json.dumps(given)).split()[-1]
    except (Refusal, IndexError) as failure:
        click.echo(f"The notice was not posted from @{owner}: {failure}", err=True)
        return None
    return f"https://{domain.web}/@{owner}/{number}"


@click.command()
@click.argument("account", metavar="@HANDLE")
@click.option("--notice", help="What the owner's account posts about it; left out, a sentence of ours.")
@click.option("--no-notice", is_flag=True, help="Post nothing.")
@_options
@click.pass_obj
def lockdown(  # noqa: PLR0913, PLR0917
    directory: Path, account: str, notice: str | None, no_notice: bool, why: str, by: str, as_json: bool, dry_run: bool
) -> None:
    """Shut a hijacked account, within a second: as `offboard`, and also for the last owner.

    What the hijacker had is kept as evidence on the host. Then readers are told: a public post from the owner's account
    (never when that is the one to shut). Hand the account back with `handback`.
    """
    host, name = application_host(directory), handle_of(account)
    request = {"handles": [name], "must": [name], "verb": "lockdown", "why": why, "by": by}
    answer = _shut(host, request, dry_run)
    quiet = no_notice or dry_run or name.lower() == host.instance.owner.username.lower()
    text = notice or NOTICE.format(name=f"{name}@{host.instance.domain.handle}")
    if as_json and not quiet:
        answer["notice"] = post_notice(host, text)
    try:
        _tell(host, answer, as_json, dry_run)
    finally:
        if not as_json and not quiet and (url := post_notice(host, text)):
            click.echo(f"Readers are told: {url}")


@click.command()
@click.argument("account", metavar="@HANDLE")
@click.option("--to", help="New mail address of the account; left out, the old one stays.")
@_options
@click.pass_obj
def handback(  # noqa: PLR0913, PLR0917
    directory: Path, account: str, to: str | None, why: str, by: str, as_json: bool, dry_run: bool
) -> None:
    """Open an account again that `offboard`, `lockdown` or the sweep has shut, with the role it had.

    Changes the database. Who came in meanwhile is cut off once more. The person sets a new password through the page
    that is printed, which sends a link to the account's mail address.
    """
    host, name = application_host(directory), handle_of(account)
    request = {"handles": [name], "must": [name], "verb": "handback", "why": why, "by": by, "to": to}
    _tell_opened(host, ask_host(host, "look" if dry_run else "handback", request), to, as_json, dry_run)


def _tell_opened(host: Host, answer: dict[str, Any], to: str | None, as_json: bool, dry_run: bool) -> None:
    if as_json:
        click.echo(json.dumps(answer))
    elif dry_run:
        click.echo(f"Would open @{answer['accounts'][0]}{f' for {to}' if to else ''}. Nothing was changed.")
    else:
        click.echo(f"@{answer['accounts'][0]} is open again for {answer.get('address') or to}.")
        click.echo(f"The person sets a password at https://{host.instance.domain.web}/auth/password/new")


def known(instance: Instance, handle: str) -> OfficialAccount:
    """The account of organisations.yaml with this handle."""
    for account in instance.accounts:
        if account.handle.lower() == handle.lower():
            return account
    raise Refusal(
        f"organisations.yaml, accounts: found no account with the handle {handle}, and only a listed one has somebody "
        "responsible who can change. Add it there first."
    )


@click.command()
@click.argument("account", metavar="@HANDLE")
@click.option("--to", required=True, help="Mail address of the person who is responsible from now on.")
@click.option("--freeze", is_flag=True, help="Keep the account as an archive that nobody can post to.")
@_options
@click.pass_obj
def handover(  # noqa: PLR0913, PLR0917
    directory: Path, account: str, to: str, freeze: bool, why: str, by: str, as_json: bool, dry_run: bool
) -> None:
    """Give an office account to the next office-holder, or freeze it as an archive.

    Changes the database: what the predecessor had is exported to a file on the host and ends, as with `offboard`; then
    the account is open for the next person, who sets a password by mail. Changes organisations.yaml: the new owner;
    comments and order stay.
    """
    host, name = application_host(directory), handle_of(account)
    entry = known(host.instance, name)
    write = change_account(directory, entry.handle, {"owner": to})
    request: Request = {"handles": [name], "must": [name], "verb": "handover", "why": why, "by": by, "export": True}
    if not freeze:
        request |= {"again": True, "to": entry.mailbox or to}
    answer = _shut(host, request, dry_run)
    if not dry_run:
        write()
    _tell(host, answer, as_json, dry_run)
    if not as_json and not freeze:
        _tell_opened(host, answer, entry.mailbox or to, False, dry_run)
