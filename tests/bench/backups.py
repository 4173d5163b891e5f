"""`make bench`: backup and restore with pgBackRest over S3, against pg_dump -Fc and pg_restore -j2 on the local disk.

    python -m tests.bench.backups [SCALE [LAB]]

pgbench makes a database of SCALE x 15 MB on the demo's host (100 is what the promise is about; 20 fits a small
machine). Both run there, one after the other; ratios of one run count, seconds of a busy machine do not.
"""

from __future__ import annotations

import sys
import time

from mastodon_gov.errors import Refusal
from mastodon_gov.lab.lab import Lab

PROMISED = 2.0
DIRECTORY, DUMP, PORT = "/var/lib/postgresql/mfg-bench", "/var/lib/postgresql/mfg-bench.dump", 5499
BIN = "/usr/lib/postgresql/17/bin"
BACKREST = "pgbackrest --stanza=social --repo=1 --log-level-console=warn"
# Debian keeps postgresql.conf in /etc; the copy must not archive into the live stanza, and needs the live limits.
START = (
    f"{BIN}/pg_ctl -w -t 600 -D {DIRECTORY} -l /dev/null start -o '-p {PORT} -c listen_addresses= "
    f"-c unix_socket_directories=/tmp -c config_file=/etc/postgresql/17/main/postgresql.conf "
    f"-c data_directory={DIRECTORY} -c external_pid_file= -c archive_mode=off'"
)
# First ours: what pg_restore makes would be backed up and restored too.
STEPS = {
    "pgBackRest full": f"{BACKREST} --type=full backup",
    "pgBackRest restore": f"mkdir -m 700 {DIRECTORY} && {BACKREST} --pg1-path={DIRECTORY} --archive-mode=off "
    f"--type=immediate --target-action=promote restore && {START} >/dev/null",
    "pg_dump -Fc": f"pg_dump -Fc -f {DUMP} mfg_bench",
    "pg_restore -j2": f"createdb mfg_bench2 && pg_restore -j2 -d mfg_bench2 {DUMP}",
}
CLEAN = (
    f"{BIN}/pg_ctl -D {DIRECTORY} -m immediate stop; rm -rf {DIRECTORY} {DUMP}; "
    "dropdb --if-exists mfg_bench2; dropdb --if-exists mfg_bench"
)


def main() -> None:
    """Print a table; exit 1 when a ratio is below what is promised."""
    scale, name = (*sys.argv[1:], *("100", "demo")[len(sys.argv) - 1 :])
    try:
        machine = Lab.open(name).machine("social")
    except Refusal as refusal:
        sys.exit(f"{refusal} Run `make demo` first.")

    def run(script: str, check: bool = True) -> float:
        began = time.monotonic()
        machine.exec(["runuser", "-u", "postgres", "--", "sh", "-c", f"cd /tmp; {script}"], check=check)
        return time.monotonic() - began

    run(CLEAN, check=False)
    try:
        run(f"createdb mfg_bench && {BIN}/pgbench -qi -s {scale} mfg_bench 2>&1 && psql -qc checkpoint")
        seconds = {step: run(script) for step, script in STEPS.items()}
    finally:
        run(CLEAN, check=False)
        # A backup without its manifest is an alarm, rightly.
        machine.exec(["systemctl", "start", "mfg-backup-manifest.service"])
    print(f"pgbench -s {scale}")
    for step, taken in seconds.items():
        print(f"{step:<24} {taken:8.1f} s")
    ratios = {
        "backup": seconds["pg_dump -Fc"] / seconds["pgBackRest full"],
        "restore": seconds["pg_restore -j2"] / seconds["pgBackRest restore"],
    }
    for what, ratio in ratios.items():
        print(f"{what}: {ratio:.1f} times as fast (promised: {PROMISED:.0f})")
    sys.exit(any(ratio < PROMISED for ratio in ratios.values()))


if __name__ == "__main__":
    main()
