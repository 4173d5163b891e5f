"""What a person sees of a deploy while it runs."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from mastodon_gov.deploying import Progress


def line(role: str, **told: Any) -> dict[str, Any]:
    return {"role": role, "operation": "x", "changed": 0, "failed": False, "seconds": 1.0, "commands": 1, **told}


def shown(lines: list[dict[str, Any]], *, broken: bool = False) -> list[list[str]]:
    out = io.StringIO()
    progress = Progress(Console(file=out, width=100))
    for each in lines:
        progress(each)
    progress.end(broken=broken)
    return [row.split()[:2] for row in out.getvalue().splitlines()]


def test_a_role_says_what_it_did() -> None:
    assert shown([line("Base"), line("Mail", changed=1), line("Mail", changed=1)]) == [
        ["Base", "settled"],
        ["Mail", "2"],
    ]


def test_a_role_that_failed_says_so_and_the_one_before_it_does_not() -> None:
    assert shown([line("Base"), line("Mail", changed=1), line("Mail", failed=True)]) == [
        ["Base", "settled"],
        ["Mail", "failed"],
    ]


def test_a_run_that_broke_off_leaves_no_role_settled() -> None:
    assert shown([line("Base"), line("Mail")], broken=True) == [["Base", "settled"], ["Mail", "failed"]]
