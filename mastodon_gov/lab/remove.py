"""Removing labs: on request, and those whose process died. Nothing else is ever touched."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from mastodon_gov.errors import Refusal
from mastodon_gov.lab import cgroups, network
from mastodon_gov.lab.image import Cache
from mastodon_gov.lab.machine import close_socket
from mastodon_gov.lab.starter import starter
from mastodon_gov.lab.state import Places, all_labs, load_record, lock_lab, try_lock


def destroy(places: Places) -> None:
    """Remove a lab, whatever state it is in. The caller holds its lock; the lock file goes last."""
    record = load_record(places)
    numbers = {record.number} if record else set()
    for number in numbers | network.claims_of(places.root):
        for group in starter().groups(f"mfg{number}-*"):
            cgroups.kill(group)
        network.down(number)
    for control in places.sockets.glob("*@*"):
        close_socket(places, control)
    shutil.rmtree(places.root, ignore_errors=True)
    places.lock.unlink(missing_ok=True)


def take_down(places: Places) -> None:
    """Remove a lab that nobody is working on; none of this name is no error."""
    lock = lock_lab(places)
    try:
        destroy(places)
    finally:
        os.close(lock)


def abandoned(places: Places) -> bool:
    """Whether nobody wants this lab any more; only true of a lab whose lock the caller could take.

    Ephemeral labs live as long as their owner. A lab that was never complete died while it was made.
    """
    record = load_record(places)
    return record is None or record.ephemeral or not record.ready


def reap(state_dir: Path) -> list[str]:
    """Remove abandoned labs and outdated images; return what was removed."""
    removed = []
    for places in all_labs(state_dir):
        lock = try_lock(places.lock)
        if lock is None:
            continue
        if abandoned(places):
            destroy(places)
            removed.append(f"lab {places.name}")
        os.close(lock)
    for number, root in network.claims().items():
        if not root.exists():  # somebody removed the directory while machines ran
            destroy(Places(root.parent, root.name))
            removed.append(f"lab {root.name} (number {number}), whose files were gone")
    return removed + Cache(state_dir).prune(all_labs(state_dir))


def remove_cache(state_dir: Path) -> None:
    """Remove bases and layers; refuse while a lab stands on them."""
    if labs := [p.name for p in all_labs(state_dir)]:
        raise Refusal(
            f"the cache in {state_dir}/cache is in use by lab {', '.join(labs)}. Remove that lab first: "
            f"`mastodon-gov lab down --lab {labs[0]}`."
        )
    shutil.rmtree(Cache(state_dir).root, ignore_errors=True)
