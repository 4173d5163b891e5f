"""pyinfra as a program that loads at once, and begins when it is given a line; without one it ends and did nothing.

Loading it and our roles takes between one and two seconds, in which the files are read and the checks before a deploy
run.
"""

from __future__ import annotations

import atexit
import os
import sys
from functools import partial
from importlib import import_module

from mastodon_gov.runner import ROOT


def _main() -> None:
    roles = [f"roles.{path.parent.name}.role" for path in sorted(ROOT.glob("roles/*/role.py"))]
    pyinfra, *_ = map(import_module, ("pyinfra_cli.main", "mastodon_gov.inventory", *roles))
    # It wants file and line of each caller of an operation. Python would look up the text of the line as well, and for
    # that go through all modules: half a second of a deploy.
    util = import_module("pyinfra.api.util")
    vars(util).update(stack=partial(util.stack, 0), getframeinfo=partial(util.getframeinfo, context=0))
    if not sys.stdin.readline():
        return
    code: object = 1
    # The last of what is registered; taking the interpreter apart, which would follow, takes a third of a second.
    atexit.register(lambda: os._exit(code if isinstance(code, int) else 1))
    try:
        pyinfra.main()
    except SystemExit as end:
        code = end.code or 0
        raise


if __name__ == "__main__":
    _main()
