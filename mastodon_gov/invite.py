"""Verbs `invite`, `invitations` and `revoke`: the ledger of invitations in the database of the instance.

The work is done by functions of schema gov (roles/mastodon/files/lock/05-verbs.sql), called as
mastodon_owner. Addresses travel on standard input, never on a command line: `sudo` and the process list of
the host would keep them.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mastodon_gov.errors import Refusal
from mastodon_gov.instance.load import load
from mastodon_gov.invitation_mail import send
from mastodon_gov.journal import note
from mastodon_gov.remote import database_host

DATABASE = "mastodon_production"
# Only root may become this user; the peer map lets only this user be mastodon_owner. The program itself: Debian's
# wrapper /usr/bin/psql reads files of the cluster that only postgres may read.
PSQL = "runuser -u mastodon-owner -- /usr/lib/postgresql/17/bin/psql -XqAt -v ON_ERROR_STOP=1".split()
PSQL += ["-U", "mastodon_owner", "-d", DATABASE, "-f", "-"]

# Runs a command as root on the host that holds the database, gives it standard input, returns its standard
# output; raises Refusal when the host cannot be reached or the command fails.
RunOnHost = Callable[[list[str], str], str]


def invite_sql(address: str, organisation: str, role: str | None, by: str, why: str) -> str:
    """Statement that makes an invitation of one use and 72 hours, or returns the open one."""
    request = {"address": address, "organisation": organisation, "role": role or "", "by": by, "why": why}
    return f"SELECT gov.invite({_json_literal(request)});\n"


def revoke_sql(address: str, by: str) -> str:
    """Statement that closes the open invitation of an address."""
    return f"SELECT gov.revoke({_json_literal({'address': address, 'by': by})});\n"


def invitations_sql() -> str:
    """Statement that lists every invitation ever made, oldest first, without its link."""
    return "SELECT gov.invitations();\n"


def ask(run_on_host: RunOnHost, sql: str) -> Any:
    """The database's answer; its refusals become ours."""
    output = run_on_host(PSQL, sql)
    try:
        answer = json.loads(output)
    except ValueError:
        raise Refusal(
            f"The database answered the verb with something that is not JSON ({len(output)} characters): run "
            "`mastodon-gov status` to see whether the lock is installed, then deploy."
        ) from None
    if isinstance(answer, dict) and "refusal" in answer:
        raise Refusal(answer["refusal"])
    return answer


def link(answer: dict[str, Any]) -> str:
    """The address to hand to the invited person."""
    if not answer["web_domain"]:
        raise Refusal(
            "The invitation exists, but the database does not know the server's web domain yet: deploy first, "
            "then run the same command again to see the link."
        )
    return f"https://{answer['web_domain']}/invite/{answer['code']}"


def state_line(entry: dict[str, Any]) -> str:
    """One invitation as a line for a person."""
    why = f" ({entry['why']})" if entry["why"] else ""
    return (
        f"{entry['state']:8} {entry['address']}  {entry['organisation']}  role {entry['role'] or '-'}  "
        f"by {entry['by']} {entry['created_at'][:16]}  until {entry['expires_at'][:16]}{why}"
    )


def on_host(directory: Path) -> RunOnHost:
    """A way to the host that holds the database of this instance."""
    return database_host(directory).run


def dry(sql: str) -> str:
    """The same statement with nothing kept."""
    return f"BEGIN;\n{sql}ROLLBACK;\n"


@click.command()
@click.argument("address")
@click.option("--organisation", required=True, help="Organisation the person works for.")
@click.option("--role", help="Role the account gets; the administrator permission cannot be given.")
@click.option("--mail", is_flag=True, help="Send the link through the mail relay, once.")
@click.option("--why", default="", help="Reason, kept in the ledger.")
@click.option("--by", default=getpass.getuser, show_default="your user name", help="Who invites.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@click.option("--dry-run", is_flag=True, help="Say whether the invitation would be made; change nothing.")
@click.pass_obj
def invite(  # noqa: PLR0913, PLR0917  each is an option of the command line
    directory: Path,
    address: str,
    organisation: str,
    role: str | None,
    mail: bool,
    why: str,
    by: str,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Invite one person: makes a link for ADDRESS only, for one use within 72 hours.

    Changes the database: one row in the ledger, one invitation. A moderator approves the account after the person has
    signed up. An open invitation with the same organisation and role is shown again, and not mailed again.
    """
    run, sql = on_host(directory), invite_sql(address, organisation, role, by, why)
    if dry_run:
        answer = ask(run, dry(sql))
        told = {"address": answer["address"], "would_make": answer["created"]}
        click.echo(json.dumps(told) if as_json else f"{answer['address']} could be invited. Nothing was changed.")
        return
    answer = ask(run, sql)
    url = link(answer)
    if answer["created"]:
        note(run, "invite", by=by, whom=answer["address"], why=why)
    if as_json:
        click.echo(json.dumps({"link": url, **{key: answer[key] for key in ("address", "created", "expires_at")}}))
    else:
        click.echo(url)
        found = "made" if answer["created"] else "already open"
        click.echo(f"For {answer['address']} only, {found}, until {answer['expires_at'][:16]} UTC.", err=True)
    if mail:
        click.echo(send(run, lambda words: ask(run, words), load(directory), answer, url), err=True)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
@click.pass_obj
def invitations(directory: Path, as_json: bool) -> None:
    """List every invitation: who, by whom, why, and what became of it. Changes nothing."""
    entries = ask(on_host(directory), invitations_sql())
    if as_json:
        click.echo(json.dumps(entries, indent=2))
        return
    for entry in entries:
        click.echo(state_line(entry))


@click.command()
@click.argument("address")
@click.option("--why", default="", help="Reason, kept in the journal.")
@click.option("--by", default=getpass.getuser, show_default="your user name", help="Who revokes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@click.option("--dry-run", is_flag=True, help="Say whether an invitation is open; change nothing.")
@click.pass_obj
def revoke(directory: Path, address: str, why: str, by: str, as_json: bool, dry_run: bool) -> None:  # noqa: PLR0913, PLR0917
    """Close the open invitation of ADDRESS: its link is dead at once. An account is not touched."""
    run, sql = on_host(directory), revoke_sql(address, by)
    answer = ask(run, dry(sql) if dry_run else sql)
    if answer["revoked"] and not dry_run:
        note(run, "revoke", by=by, whom=answer["address"], why=why)
    done = "would be revoked" if dry_run else "is revoked"
    if as_json:
        click.echo(json.dumps(answer))
    elif answer["revoked"]:
        click.echo(f"The invitation of {answer['address']} {done}.")
    else:
        click.echo(f"No invitation of {answer['address']} was open; nothing changed.")


def _json_literal(request: dict[str, str]) -> str:
    """JSON as a SQL literal. ASCII without a quote in it, so that nothing can end the literal early."""
    return "'" + json.dumps(request).replace("'", "\\u0027") + "'::jsonb"
