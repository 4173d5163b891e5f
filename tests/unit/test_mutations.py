"""The list of mutations fits the suite: every control with a check is broken in the lab, or says why not."""

from __future__ import annotations

import ast
from pathlib import Path

from mastodon_gov.audit.catalogue import load
from tests.lab.compliance.mutations import HEAL, MUTATIONS, NOT_BROKEN

SUITE = Path(__file__).parents[1] / "compliance"


def controls_of_checks() -> dict[str, str]:
    """Control of each check, by its name."""
    found = {}
    for path in SUITE.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef):
                continue
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.control":
                    found[node.name] = ast.literal_eval(mark.args[0])
    return found


def broken_checks() -> set[str]:
    """Names of checks that some mutation reddens."""
    return {check.split("[")[0] for all_ in MUTATIONS.values() for names in all_ for check in names.split()}


def test_there_are_a_hundred() -> None:
    """Each is one command that breaks one thing."""
    assert sum(map(len, MUTATIONS.values())) >= 100


def test_every_mutation_is_of_a_check() -> None:
    """A check that was renamed would never be seen red."""
    assert broken_checks() - controls_of_checks().keys() == set()


def test_every_control_is_broken_or_says_why() -> None:
    """And none is both."""
    checks = controls_of_checks()
    broken = {checks[name] for name in broken_checks()}
    assert set(checks.values()) - broken - NOT_BROKEN.keys() == set()
    assert broken & NOT_BROKEN.keys() == set()
    assert NOT_BROKEN.keys() - load().keys() == set()


def test_only_roles_with_mutations_are_healed() -> None:
    """A leftover would hide that a deploy does not heal."""
    assert HEAL.keys() <= MUTATIONS.keys()
