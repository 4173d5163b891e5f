"""The verb `check`: whether an instance can be deployed. Asks hosts and services, and changes nothing."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from mastodon_gov import host_probe
from mastodon_gov.checked import is_checked, keep_checked
from mastodon_gov.errors import Refusal, Unreachable
from mastodon_gov.findings import (
    FAIL,
    OK,
    WARN,
    Finding,
    Subject,
    blind,
    host_findings,
    ports_of,
)
from mastodon_gov.instance import Node
from mastodon_gov.instance.load import load
from mastodon_gov.inventory import nodes
from mastodon_gov.outside import outside_findings, questions
from mastodon_gov.relay import relay_findings
from mastodon_gov.release.bundle import migrations_of, read_release, signers_of, verify
from mastodon_gov.release.select import selected
from mastodon_gov.remote import Host

PROGRAM = Path(host_probe.__file__)
HERE = "control node"
CONNECTION = "connection"
COLOURS = {OK: "green", WARN: "yellow"}


def clock_offset(host: float, before: float, after: float) -> float:
    """Seconds by which the host's clock is ahead, at least: it was read between `before` and `after` of ours."""
    return host - min(max(host, before), after)


def examine(
    directory: Path, *, everything: bool, limit: str | None = None, offset: float | None = None, send: bool = False
) -> list[Finding]:
    """What stands against a deploy, and what does not. Raises WrongUsage for wrong files, before anything is asked.

    A deploy that changes nothing must take no time. So without `everything`, hosts that are ours already are only
    looked at themselves, unless what the services are asked with has changed since a deploy's checks passed last.
    `offset` (s) replaces the measured difference of the clocks. With `send`, a message goes to the owner.
    """
    instance = load(directory)
    try:
        selected(instance, directory)
    except Refusal as refusal:
        return [Finding(HERE, "release", FAIL, "no bundle that can be deployed", "a signed bundle", str(refusal))]
    chosen = nodes(directory, limit)
    found, asking = [], everything or not is_checked(instance, directory)
    whole = asking
    with ThreadPoolExecutor() as pool:  # what is asked from here takes as long as what the host is asked

        def elsewhere() -> tuple[Future[Finding], Future[list[Finding]]]:
            return pool.submit(_release, chosen[0]), pool.submit(_storage, chosen[0])

        asked = elsewhere() if asking else None
        for node in chosen:
            of_host, fresh = _examine_host(node, directory, asking, offset, send)
            found += of_host
            whole = whole or fresh
        if whole:
            release, storage = asked or elsewhere()
            found += [release.result(), *storage.result()]
    if whole and not (everything or limit) and all(each.lets_begin for each in found):
        keep_checked(instance, directory)
    return found


def _examine_host(
    node: Node, directory: Path, everything: bool, offset: float | None, send: bool
) -> tuple[list[Finding], bool]:
    """Findings about one host, and whether nothing of ours was on it before."""
    host = Host(node.name, directory, node.instance)
    mark = "/opt/mastodon/current" if "mastodon" in node.groups else "/var/lib/mastodon-gov"
    asked = {"deployed": mark, "release": node.release.name, "ports": sorted(ports_of(node))}
    try:
        before = time.time()
        seen = _ask(host, "look", asked)
        measured = clock_offset(seen["time"], before, time.time())
        release, _ = read_release(Path(node.release.archive))
        subject = Subject(
            node=node,
            arch=release.arch,
            bytes=release.bytes,
            migrations=migrations_of(Path(node.release.archive)),
            offset=measured if offset is None else offset,
        )
        found = host_findings(subject, seen)
        fresh = not seen["deployed"]
        if everything or fresh:
            found += outside_findings(subject, _ask(host, "outside", questions(node)))
            found += _mail(host, node, send)
    except Unreachable as refusal:
        return [blind(node.name, CONNECTION, str(refusal))], False
    except Refusal as refusal:
        return [blind(node.name, "probe", str(refusal))], False
    return found, fresh


def _ask(host: Host, function: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Run the probe on the host, as root. It travels on standard input, so nothing is left there."""
    program = f"{PROGRAM.read_text()}\nprint(json.dumps({function}(json.loads({json.dumps(asked)!r}))))\n"
    answer: dict[str, Any] = json.loads(host.run(["python3", "-"], program))
    return answer


def _mail(host: Host, node: Node, send: bool) -> list[Finding]:
    told = relay_findings(node.instance, node.secrets, send=send, run=lambda words, given: host.run(list(words), given))
    return _from_sentences(node.name, "mail relay", told, "a relay that takes our mail over verified TLS")


def _release(node: Node) -> Finding:
    """The bundle's signature and every file of it; and a stand-in only where nobody takes it for Mastodon."""
    archive, expected = Path(node.release.archive), "a bundle whose signature and files verify"
    with signers_of(node.release) as signers:
        try:
            verify(archive, signers)
        except Refusal as refusal:
            return Finding(HERE, "release", FAIL, f"{archive.name} does not verify", expected, str(refusal))
    if node.release.standin and not node.instance.lab:
        remedy = "Build the real release with `mastodon-gov release build`, or write `lab: true` where it is a lab."
        return Finding(HERE, "release", FAIL, f"{archive.name} is a stand-in, not Mastodon", "Mastodon itself", remedy)
    kind = " (the stand-in, which is not Mastodon)" if node.release.standin else ""
    return Finding(HERE, "release", OK, f"{archive.name} verifies{kind}", expected)


def _storage(node: Node) -> list[Finding]:
    """What each key may do, by trying. A bucket whose policy a deploy has yet to write is not tried."""
    # boto3 takes half a second to import, which a deploy of a host that is ours must not pay.
    from mastodon_gov.storage.buckets import pending
    from mastodon_gov.storage.rights import rights

    name, expected = "object storage rights", "keys that may what they need and nothing more"
    try:
        plans = pending(node.instance, node.secrets.object_storage.owner)
        unsettled = frozenset(
            bucket.name for bucket, actions in plans if not any(action.setting == "create" for action in actions)
        )
        told = rights(node.instance, node.secrets, unsettled)
    except Refusal as refusal:
        told, unsettled = [str(refusal)], frozenset()
    if not told and unsettled:
        observed = f"deploy has yet to settle {' and '.join(sorted(unsettled))}"
        return [Finding(HERE, name, WARN, observed, expected, "Run check again after the deploy.")]
    return _from_sentences(HERE, name, told, expected)


def _from_sentences(host: str, name: str, told: list[str], expected: str) -> list[Finding]:
    """Their first part says what was found, the rest what to do."""
    parts = (sentence.partition(". ") for sentence in told)
    wrong = [Finding(host, name, FAIL, observed, expected, remedy) for observed, _, remedy in parts]
    return wrong or [Finding(host, name, OK, "tried", expected)]


def refuse_unfit(directory: Path, *, limit: str | None = None, offset: float | None = None) -> int:
    """The beginning of every deploy; returns the number of checks. Refusal: every sentence, before any change."""
    found = examine(directory, everything=False, limit=limit, offset=offset)
    wrong = [finding.sentence for finding in found if not finding.lets_begin]
    if wrong:
        kind = Unreachable if code_of(found) == Unreachable.code else Refusal
        raise kind("\n".join([*wrong, "Nothing was changed. Mend this, then run deploy again."]))
    return len(found)


def code_of(found: list[Finding]) -> int:
    """The exit code: 4 where no host was reached, 1 where anything else stands against a deploy."""
    of_hosts = {finding.id for finding in found if finding.host != HERE}
    return Unreachable.code if of_hosts == {CONNECTION} else int(not all(finding.lets_begin for finding in found))


def show(found: Iterable[Finding]) -> None:
    """A table, and a sentence below it for everything that is not ok."""
    listed = list(found)
    table = Table("state", "host", "check", "observed", box=None)
    table.columns[-1].overflow = "fold"
    for each in listed:
        colour = COLOURS.get(each.state, "red")
        table.add_row(f"[{colour}]{each.state}[/]", each.host, each.id, each.observed)
    console = Console()
    # In a log a row is a line; on a terminal it may be folded.
    console.print(table, highlight=False, width=None if console.is_terminal else 300)
    for each in listed:
        if each.state != OK:
            click.echo(f"! {each.sentence}")


@click.command()
@click.option("--send-mail", is_flag=True, help="Try the relay with a message that goes to the owner.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@click.pass_obj
def check(directory: Path, send_mail: bool, as_json: bool) -> None:
    """Say whether the hosts, the services and the release are fit for a deploy. Changes nothing.

    Exit: 0 a deploy may begin, 1 something stands against it or could not be looked at, 2 wrong usage or a wrong file
    of the instance (then nothing is asked), 4 no host reached.
    """
    found = examine(directory, everything=True, send=send_mail)
    code = code_of(found)
    if as_json:
        rows = [vars(each) | {"sentence": each.sentence if each.state != OK else ""} for each in found]
        click.echo(json.dumps({"ok": code == 0, "findings": rows}))
    else:
        show(found)
    sys.exit(code)
