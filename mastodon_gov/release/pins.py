"""The versions this product knows, pinned in pins.yaml."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field

from mastodon_gov.errors import Refusal
from mastodon_gov.migrations import number

PINS = Path(__file__).with_name("pins.yaml")


class Frozen(BaseModel):
    """Unknown keys are errors; nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Version(Frozen):
    """A version of Mastodon: upstream's commit, and that commit's time in seconds since 1970."""

    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    epoch: int


class Node(Frozen):
    """The Node runtime that goes into every bundle; npm's integrity value per Debian architecture."""

    version: str
    integrity: dict[str, str]


class Pins(Frozen):
    """All pins."""

    node: Node
    versions: dict[str, Version]

    def known(self) -> list[str]:
        """Version numbers, the newest first."""
        return sorted(self.versions, key=number, reverse=True)

    def version(self, number: str) -> Version:
        """One version, or a refusal with the list of known ones."""
        if number not in self.versions:
            raise Refusal(
                f"Mastodon {number} is not known to this product; known are {', '.join(self.known())}. "
                f"Choose one of these, or take a newer release of this product: it pins each version in {PINS.name}."
            )
        return self.versions[number]


@cache
def pins() -> Pins:
    """pins.yaml, read once."""
    return Pins.model_validate(yaml.safe_load(PINS.read_text()))
