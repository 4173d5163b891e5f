#!/usr/bin/python3 -IB
"""Facts of the role nginx for the audit: one JSON document. Reads only; no arguments."""

from __future__ import annotations

import gzip
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from roles.base.files.facts_lib import output, state, tell
else:  # on the host the programs' common part lies one directory up
    sys.path.insert(0, "/usr/local/lib/mastodon-gov")
    from facts_lib import output, state, tell

LOGS = Path("/var/log/nginx")


def logs() -> dict[str, object]:
    """Days since the oldest line of an access log was written, and how many requests of today and yesterday were logged
    with a query. Of each file only the first line is read here; grep reads what is not compressed yet."""
    oldest, plain = time.time(), []
    for path in LOGS.glob("access.log*"):
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
            if when := re.search(r"\[([^]]+)\]", lines.readline()):
                oldest = min(oldest, time.mktime(time.strptime(when[1][:19], "%Y-%m-%dT%H:%M:%S")))
        oldest = min(oldest, path.stat().st_mtime)
        plain += [str(path)] if path.suffix != ".gz" else []
    counts = output("grep", "-hacE", '"[A-Z]+ [^" ]*[?]', *plain, codes=(0, 1)).split()
    return {"oldest": int((time.time() - oldest) // 86400), "queries": sum(map(int, counts))}


def rotation() -> dict[str, str]:
    """What logrotate is told about these logs, and whether its timer runs and is planned."""
    text = Path("/etc/logrotate.d/nginx").read_text()
    found = dict(re.findall(r"^\s*(rotate|maxage|daily)\b ?(\S*)", text, re.M))
    return found | {"timer": state("logrotate.timer")}


def forwarded() -> dict[str, list[str]]:
    """What nginx tells the application about the client: every value of each header, from its whole configuration."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"proxy_set_header\s+(\S+)\s+([^;]+);", output("nginx", "-T")):
        if value.strip() not in found.setdefault(name.lower(), []):
            found[name.lower()].append(value.strip())
    return found


if __name__ == "__main__":
    tell({"logs": logs, "rotation": rotation, "forwarded": forwarded})
