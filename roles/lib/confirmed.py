"""Changes that can lock us out: applied with a timer that takes them back unless a new connection confirms them."""

from __future__ import annotations

import shlex

from pyinfra import host, state
from pyinfra.api import FactBase, FunctionCommand, OperationError, QuoteString, StringCommand, operation

from roles.lib import Commands
from roles.lib.files import FileStates, ManagedFile

ROLLBACK_AFTER = 60  # seconds the host waits for our confirmation


def _probe(deadline: int = 20) -> None:
    """Sign in once more, over a connection of its own, as the next deploy will have to.

    Raises OperationError when that fails; the host's timer then restores what was there before.
    """
    fresh = type(host.connector)(state, host)
    try:
        fresh.connect()
        worked, _ = fresh.run_shell_command(StringCommand("true"), False, False, _timeout=deadline)
    except Exception as error:
        raise OperationError(_refusal(str(error))) from error
    finally:
        fresh.disconnect()
    if not worked:
        raise OperationError(_refusal("the connection opened, but no command ran"))


def _refusal(found: str) -> str:
    return (
        f"{host.name}: after this change a new SSH connection failed ({found}). The host restores the old state "
        f"within {ROLLBACK_AFTER} s. Check access.networks and access.deploy_keys in instance.yaml, "
        "then run deploy again."
    )


class Confirmed(FactBase[str]):
    """Digest of the live state that was confirmed, and of the live state now, as one line `old new`."""

    def command(self, live: str, record: str) -> str:
        """`live` is a command that prints the live state in a form that does not change by itself."""
        return f'echo "$(cat {record} 2>/dev/null) $({live} 2>/dev/null | sha256sum | cut -c1-64)"'

    def process(self, output: list[str]) -> str:
        """As printed."""
        return output[0].strip() if output else ""


@operation()
def confirmed_file(file: ManagedFile, apply: str, live: str, unit: str) -> Commands:
    """Put a file in place and apply it, but only for good when we can still sign in.

    + file: its old content (or absence) is what the rollback restores
    + apply: command that makes the host use the file at its place
    + live: command that prints the live state, to see changes made behind our back
    + unit: name for the rollback's timer; a run that died leaves the timer, which ends by itself
    """
    record = f"/var/lib/mastodon-gov/{unit}.sha256"
    before, _, now = host.get_fact(Confirmed, live=live, record=record).partition(" ")
    same_file = host.get_fact(FileStates, paths=[file.path]).get(file.path) == file.state
    if same_file and before and before == now:
        return
    old, path = QuoteString(f"/var/lib/mastodon-gov/{unit}.before"), QuoteString(file.path)
    # The copy is taken only when no rollback is pending: its timer may hold the last state that was good.
    keep = StringCommand(
        f"systemctl is-active -q {unit}-rollback.timer || {{ rm -f",
        old,
        "; [ ! -e",
        path,
        "] || cp -p",
        path,
        old,
        "; }",
    )
    # A program inside a program: here the words are quoted by hand, because a QuoteString would print its own name.
    kept, place = (shlex.quote(path) for path in (f"/var/lib/mastodon-gov/{unit}.before", file.path))
    restore = f"if [ -e {kept} ]; then cp -p {kept} {place}; else rm -f {place}; fi; {apply}"
    arm = StringCommand(
        f"systemctl is-active -q {unit}-rollback.timer || systemd-run -q --collect --unit={unit}-rollback",
        f"--on-active={ROLLBACK_AFTER} --timer-property=AccuracySec=1s sh -c",
        QuoteString(restore),
    )
    yield keep
    yield arm
    yield file.make()
    yield StringCommand(apply)
    yield FunctionCommand(_probe, (), {})
    confirm = (
        f"systemctl is-active -q {unit}-rollback.timer || "
        "{ echo 'the rollback was faster than the confirmation; run deploy again' >&2; exit 3; }; "
        f"systemctl stop {unit}-rollback.timer && {live} 2>/dev/null | sha256sum | cut -c1-64 > {record}"
    )
    yield StringCommand("sh -c", QuoteString(confirm))
