"""A copy of the database from the backups, beside the running one: restore, start, recover.

For restore.py and drill.py (root, Debian 13, standard library only). The copy never archives, listens on one socket in
a directory of its own, and reaches nothing but the backup store.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from roles.restore.files.catalogue import Refused, Target, as_user, first_line, pgbackrest
    from roles.restore.files.choice import archived_at, ended, lsn, turned
else:  # on the host the programs lie side by side
    from catalogue import Refused, Target, as_user, first_line, pgbackrest
    from choice import archived_at, ended, lsn, turned

PORT = "5499"
REPLAY_ROOM = 1 << 30  # bytes that replaying WAL may need beside the database itself
LIVE = "postgresql@17-main.service"
NOT_REACHED = "recovery ended before configured recovery target was reached"
UNREADABLE = re.compile(r'could not restore file "(\S+)" from archive')
# Not what a segment that was not filled ends with: something else stands where a record was.
BROKEN = re.compile(
    r"((?:incorrect resource manager data checksum|record with incorrect prev-link|invalid resource manager ID).*"
    r" at ([0-9A-F]+/[0-9A-F]+))$",
    re.M,
)
# pgBackRest's exit codes where what lies in the repository is bad, and not the way to it: checksum, file-invalid,
# format, file-missing, backup-set-invalid, crypto, json-format.
DAMAGE = (26, 28, 29, 55, 75, 95, 99)


class Damaged(Refused):
    """A backup that cannot be restored because of what lies in the repository."""


@dataclass(frozen=True)
class Copy:
    """Where a copy lies, and whose it is."""

    data: Path
    run: Path
    log: Path
    user: str
    unit: str


def check_room(copy: Copy, backup: dict[str, Any]) -> None:
    """Refused when the copy would not fit, before anything is written."""
    place = next(parent for parent in copy.data.parents if parent.exists())
    have = shutil.disk_usage(place).free + used(copy.data)
    need = backup["info"]["size"] * 11 // 10 + REPLAY_ROOM
    if have < need:
        gib = 1 << 30
        raise Refused(
            f"The copy needs {need / gib:.1f} GiB at {place}, and {have / gib:.1f} GiB are free. Make room, or remove "
            "what an earlier restore kept (`mastodon-gov restore --sign-off`). Nothing was changed."
        )


def used(place: Path) -> int:
    """Bytes below a directory; 0 where there is none."""
    return sum(path.lstat().st_size for path in place.rglob("*") if path.is_file()) if place.exists() else 0


def fetch(copy: Copy, target: Target, label: str) -> None:
    """Restore the files. What an interrupted run had fetched is kept where pgBackRest can tell."""
    if copy.data.exists() and not (copy.data / "backup.manifest").exists():
        shutil.rmtree(copy.data)
    prepare(copy)
    kind = {"time": ["--type=time", f"--target={target.value}", "--target-action=promote"]}
    kind["name"] = ["--type=name", f"--target={target.value}", "--target-action=promote"]
    spool = f"{copy.run}/spool"
    place = [f"--pg1-path={copy.data}", f"--lock-path={spool}/lock", f"--log-path={copy.run}"]
    quiet = ["--log-level-console=off", "--log-level-stderr=error"]
    words = pgbackrest(target, *place, f"--spool-path={spool}", f"--set={label}", "--archive-mode=off", *quiet)
    words += [f"--recovery-option=restore_command={restore_command(pgbackrest(target, *place, *quiet))}"]
    done = as_user(copy.user, *words, *kind.get(target.kind, []), "restore", timeout=None)
    if done.returncode or not (copy.data / "PG_VERSION").exists():
        raise (Damaged if done.returncode in DAMAGE else Refused)(
            f"The backup {label} cannot be restored: {first_line(done.stderr)}. The running database was not touched. "
            "Try an earlier --to, or see `pgbackrest verify`."
        )


def restore_command(words: list[str]) -> str:
    """What the copy asks for WAL. Not asynchronous: pgBackRest 2.55 then fails for a while where a timeline ends (its
    issue 2423). PostgreSQL takes any failure for the end of all WAL, and starts; only where WAL is not there (1) that
    may be so, and with anything above 125 PostgreSQL ends instead."""
    asked = " ".join(f'"{word}"' for word in words)
    return f'{asked} --no-archive-async archive-get %f "%p" || exit $(($? == 1 ? 1 : 255))'


def prepare(copy: Copy) -> None:
    """Directories of the copy; those in /run are gone after a reboot."""
    for place in (copy.data, copy.run, copy.run / "spool"):
        place.mkdir(mode=0o700, exist_ok=True)
        shutil.chown(place, copy.user, "postgres")
    # The release's program that opens a secret comes through here.
    os.chmod(copy.run, 0o711)  # noqa: S103


def limits(copy: Copy, bin_: Path) -> list[str]:
    """Settings that recovery refuses to have lower than the primary's."""
    told = as_user(copy.user, str(bin_ / "pg_controldata"), str(copy.data)).stdout
    found = re.findall(r"^(max_\w+) setting: +(\d+)$", told, re.M)
    return [f"{name.replace('_xacts', '_transactions').replace('_xact', '_transaction')} = {n}" for name, n in found]


def start(copy: Copy, bin_: Path, *, read_only: bool) -> None:
    """Start the copy's server in a unit of its own, with the live unit's way to the backup store and no other."""
    prepare(copy)
    settings = [*limits(copy, bin_), "shared_buffers = 128MB", "jit = off", "hot_standby = on", "max_wal_size = 2GB"]
    settings += ["log_line_prefix = '%m '", "log_timezone = 'UTC'", "timezone = 'UTC'"]
    settings += [f"default_transaction_read_only = {'on' if read_only else 'off'}"]
    users = [(copy.user, "postgres"), ("root", "postgres"), ("mastodon-owner", "mastodon_owner")]
    write(copy, "postgresql.conf", settings)
    write(copy, "pg_hba.conf", ["local all postgres,mastodon_owner peer map=copy"])
    write(copy, "pg_ident.conf", [f"copy {system} {role}" for system, role in users])
    # On the command line, because ALTER SYSTEM on the primary is in the copy's own file and would win otherwise.
    own = {
        "config_file": copy.run / "postgresql.conf",
        "hba_file": copy.run / "pg_hba.conf",
        "ident_file": copy.run / "pg_ident.conf",
        "port": PORT,
        "listen_addresses": "",
        "unix_socket_directories": copy.run,
        "unix_socket_permissions": "0777",
        "external_pid_file": "",
        "archive_mode": "off",
        "primary_conninfo": "",
        "synchronous_standby_names": "",
        "shared_preload_libraries": "",
        "logging_collector": "off",
    }
    words = [str(bin_ / "postgres"), "-D", str(copy.data)]
    words += [word for name, value in own.items() for word in ("-c", f"{name}={value}")]
    copy.log.unlink(missing_ok=True)
    subprocess.run(["systemctl", "reset-failed", copy.unit], capture_output=True, check=False)
    done = subprocess.run(["systemd-run", "--quiet", *box(copy), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"The copy of the database cannot be started: {first_line(done.stderr)}.")


def write(copy: Copy, name: str, lines: list[str]) -> None:
    """A file of the copy's server."""
    path = copy.run / name
    path.write_text("\n".join(lines) + "\n")
    shutil.chown(path, copy.user, "postgres")


def box(copy: Copy) -> list[str]:
    """The unit: it writes into its own directories only, and reaches what PostgreSQL's own unit reaches."""
    asked = ["systemctl", "show", LIVE, "-p", "IPAddressAllow,IPAddressDeny"]
    shown = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    lists = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    reach = [f"{name}={net}" for name, nets in lists.items() for net in nets.split()]
    properties = [
        *(f"User={copy.user}", "Group=postgres", "KillSignal=SIGINT", "KillMode=mixed", "TimeoutStopSec=600"),
        *("ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes", "NoNewPrivileges=yes", "UMask=0077"),
        *(f"StandardError=append:{copy.log}", f"StandardOutput=append:{copy.log}"),
        f"ReadWritePaths={copy.data} {copy.run}",
        *reach,
    ]
    return [f"--unit={copy.unit}", *(word for each in properties for word in ("-p", each))]


def stop(copy: Copy) -> None:
    """Shut the copy down in order; nothing to do when it does not run."""
    subprocess.run(["systemctl", "stop", copy.unit], capture_output=True, check=False)


def runs(copy: Copy) -> bool:
    return subprocess.run(["systemctl", "is-active", "-q", copy.unit], check=False).returncode == 0


def sql(copy: Copy, text: str, database: str = "postgres", *, writable: bool = False) -> str:
    """Rows of a statement on the copy. Refused when the copy is gone or refuses."""
    words = [
        "psql",
        "-XqtA",
        "-v",
        "ON_ERROR_STOP=1",
        "-h",
        str(copy.run),
        "-p",
        PORT,
        "-U",
        "postgres",
        "-d",
        database,
    ]
    switch = "SET default_transaction_read_only = off;\n" if writable else ""
    done = as_user(copy.user, *words, "-f", "-", given=switch + text, timeout=None)
    if done.returncode:
        raise Refused(f"The copy of the database does not answer: {first_line(done.stderr)}.")
    return str(done.stdout).strip()


def history(copy: Copy) -> str:
    """The history of the timeline that the copy began when it was recovered: how far it came."""
    return max((copy.data / "pg_wal").glob("*.history")).read_text()


def unreadable(target: Target, copy: Copy, segment: str, why: str) -> Refused:
    """The sentence about WAL that is there and bad, or that could not be fetched."""
    return Refused(
        f"WAL {segment} of the backup repository cannot be read: {why}. If the store was away, run the same command "
        "again. If that file is damaged, `--to TIME` with a time some minutes before it was archived"
        f"{archived_at(target, segment, copy.user)}. The running database was not touched."
    )


def recover(copy: Copy, target: Target) -> str | None:
    """Wait until recovery has ended and the server still lives; returns the time of the last transaction (log's words).

    A server that cannot reach its target answers at first and dies seconds later (storage-backup-ha §2).
    """
    while runs(copy):
        try:
            if sql(copy, "select pg_is_in_recovery()") == "f":
                break
        except Refused:
            pass  # not up yet, or just gone: the unit says which
        time.sleep(0.2)
    log = copy.log.read_text(errors="replace") if copy.log.exists() else ""
    last = re.findall(r"last completed transaction was at log time (\S+ \S+)", log)
    if runs(copy):
        if broken := BROKEN.search(log):  # PostgreSQL takes this too for the end of all WAL
            timeline, _, _ = turned(history(copy))[-1]
            raise unreadable(target, copy, ended(timeline, lsn(broken[2]) + 1), broken[1])
        return last[-1] if last else None
    if NOT_REACHED in log:
        reached = f"the last change in them is of {last[-1]}" if last else "they end before any change"
        raise Refused(
            f"The backups do not reach {target.words}: {reached}. Either it lies after the last change, or WAL before "
            "it is missing. Choose a time before that one. The running database was not touched."
        )
    if unread := UNREADABLE.findall(log):
        why = re.findall(r"repo\d: (.{1,300})|ERROR: (.{1,300})", log)[-1:]
        raise unreadable(target, copy, unread[-1], "".join("".join(each) for each in why))
    words = [line for line in log.splitlines() if re.search(r"FATAL|PANIC|ERROR", line)][-3:]
    raise Refused(f"The copy's server ended during recovery: {' '.join(words) or 'it said nothing'}.")
