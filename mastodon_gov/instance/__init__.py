"""The instance: one description, read once, believed everywhere."""

from __future__ import annotations

from mastodon_gov.instance.model import Instance
from mastodon_gov.instance.node import Node
from mastodon_gov.instance.organisations import OfficialAccount, Organisation
from mastodon_gov.instance.secret_model import Secrets

__all__ = ["Instance", "Node", "OfficialAccount", "Organisation", "Secrets"]
