#!/usr/bin/python3
"""Make the server show what instance.yaml says: one start of Rails, everything or nothing.

    server_settings.py < {"release": NAME, "wanted": {item: value}, "payload": {sha256: base64}}

The database remembers before and after (lock/04-server.sql): a run that dies anywhere is repeated by the next deploy.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LIB = "/usr/local/lib/mastodon-gov"
RELEASES = "/opt/mastodon/releases"
UNKNOWN = Path("/run/mastodon-gov/settings-unknown.json")  # what this release has no place for
PSQL = "runuser -u postgres -- psql -qtAX -v ON_ERROR_STOP=1 -d mastodon_production -f -".split()


class Failed(Exception):
    """What a program said before it ended."""


def run(command: list[str], given: str) -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        told = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-5:]
        raise Failed("\n".join(told))
    return done.stdout


def literal(value: object) -> str:
    """JSON as a SQL literal: ASCII, and no quote in it that could end the literal early."""
    return "'" + json.dumps(value).replace("'", "\\u0027") + "'"


def apply(given: dict[str, Any]) -> dict[str, Any]:
    wanted, release = literal(given["wanted"]), given["release"]
    gone = json.loads(run(PSQL, f"SELECT gov.server_begin({wanted}::jsonb);"))
    rails = ["bundle", "exec", "rails", "runner", f"{LIB}/server_settings.rb"]
    document = {"wanted": given["wanted"], "gone": gone, "payload": given["payload"]}
    said = run([f"{LIB}/mastodon-run", "mastodon-owner", f"{RELEASES}/{release}", *rails], json.dumps(document))
    run(PSQL, f"SELECT gov.server_done({wanted}::jsonb, {literal(release)}::jsonb #>> '{{}}');")
    told: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    return told


def main() -> int:
    try:
        told = apply(json.load(sys.stdin))
        UNKNOWN.parent.mkdir(exist_ok=True)
        UNKNOWN.write_text(json.dumps(told["unknown"]))
        print(json.dumps(told))
    except Failed as failure:
        print(
            f"The settings of the server could not be made, and nothing of them was changed: {failure}. Correct "
            "`server` in instance.yaml, then deploy again.",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
