"""A layer in which the world was built once, so that a new lab only starts it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from mastodon_gov.lab.build import packages_layer
from mastodon_gov.lab.image import Cache, base_key
from mastodon_gov.lab.lab import Lab
from mastodon_gov.lab.state import DEFAULT_STATE_DIR, MachineSpec
from mastodon_gov.lab.world.build import REPOSITORY, WORLD_PACKAGES, build_world

# What decides what is in it; everything else is settled again when a lab's world is built on it.
SOURCES = ("roles/radosgw", "templates/radosgw", "mastodon_gov/lab/world")


def world_spec(say: Callable[[str], None] = lambda _: None) -> MachineSpec:
    """The machine for `build_world`. Its layer is made first, in a lab of its own, when it is not there yet (a minute
    and a half).

    Labs of this machine then share the keys of their S3 users, as they share what the installation of packages made.
    """
    cache, name = Cache(DEFAULT_STATE_DIR), layer_name()
    with cache.layer_lock(f"{name}-making"):  # the layer's own lock is the snapshot's
        if not cache.has_layer(name):
            say("...    a world to start others from is built")
            fresh = MachineSpec("world", layer_packages=WORLD_PACKAGES)
            with Lab.temporary(f"layer-{name[-16:]}", [fresh]) as lab:
                build_world(lab)
                lab.snapshot("world", name)
    return MachineSpec("world", layer=name)


def layer_name() -> str:
    """Base, packages and what the world is made from decide it; the week stands in it, so that it is pruned."""
    digest = hashlib.sha256(packages_layer(WORLD_PACKAGES).encode())
    for path in sorted(path for source in SOURCES for path in (REPOSITORY / source).rglob("*") if path.is_file()):
        if "__pycache__" not in path.parts:
            digest.update(path.read_bytes())
    return f"world-{base_key().partition('-')[0]}-{digest.hexdigest()[:16]}"
