"""The outside world of a lab, with real servers: S3, ACME, DNS, mail, and the apex of the handle domain.

`build_world(lab)` brings the lab's machine `world` to serve all of it; give that machine `WORLD_PACKAGES` as its
layer. `load_world(lab)` only reads what the last build learnt. Why these servers: docs/decisions/lab-world.md.
"""

from mastodon_gov.lab.world.build import WORLD_PACKAGES, WorldFacts, build_world, load_world

__all__ = ["WORLD_PACKAGES", "WorldFacts", "build_world", "load_world"]
