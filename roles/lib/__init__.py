"""The few batched operations every role is made of: each reads one fact for many resources."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import ParamSpec, cast

from pyinfra.api import FileUploadCommand, FunctionCommand, StringCommand
from pyinfra.api import deploy as _deploy

Commands = Generator[StringCommand | FunctionCommand | FileUploadCommand, None, None]
P = ParamSpec("P")


def deploy(title: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """pyinfra's `@deploy`, which its own annotations describe as an operation with other arguments."""
    return cast(Callable[[Callable[P, None]], Callable[P, None]], _deploy(title))
