"""Mastodon for Government: the control node's side."""

__version__ = "0.1.0"
