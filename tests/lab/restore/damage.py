"""Runs on a host: what verify.py says of a small cluster, whole and after some bytes of one file were overwritten.

    damage.py DIRECTORY RELATION

Prints JSON: for `whole` and `damaged`, the sentences on indexes and on pages.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from roles.restore.files import verify
    from roles.restore.files.recovery import PORT, Copy, sql
else:  # the host's own programs
    sys.path.insert(0, "/usr/local/lib/mastodon-gov")
    import verify
    from recovery import PORT, Copy, sql

BIN = Path("/usr/lib/postgresql/17/bin")
ROWS = """create table rows as select n id, repeat(n::text, 20) what from generate_series(1, 20000) n;
create index rows_id on rows (id)"""
PAGE = 8192


def postgres(*words: str) -> None:
    """Run as the account of the copy."""
    given = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--", *words]
    subprocess.run(given, check=True, cwd="/", stdout=sys.stderr)


def server(copy: Copy, what: str) -> None:
    """Start or stop it."""
    options = f"-p {PORT} -k {copy.run} -c listen_addresses=''"
    postgres(str(BIN / "pg_ctl"), "-D", str(copy.data), "-l", str(copy.log), "-o", options, "-w", what)


def looked(copy: Copy) -> list[list[str]]:
    """Both looks; the server runs before and is stopped after."""
    indexes = verify.damaged_indexes(copy, BIN)
    server(copy, "stop")
    return [indexes, verify.damaged_pages(copy, BIN)]


def main() -> None:
    """Make, look, damage, look."""
    home = Path(sys.argv[1])
    copy = Copy(data=home / "data", run=home / "run", log=home / "log", user="postgres", unit="")
    for place in (home, copy.run):
        place.mkdir()
        shutil.chown(place, "postgres", "postgres")
    try:
        postgres(str(BIN / "initdb"), "-D", str(copy.data), "-A", "trust", "--data-checksums", "-N")
        server(copy, "start")
        sql(copy, f"create database {verify.DATABASE}")
        sql(copy, ROWS, verify.DATABASE)
        path = copy.data / sql(copy, f"select pg_relation_filepath('{sys.argv[2]}')", verify.DATABASE)
        whole = looked(copy)
        with path.open("r+b") as file:
            file.seek(3 * PAGE + PAGE // 2)
            file.write(b"\xa5" * 64)
        server(copy, "start")
        print(json.dumps({"whole": whole, "damaged": looked(copy)}))
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
