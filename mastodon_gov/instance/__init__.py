"""The instance: one description, read once, believed everywhere."""

from __future__ import annotations

from mastodon_gov.instance.model import Instance, Node, OfficialAccount, Organisation, Secrets

__all__ = ["Instance", "Node", "OfficialAccount", "Organisation", "Secrets"]
