"""Debian packages of all roles, one a line: for a mirror of one's own, and for the lab's prepared layer.

python -m roles.packages
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path


def all_packages() -> list[str]:
    """Packages of every role an instance's own hosts can have; radosgw is a storage host's."""
    roles = sorted(path.parent.name for path in Path(__file__).parent.glob("*/role.py"))
    modules = [import_module(f"roles.{role}.role") for role in roles if role != "radosgw"]
    return sorted({package for module in modules for package in getattr(module, "PACKAGES", [])})


if __name__ == "__main__":
    print("\n".join(all_packages()))
