"""The verb `drill`: restore the newest backup where it can do no harm, and bring the signed evidence home."""

from __future__ import annotations

import getpass
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from mastodon_gov.errors import Refusal
from mastodon_gov.journal import note
from mastodon_gov.remote import LIB, Host, database_host
from mastodon_gov.restore import moment

PROGRAM = f"{LIB}/drill.py"
KEPT = "/var/lib/mastodon-gov/drills"
NAMESPACE = "mastodon-drill"


def signed(evidence: Path, key: Path) -> Path:
    """The operator's signature beside the evidence. Raises Refusal where the key cannot sign."""
    sign = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(key), "-n", NAMESPACE]
    text = evidence.read_text()
    done = subprocess.run(sign, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refusal(f"{key} cannot sign the evidence: {done.stderr.strip()}. Name an SSH key with --key.")
    place = evidence.with_name(evidence.name + ".operator.sig")
    place.write_text(done.stdout)
    return place


def brought_home(host: Host, directory: Path) -> Path:
    """The newest evidence and the host's signature, as files of the instance directory's `drills`."""
    newest = host.run(["sh", "-c", f"ls {KEPT}/*.json | tail -1"]).strip()
    there = directory / "drills"
    there.mkdir(exist_ok=True)
    for path in (newest, f"{newest}.sig"):
        (there / Path(path).name).write_text(host.run(["cat", path]))
    return there / Path(newest).name


def show(evidence: dict[str, Any]) -> None:
    """One line for each fact."""
    for name, took in evidence["steps"].items():
        click.echo(f"{took:7.1f} s  {name}")
    if evidence["rc"] == 0:
        click.echo(
            f"restored {evidence['label']}: back in {evidence['rto_s']} s (RTO), {evidence['rpo_s']} s would be lost "
            f"(RPO); egress {evidence['egress']}, {evidence['blocked_packets']} packets refused"
        )
    for sentence in evidence["problems"]:
        click.echo(f"! {sentence}")


@click.command()
@click.option("--key", type=click.Path(path_type=Path, exists=True), help="Your SSH key, which signs the evidence.")
@click.option("--as-of", help="Use the backups as they lay in the bucket at this time.")
@click.option("--json", "as_json", is_flag=True, help="Print the evidence and nothing else.")
@click.pass_obj
def drill(directory: Path, key: Path | None, as_of: str | None, as_json: bool) -> None:
    """Restore the newest backup on the database's host with every other way out closed, verify it, remove it.

    Changes nothing but the evidence: on the host, and signed in the directory `drills` of the instance. A timer on the
    host does the same each night. Exit: 0 good, 1 the drill failed.
    """
    host = database_host(directory)
    words = [PROGRAM, *(["--as-of", moment(as_of, "--as-of")] if as_of else [])]
    note(host.run, "drill", by=getpass.getuser(), whom=host.name, why="asked for by hand")
    failure = ""
    try:
        host.follow(words)
    except Refusal as refusal:
        failure = str(refusal)
    path = brought_home(host, directory)
    evidence = json.loads(path.read_text())
    signature = signed(path, key or directory / "deploy_key")
    if as_json:
        click.echo(json.dumps(evidence))
    else:
        show(evidence)
        click.echo(f"evidence: {path}, signed: {signature.name}, {path.name}.sig (the host)")
    if failure and not evidence["problems"]:
        raise Refusal(failure)
    sys.exit(1 if evidence["rc"] else 0)
