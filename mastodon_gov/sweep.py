"""The verb `sweep`: live accounts, links, roles and settings against the instance's files, now."""

from __future__ import annotations

import getpass
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mastodon_gov.instance import Instance
from mastodon_gov.remote import LIB, application_host

TEMPLATES = Path(__file__).resolve().parents[1] / "templates"
SERVER = "server"  # name of the page of what belongs to no organisation
FINDINGS = 3  # exit code: something differs from the files


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@click.option("--html", type=click.Path(path_type=Path, file_okay=False), help="Write one page per organisation there.")
@click.option("--dry-run", is_flag=True, help="Look only: disable and revoke nothing, whatever instance.yaml says.")
@click.option("--by", default=getpass.getuser, show_default="your user name", help="Who sweeps, for the journal.")
@click.pass_obj
def sweep(directory: Path, as_json: bool, html: Path | None, dry_run: bool, by: str) -> None:
    """Compare live accounts, links, tokens, roles and settings with the files of the last deploy.

    Does what `sweep.act` of instance.yaml says: reports, disables accounts, revokes links and tokens. Never deletes,
    never suspends. The same runs every 40 s and after each deploy.

    Exit: 0 nothing found, 1 could not look, 3 findings.
    """
    host = application_host(directory)
    words = [f"{LIB}/sweep.py", "--by", by, *(["--dry-run"] if dry_run else [])]
    report = json.loads(host.run(words))
    if html:
        write_pages(html, report, host.instance)
    if as_json:
        click.echo(json.dumps(report))
    else:
        for line in lines(report):
            click.echo(line)
    sys.exit(FINDINGS if report["findings"] else 0)


def lines(report: dict[str, Any]) -> list[str]:
    """The report for a person at a terminal."""
    done = {"disable": "account disabled. ", "revoke": "revoked. "}
    told = [
        f"{row['finding']}  {row['subject']}: {row['found']}. {done.get(row['act'], '')}{row['remedy']}"
        for row in report["findings"]
    ]
    looked = f"{report['accounts']} accounts of {report['organisations']} organisations in {report['seconds']} s"
    return [*told, f"{len(told)} findings; {looked}"]


def write_pages(directory: Path, report: dict[str, Any], instance: Instance) -> None:
    """One page for each organisation, and `server.html` for what belongs to none. Replaces pages of earlier sweeps."""
    template = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, autoescape=True, trim_blocks=True
    ).get_template("sweep/organisation.html.j2")
    directory.mkdir(parents=True, exist_ok=True)
    names = {body.id: body.name for body in instance.organisations} | {SERVER: "The server itself"}
    at = f"{datetime.fromtimestamp(report['at'], UTC):%Y-%m-%d %H:%M}"
    for body, name in names.items():
        rows = [row for row in report["findings"] if (row["organisation"] or SERVER) == body]
        page = template.render(name=name, web=instance.domain.web, at=at, rows=rows)
        (directory / f"{body}.html").write_text(page, encoding="utf-8")
