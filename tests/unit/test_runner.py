"""What a person reads of a failed run: the sentence, or the failed operation's own output, never a traceback."""

from __future__ import annotations

from mastodon_gov.runner import last_words

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
