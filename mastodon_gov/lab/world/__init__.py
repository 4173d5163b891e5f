"""The outside world of a lab, with real servers: S3, ACME, DNS, mail, and the apex of the handle domain.

`build_world(lab)` brings the lab's machine `world` to serve all of it; make that machine from `world_spec()`, or from a
layer of `WORLD_PACKAGES` to have all of it built from nothing. `load_world(lab)` only reads what the last build learnt.
Why these servers: docs/decisions/lab-world.md.
"""

from mastodon_gov.lab.world.build import WORLD_PACKAGES, WorldFacts, build_world, load_world
from mastodon_gov.lab.world.layer import world_spec

__all__ = ["WORLD_PACKAGES", "WorldFacts", "build_world", "load_world", "world_spec"]
