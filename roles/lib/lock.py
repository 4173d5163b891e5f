"""One deploy at a time: a lock on the host that dies with the connection of the run that holds it."""

from __future__ import annotations

import getpass
import shlex
import socket
from datetime import UTC, datetime
from typing import Any

from pyinfra import host, state
from pyinfra.api import OperationError, operation

from roles.lib import Commands
from roles.lib.progress import tell_waiting

# `flock` keeps the lock as long as `cat` waits for an end of input, and that comes when our connection ends, however
# it ends. The holder's name lies in the file for whoever comes second. What a killed run had started goes on without
# it (a migration, an installation), so the lock is ours only when all of that has ended: the kernel keeps who signed
# in (loginuid) and in which session with every process; those of sshd itself are other connections, not work. A process
# with a terminal (the seventh word of stat) is a person's: a deploy opens none.
HOLD = """\
install -d -m 755 /run/mastodon-gov
exec 9<>/run/mastodon-gov/deploy.lock
flock -n 9 || { cat /run/mastodon-gov/deploy.lock; exit 75; }
read -r who; echo "$who" > /run/mastodon-gov/deploy.lock
read -r mine < /proc/self/sessionid
left() {
  for found in $(grep -lx "$SUDO_UID" /proc/[0-9]*/loginuid); do
    process=${found%/loginuid} session="" name="" state=""
    read -r session < "$process/sessionid"; read -r name < "$process/comm"; read -r state < "$process/stat"
    case $name in "" | sshd | sshd-session) continue ;; esac
    set -- ${state##*) }
    [ "$session" = "$mine" ] || [ "$5" != 0 ] || echo "$name (process ${process#/proc/})"
  done
} 2>/dev/null
n=0
while work=$(left); [ -n "$work" ]; do
  n=$((n+1)); [ $n -lt 600 ] || { echo "left" $work; exit 75; }
  [ $n != 2 ] || echo "waits" $work
  sleep 0.5
done
echo held; cat >/dev/null
"""
_held: dict[str, Any] = {}  # channels must live as long as the run


@operation()
def deploy_lock() -> Commands:
    """Take the host's lock or fail with who holds it and since when; changes nothing, and nothing at all with --dry."""
    if state.is_executing and host.name not in _held:
        _take()
    host.noop("the lock is not a change")
    yield from ()


def _take() -> None:
    client = getattr(host.connector, "client", None)
    if client is None:
        return  # a connector without SSH is a unit test's
    channel = client.get_transport().open_session()
    channel.exec_command(f"sudo -n sh -c {shlex.quote(HOLD)}")
    me = f"{getpass.getuser()}@{socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    channel.sendall(f"{me}\n".encode())
    answer = ""
    # One line while it waits, then one that ends it; none where the connection broke.
    for line in channel.makefile("rb"):
        answer = line.decode(errors="replace").strip()
        if not answer.startswith("waits "):
            break
        tell_waiting(
            f"{host.name}: waits, for 5 minutes at most, until what an earlier run or another sign-in as this account "
            f"has started there ends: {answer[6:]}"
        )
    if answer.startswith("left "):
        raise OperationError(
            f"{host.name}: what an earlier run or another sign-in as this account has started still works after "
            f"5 minutes: {answer[5:]}. Look at these processes on the host; when they have ended, run deploy again."
        )
    if answer != "held":
        raise OperationError(
            f"{host.name}: another deploy is running ({answer or 'its name is not known'}). "
            "Wait until it has ended, then run deploy again."
        )
    _held[host.name] = channel
