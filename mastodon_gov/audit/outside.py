"""What a stranger sees of an instance: asked from here, or from another machine, by one program on standard input."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from mastodon_gov.audit import stranger
from mastodon_gov.audit.facts import CouldNotLook, Facts, seen
from mastodon_gov.instance import Instance

ROLE = "outside"  # the module's name, and the name of the host in the report
HERE = "here"
TIMEOUT = 120  # seconds


def questions(instance: Instance, where: str) -> dict[str, Any]:
    """Names and addresses to ask for; nothing secret. `where` tells the checks what the asker may see."""
    names = [*instance.public_names]
    known = {name: [str(address) for address in instance.addresses.get(name, ())] for name in names}
    return {
        "from": where,
        "web": instance.domain.web,
        "media": instance.domain.media,
        "handle": instance.domain.handle,
        "owner": instance.owner.username,
        "addresses": known,
        "trusted_ca": list(instance.trusted_ca),
    }


def ask(instance: Instance, where: str, ssh_config: Path | None) -> dict[str, Any]:
    """The stranger's answers; `{"error": sentence}` when there was no stranger to ask."""
    asked = json.dumps(questions(instance, where))
    program = f"{Path(stranger.__file__).read_text()}\nprint(json.dumps(look(json.loads({asked!r}))))\n"
    words = [sys.executable if where == HERE else "python3", "-I", "-"]
    if where != HERE:
        options = ["-F", str(ssh_config)] if ssh_config else []
        words = ["ssh", *options, "-o", "BatchMode=yes", "-o", "ConnectTimeout=15", where, *words]
    try:
        done = subprocess.run(words, input=program, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        told: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return {"error": f"{where}: no answer within {TIMEOUT} s."}
    except ValueError:
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        return {"error": f"{where}: could not ask from there: {last[0][:300]}"}
    return told


@cache
def _once(instance_id: str, where: str, ssh_config: Path | None) -> dict[str, Any]:
    return ask(_instances[instance_id], where, ssh_config)


_instances: dict[str, Instance] = {}


def facts(instance: Instance, where: str, ssh_config: Path | None) -> Facts:
    """The answers, asked for once a run. Raises CouldNotLook where there are none."""
    _instances[instance.domain.web] = instance
    told: Facts = seen(_once(instance.domain.web, where, ssh_config))
    return told


__all__ = ["HERE", "ROLE", "CouldNotLook", "ask", "facts", "questions"]
