"""What checks of the suite are called with where there is no host."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mastodon_gov.instance import Instance
from tests.unit.test_roles import sample

PROGRAMS = Path(__file__).parents[2] / "roles/base/files"


def program(role: str) -> Any:
    """A facts program of a role; on a host the part that all share lies in its path."""
    with patch.object(sys, "path", [str(PROGRAMS), *sys.path]):
        return import_module(f"roles.{role}.files.facts")


def evidence(**_: object) -> None:
    """Nobody reads it here."""


def instance(**changes: Any) -> Instance:
    """The demo's, as it is on a real host after these changes."""
    return sample().instance.model_copy(update=changes)


def public_store() -> Instance:
    """Its S3 service has a public address: addresses.yaml does not list it."""
    known = instance()
    storage = known.object_storage.model_copy(update={"endpoint": "https://s3.example.org"})
    return known.model_copy(update={"object_storage": storage})
