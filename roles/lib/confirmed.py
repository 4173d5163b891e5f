"""Changes that can lock us out: applied with a timer that takes them back unless a new connection confirms them."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence

from pyinfra import host, state
from pyinfra.api import FactBase, FunctionCommand, OperationError, QuoteString, StringCommand, operation

from roles.lib import Commands
from roles.lib.files import ManagedFile, declare, file_states

ROLLBACK_AFTER = 60  # seconds the host waits for our confirmation
PROBE_FOR = 20  # seconds we try; sshd closes its port for a moment when it reads new settings
PENDING = "/var/lib/mastodon-gov/rollback"  # one script for each change that nobody confirmed yet


def _signs_in() -> str:
    """Sign in once more, over a connection of its own, as the next deploy will have to; "" or what went wrong."""
    fresh = type(host.connector)(state, host)
    try:
        fresh.connect()
        worked, _ = fresh.run_shell_command(StringCommand("true"), False, False, _timeout=PROBE_FOR)
    except Exception as error:  # whatever a connector raises: it did not work
        return str(error)
    finally:
        fresh.disconnect()
    return "" if worked else "the connection opened, but no command ran"


def _probe() -> None:
    """Raises OperationError when we cannot sign in; the host's timer then restores what was there before."""
    deadline = time.monotonic() + PROBE_FOR
    while found := _signs_in():
        if time.monotonic() > deadline:
            raise OperationError(_refusal(found))
        time.sleep(0.2)


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


def confirmed_file(*, name: str, file: ManagedFile, apply: str, live: str, unit: str) -> None:
    """Put a file in place and apply it, but only for good when we can still sign in.

    + file: its old content (or absence) is what the rollback restores
    + apply: command that makes the host use the file at its place
    + live: command that prints the live state, to see changes made behind our back
    + unit: name for the rollback's timer; a run that died leaves the timer, which ends by itself
    """
    declare([file.path])
    _confirmed_file(name=name, file=file, apply=apply, live=live, unit=unit)


@operation()
def _confirmed_file(file: ManagedFile, apply: str, live: str, unit: str) -> Commands:
    record = f"/var/lib/mastodon-gov/{unit}.sha256"
    before, _, now = host.get_fact(Confirmed, live=live, record=record).partition(" ")
    same_file = file_states([file.path]).get(file.path) == file.state
    if same_file and before and before == now:
        return
    # Programs inside a program: the words are quoted by hand, because a QuoteString would print its own name.
    old, path = (shlex.quote(word) for word in (f"/var/lib/mastodon-gov/{unit}.before", file.path))
    keep = f"rm -f {old}; [ ! -e {path} ] || cp -p {path} {old}"
    restore = f"if [ -e {old} ]; then cp -p {old} {path}; else rm -f {path}; fi"
    done = f"{live} 2>/dev/null | sha256sum | cut -c1-64 > {record}"
    yield from guarded(unit, [file.make()], keep=keep, restore=restore, apply=apply, done=done)


def guarded(  # noqa: PLR0913
    unit: str, change: Sequence[StringCommand], *, keep: str, restore: str, apply: str, done: str
) -> Commands:
    """A change that can lock us out, and the way back unless a new connection can be opened; shell commands.

    + keep, restore: save what there was before, and put it back
    + apply: has the host use what was changed or restored
    + done: records what was confirmed
    """
    script = f"{PENDING}/{unit}"
    # The copy is taken only when no rollback is pending: it may be the last state that was good. The script appears
    # whole, after the copy it needs; a host that restarts runs it before the network (mfg-rollback.service).
    kept = (
        f"[ -e {script} ] || {{ {keep}; printf '%s\\n' {shlex.quote(restore)} > {script}.new; sync; "
        f"mv {script}.new {script}; }}"
    )
    timed = f"sh {script} && {{ {apply}; }}; rm -f {script}"
    arm = (
        f"systemctl is-active -q {unit}-rollback.timer || systemd-run -q --collect --unit={unit}-rollback "
        f"--on-active={ROLLBACK_AFTER} --timer-property=AccuracySec=1s sh -c {shlex.quote(timed)}"
    )
    yield StringCommand("sh -c", QuoteString(f"mkdir -p {PENDING} && {{ {kept}; }} && {{ {arm}; }}"))
    yield from change
    yield StringCommand(apply)
    yield FunctionCommand(_probe, (), {})
    confirm = (
        f"systemctl is-active -q {unit}-rollback.timer || "
        "{ echo 'the rollback was faster than the confirmation; run deploy again' >&2; exit 3; }; "
        f"systemctl stop {unit}-rollback.timer && rm -f {script} && {done}"
    )
    yield StringCommand("sh -c", QuoteString(confirm))
