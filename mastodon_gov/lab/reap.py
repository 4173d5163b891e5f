"""Removing what dead processes left behind, and only that."""

from __future__ import annotations

import os
from pathlib import Path

from mastodon_gov.errors import Refusal
from mastodon_gov.lab import cgroups, network
from mastodon_gov.lab.image import Cache
from mastodon_gov.lab.lab import destroy
from mastodon_gov.lab.starter import starter
from mastodon_gov.lab.state import Places, all_labs, load_record, try_lock


def abandoned(places: Places) -> bool:
    """Whether nobody wants this lab any more; only true of a lab whose lock the caller could take.

    Ephemeral labs live as long as their owner. A lab that was never complete died while it was made.
    """
    record = load_record(places)
    return record is None or record.ephemeral or not record.ready


def reap(state_dir: Path) -> list[str]:
    """Remove abandoned labs; return their names."""
    removed = []
    for places in all_labs(state_dir):
        lock = try_lock(places.lock)
        if lock is None:
            continue
        if abandoned(places):
            destroy(places)
            removed.append(places.name)
        os.close(lock)
    return removed + _reap_claims()


def _reap_claims() -> list[str]:
    """Numbers whose lab's files are gone: somebody removed the directory while machines ran."""
    removed = []
    for claim in network.RUN.glob("[0-9]*"):
        root = Path(claim.read_text())
        if root.exists():
            continue
        for group in starter().groups(f"mfg{claim.name}-*"):
            cgroups.kill(group)
        network.down(int(claim.name))
        removed.append(str(root))
    return removed


def remove_cache(state_dir: Path) -> None:
    """Remove bases and layers; refuse while a lab stands on them."""
    if labs := [p.name for p in all_labs(state_dir)]:
        raise Refusal(
            f"the cache in {state_dir}/cache is in use by lab {', '.join(labs)}. Remove that lab first: "
            f"`mastodon-gov lab down --lab {labs[0]}`."
        )
    Cache(state_dir).remove()
