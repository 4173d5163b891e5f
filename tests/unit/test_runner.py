"""What a person reads of a failed run: the sentence, or the failed operation's own output, never a traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mastodon_gov.errors import Refusal
from mastodon_gov.runner import last_words, run_pyinfra

REFUSED = """\
--> Starting operation: Backups | Make the repository
    [social] No changes
--> Starting operation: Mastodon | Lock the database
Traceback (most recent call last):
  File "/x/operations.py", line 53, in run_host_op
    return _run_host_op(state, host, op_hash)
pyinfra.api.exceptions.OperationError: social: put the old name back.
2026-11-21T14:22:30Z <Greenlet at 0x7f: f> failed with OperationError

--> Disconnecting from hosts...
--> Operation error in /work/roles/mastodon/database.py line 133: social: put the old name back.
"""
BROKEN = """\
--> Starting operation: Redis | Run units
    [social] settled before
--> Starting operation: Proxy | Write files
    [social] nginx: unknown directive "sever" in /etc/nginx/nginx.conf.new:7
    [social] Error: executed 0 commands

--> Disconnecting from hosts...
--> pyinfra error: No hosts remaining!
"""


def test_a_role_s_sentence_is_all_there_is_to_read() -> None:
    assert last_words(REFUSED) == "social: put the old name back."


def test_a_failed_command_is_shown_from_its_operation_on() -> None:
    told = last_words(BROKEN)
    assert told.startswith("Proxy | Write files")
    assert "unknown directive" in told
    assert "settled before" not in told
    assert "Disconnecting" not in told


def nothing(_: object) -> None:
    """No progress is looked at."""


def test_what_fails_before_it_leaves_everything_as_it_is(tmp_path: Path) -> None:
    """pyinfra is loaded by then, and ends without having read the inventory, which would say so."""
    (tmp_path / "inventory.py").write_text(f"open({str(tmp_path / 'read')!r}, 'w')\n")

    def unfit() -> None:
        raise Refusal("The clock is wrong.")

    with pytest.raises(Refusal, match=r"^The clock is wrong\.$") as refused:
        run_pyinfra(tmp_path, on_progress=nothing, before=unfit)
    os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)  # its own child; `refused` keeps it from being collected
    assert refused
    assert not (tmp_path / "read").exists()
    assert run_pyinfra(tmp_path, on_progress=nothing).hosts == 0
    assert (tmp_path / "read").exists()


def test_a_program_that_did_not_load_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho No module named pyinfra >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(broken))
    with pytest.raises(Refusal, match="No module named pyinfra"):
        run_pyinfra(tmp_path, on_progress=nothing)
