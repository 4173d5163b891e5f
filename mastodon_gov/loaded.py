"""pyinfra as a program that loads at once, and begins when it is given a line; without one it ends and did nothing.

Loading it and our roles takes between one and two seconds, in which the checks before a deploy run.
"""

from __future__ import annotations

import sys
from importlib import import_module

from mastodon_gov.runner import ROOT

if __name__ == "__main__":
    roles = [f"roles.{path.parent.name}.role" for path in sorted(ROOT.glob("roles/*/role.py"))]
    pyinfra, *_ = map(import_module, ("pyinfra_cli.main", "mastodon_gov.inventory", *roles))
    if sys.stdin.readline():
        pyinfra.main()
