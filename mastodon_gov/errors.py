"""The exceptions that a person is meant to read."""

from __future__ import annotations


class Refusal(Exception):
    """A refusal as a sentence: what was found, where, what is allowed, what to do next.

    The command line prints it to stderr and exits with `code`; nothing has been changed when it is raised.
    """

    code = 1


class WrongUsage(Refusal):
    """A wrong file of the instance directory, or a wrong option: no host was asked anything."""

    code = 2


class Unreachable(Refusal):
    """A host does not answer, or none is named."""

    code = 4
