"""Secrets of an instance: one file, encrypted with age to named people, read into a type that never prints them."""

from __future__ import annotations

from mastodon_gov.secrets.age import new_identity, recipients
from mastodon_gov.secrets.store import create, read, read_values, write
from mastodon_gov.secrets.values import GIVEN, generate

__all__ = ["GIVEN", "create", "generate", "new_identity", "read", "read_values", "recipients", "write"]
