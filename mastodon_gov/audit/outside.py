"""What a stranger sees of an instance: asked from here, or from another machine, by one program on standard input."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mastodon_gov.audit import stranger
from mastodon_gov.instance import Instance

ROLE = "outside"  # the module's name, and the name of the host in the report
HERE = "here"
TIMEOUT = 120  # seconds


def questions(instance: Instance, proxies: Iterable[str], where: str, probe: bool) -> dict[str, Any]:
    """Names to ask for; nothing secret. `proxies` are the hosts whose addresses count where DNS knows no name."""
    return {
        "from": where,
        "names": list(instance.public_names),
        "web": instance.domain.web,
        "media": instance.domain.media,
        "owner": instance.owner.username,
        "bucket": instance.object_storage.media_bucket,
        "storage": _storage(instance),
        "addresses": [str(address) for name in proxies for address in instance.addresses.get(name, ())],
        "trusted_ca": list(instance.trusted_ca),
        "probe": probe,
    }


def _storage(instance: Instance) -> dict[str, Any]:
    """The S3 service and its buckets; addresses where it has private ones."""
    parts, wanted = urlsplit(instance.object_storage.endpoint), instance.object_storage
    known = instance.addresses.get(parts.hostname or "", ())
    return {
        "host": parts.hostname,
        "port": parts.port or stranger.HTTPS,
        "addresses": [str(address) for address in known],
        "buckets": [wanted.media_bucket, wanted.backup_bucket],
    }


def ask(asked: dict[str, Any], where: str, ssh_config: Path | None) -> dict[str, Any]:
    """The stranger's answers; `{"error": sentence}` when there was no stranger to ask. The program travels on standard
    input, so nothing is left on another machine."""
    program = f"{Path(stranger.__file__).read_text().partition(MAIN)[0]}\nprint(json.dumps(look({asked!r})))\n"
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


MAIN = 'if __name__ == "__main__":'
