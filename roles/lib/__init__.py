"""The few batched operations every role is made of: each reads one fact for many resources."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra.api import FunctionCommand, StringCommand

Commands = Generator[StringCommand | FunctionCommand, None, None]
