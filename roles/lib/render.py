"""Templates: `templates/<role>/<path on the host>`, rendered with the node and nothing else."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mastodon_gov.instance import Node
from roles.lib.files import ManagedFile

ROOT = Path(__file__).resolve().parents[2]


@cache
def _environment() -> Environment:
    # Not HTML: these are configuration files, and an undefined name is an error, never an empty string.
    return Environment(  # noqa: S701
        loader=FileSystemLoader(ROOT / "templates"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def text(template: str, **values: object) -> str:
    """The text of `templates/<template>.j2` with these values and nothing else."""
    return _environment().get_template(f"{template}.j2").render(**values)


def render(template: str, node: Node, **values: object) -> str:
    """The text of `templates/<template>.j2` for this node."""
    return text(template, node=node, instance=node.instance, secrets=node.secrets, **values)


def managed(  # noqa: PLR0913
    template: str,
    path: str,
    node: Node,
    *,
    user: str = "root",
    group: str = "root",
    mode: int = 0o644,
    validate: str | None = None,
    **values: object,
) -> ManagedFile:
    """A managed file rendered from a template."""
    return ManagedFile(path, render(template, node, **values), user, group, mode, validate)


FACTS = "/usr/local/lib/mastodon-gov/facts"


def facts_roles() -> list[str]:
    """Roles that have a facts program: what the auditor's account may run, and nothing else."""
    return sorted(path.parents[1].name for path in (ROOT / "roles").glob("*/files/facts.py"))


def facts_program(role: str) -> ManagedFile:
    """What a role lets the auditor see (`roles/<role>/files/facts.py`)."""
    return program(role, "facts.py", f"{FACTS}/{role}")


def program(role: str, name: str, path: str, mode: int = 0o755) -> ManagedFile:
    """A program of a role (`roles/<role>/files/<name>`), as it is."""
    return ManagedFile(path, (ROOT / "roles" / role / "files" / name).read_text(), mode=mode)
