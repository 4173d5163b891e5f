"""`make bench`: an upgrade of the stand-in under 50 pages/s and 2 posts/s, and what people noticed of it.

Seconds of a busy machine do not count; the ratio of one run, and what failed or was lost, do.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from mastodon_gov.errors import Refusal
from mastodon_gov.lab.demo import machines
from mastodon_gov.lab.lab import Lab
from tests.lab.deployed import Deployed
from tests.lab.load import load, posting
from tests.lab.older import deploy_older_in, journal
from tests.lab.people import signed_in_owner

RATE = 50  # pages a second
ALLOWED = 3  # times the p99 of before


def measure(older: Deployed) -> bool:
    """Print a line a step and one for the people; returns whether all of it is allowed."""
    with signed_in_owner(older) as person:
        token = person.token(person.application("read write"))
        with load(older, rate=RATE) as quiet, posting(older, token):
            time.sleep(20)  # the measure itself
        since = len(journal(older))
        with load(older, rate=RATE) as seen, posting(older, token) as posts:
            older.cli("upgrade", timeout=1800)
    begun = seen.sent[0]
    for line in journal(older)[since:]:
        at = datetime.fromisoformat(line["at"]).timestamp()
        what = line["step"] if line["event"] == "end" else f"  until {line.get('step', 'its end')}"
        print(f"{what:<34} {at - begun:8.1f} s, p99 {seen.percentile(0.99, begun, at) * 1000:6.0f} ms")
        begun = at
    ratio = seen.percentile(0.99) / quiet.percentile(0.99)
    print(f"{len(seen.failed)} of {len(seen.seconds)} pages failed, {posts}, p99 {ratio:.1f} times that of before")
    return not (seen.failed or posts.failed or posts.lost) and ratio <= ALLOWED


def main() -> None:
    """A lab of its own, from the older release to the newer."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            with Lab.temporary(f"bench-{os.getpid()}", machines(("python3",))) as lab:
                good = measure(deploy_older_in(lab, Path(directory)))
        except Refusal as refusal:
            sys.exit(str(refusal))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
