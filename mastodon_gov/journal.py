"""Who did what for whom and why: an entry in the journal of a host, where its keeper cannot quietly change it."""

from __future__ import annotations

from collections.abc import Callable

LOGGER = ["logger", "--journald"]


def note(run_on_host: Callable[[list[str], str], str], verb: str, *, by: str, whom: str, why: str) -> None:
    """Write one entry (`journalctl -t mastodon-gov`). Names travel on standard input; `run_on_host` runs as root."""
    fields = {
        "MESSAGE": f"{verb} {whom} by {by}: {why}",
        "SYSLOG_IDENTIFIER": "mastodon-gov",
        "MFG_VERB": verb,
        "MFG_BY": by,
        "MFG_WHOM": whom,
        "MFG_WHY": why,
    }
    # A line is a field: a line break in a reason would become one of its own.
    run_on_host(LOGGER, "".join(f"{name}={' '.join(value.split())}\n" for name, value in fields.items()))
