"""Verb `people`: who can post as what. The live accounts beside what organisations.yaml says of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from mastodon_gov.instance import Instance
from mastodon_gov.instance.load import load
from mastodon_gov.invite import ask, on_host

SQL = Path(__file__).resolve().parents[1] / "roles/mastodon/files/people.sql"


def joined(instance: Instance, live: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each live account with its entry of the file (`listed`), and its organisation by the domain of its address."""
    entries = {account.handle.lower(): account for account in instance.accounts}
    body_of = {domain: body.id for body in instance.organisations for domain in body.domains}
    found = []
    for account in live:
        entry = entries.get(account["handle"].lower())
        body = entry.organisation if entry else body_of.get(account["address"].rpartition("@")[2])
        found.append(
            account
            | {
                "listed": entry is not None,
                "organisation": body,
                "kind": entry.kind if entry else None,
                "people": list(entry.people) if entry else [account["address"]],
                "foreign_tools": _foreign_tools(account, entry.tools if entry else ()),
            }
        )
    return found


def _foreign_tools(account: dict[str, Any], tools: tuple[str, ...]) -> list[str]:
    """Applications with a token that the file does not allow. Mastodon's own pages in a browser are its `superapp`, and
    not whatever calls itself "Web"."""
    return sorted({str(token["application"]) for token in account["tokens"] if not token["superapp"]} - set(tools))


@click.command()
@click.option("--organisation", help="Only this organisation's accounts.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@click.pass_obj
def people(directory: Path, organisation: str | None, as_json: bool) -> None:
    """Show who can post as what: accounts, people, roles, second factors, last use, tokens. Changes nothing."""
    found = joined(load(directory), ask(on_host(directory), SQL.read_text()))
    found = [each for each in found if organisation in (None, each["organisation"])]
    if as_json:
        click.echo(json.dumps(found))
        return
    table = Table("account", "organisation", "state", "people", "role", "second factor", "last use", "tokens", box=None)
    for each in found:
        tokens = ", ".join(sorted({f"{token['application']}" for token in each["tokens"]}))
        table.add_row(
            f"@{each['handle']}{'' if each['listed'] else ' (not listed)'}",
            each["organisation"] or "none",
            each["state"],
            ", ".join(each["people"]),
            each["role"] or "",
            each["second_factor"],
            (each["last_used"] or "never")[:10],
            tokens,
        )
    Console(width=None if sys.stdout.isatty() else 200).print(table)
