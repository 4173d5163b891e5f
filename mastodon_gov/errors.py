"""The one exception that a person is meant to read."""

from __future__ import annotations


class Refusal(Exception):
    """A refusal as a sentence: what was found, where, what is allowed, what to do next.

    The command line prints it to stderr and exits with 1; nothing has been changed when it is raised.
    """
