"""What most checks end with: say what was seen and what should be, then compare."""

from __future__ import annotations

from collections.abc import Collection

from tests.compliance.conftest import Evidence


def same(evidence: Evidence, observed: object, expected: object, command: str) -> None:
    """Fails unless both are equal."""
    evidence(observed=observed, expected=expected, command=command)
    assert observed == expected, f"found {observed}, expected {expected}"


def none(evidence: Evidence, observed: Collection[object], command: str) -> None:
    """Fails when anything was found."""
    evidence(observed=list(observed), expected="none", command=command)
    assert not observed, f"found {', '.join(map(str, observed))}"


def holds(evidence: Evidence, good: bool, observed: object, expected: str, command: str) -> None:
    """Fails unless `good`; for what is more than a comparison of two values."""
    evidence(observed=observed, expected=expected, command=command)
    assert good, f"found {observed}, expected {expected}"
