#!/usr/bin/python3 -IB
"""Facts of the role backups for the audit: one JSON document. Reads only; no arguments."""

from __future__ import annotations

import configparser
import hmac
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roles.base.files.facts_lib import output, psql, state, tell
else:  # on the host the programs' common part lies one directory up
    sys.path.insert(0, "/usr/local/lib/mastodon-gov")
    from facts_lib import output, psql, state, tell

CONF = Path("/etc/pgbackrest.conf")
STATE = Path("/var/lib/mastodon-gov")
STATUS = "/usr/local/lib/mastodon-gov/backup-status"
# As drill.py signs, and as `mastodon-gov escrow check` writes it down.
HOST_KEY, NAMESPACE, ESCROW = Path("/etc/ssh/ssh_host_ed25519_key.pub"), "mastodon-drill", "escrow"
SQL = """SELECT json_build_object('mode', current_setting('archive_mode'),
  'waiting', (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'),
  'oldest', (SELECT coalesce(extract(epoch FROM now() - min(modification)), 0)::int FROM pg_ls_archive_statusdir()
    WHERE name LIKE '%.ready'),
  'failing', coalesce(last_failed_time > last_archived_time, last_failed_time IS NOT NULL)) FROM pg_stat_archiver;"""


def repository() -> dict[str, Any]:
    """What the repository holds, by pgBackRest's own word. Its exit code says nothing, its status does."""
    conf = configparser.ConfigParser(interpolation=None)
    conf.read_string(CONF.read_text())
    stanza = next(name for name in conf.sections() if name != "global")
    words = ("timeout", "25", "pgbackrest", f"--stanza={stanza}", "--output=json", "--log-level-file=off", "info")
    told = json.loads(output("runuser", "-u", "postgres", "--", *words), strict=False)[0]
    full = [each["timestamp"]["stop"] for each in told["backup"] if each["type"] == "full"]
    return {
        "status": told["status"]["message"],
        "cipher": sorted({repo["cipher"] for repo in told["repo"]}),
        "type": conf["global"]["repo1-type"],
        "full": len(full),
        "age": int(time.time()) - max(full) if full else None,
        "damaged": [each["label"] for each in told["backup"] if each.get("error")],
    }


def status() -> dict[str, Any]:
    """What the host's own monitor sees now: sentences, and the bucket's lock by the bucket's own word."""
    told = json.loads(output(STATUS))
    return {name: told[name] for name in ("problems", "lock")}


def archiver() -> dict[str, Any]:
    """PostgreSQL's own view of what it sends away; `oldest` in seconds."""
    told: dict[str, Any] = json.loads(psql(SQL))
    return told


def timer() -> str:
    """Whether the nightly backup is planned, and stays so."""
    return state("mfg-backup.timer")


def conf() -> str:
    """Owner, group and mode of the file with keys and passphrase."""
    return f"{CONF.owner()}:{CONF.group()} {CONF.stat().st_mode & 0o7777:04o}"


def since() -> int:
    """Seconds since this database was made: its number begins with that moment."""
    return int(time.time()) - (int(psql("SELECT system_identifier FROM pg_control_system();")) >> 32)


def drill() -> dict[str, Any]:
    """The newest evidence, and the newest good one; `age` in seconds."""
    evidence = [(path, json.loads(path.read_text())) for path in sorted((STATE / "drills").glob("*.json"))]
    good = [(path, told) for path, told in evidence if told["rc"] == 0]
    found: dict[str, Any] = {"rc": evidence[-1][1]["rc"] if evidence else None, "age": None, "since": since()}
    if good:
        path, told = good[-1]
        found |= {name: told.get(name) for name in ("label", "rto_s", "rpo_s", "counts", "egress")}
        found |= {"age": int(time.time()) - told["at"], "signed": signed(path)}
    return found


def signed(evidence: Path) -> bool:
    """Whether this host signed exactly this."""
    signers = os.memfd_create("signers")
    os.write(signers, b"host " + HOST_KEY.read_bytes())
    words = ["ssh-keygen", "-q", "-Y", "verify", "-f", f"/dev/fd/{signers}", "-I", "host", "-n", NAMESPACE, "-s"]
    done = subprocess.run(
        [*words, f"{evidence}.sig"], input=evidence.read_bytes(), capture_output=True, check=False, pass_fds=(signers,)
    )
    os.close(signers)
    return done.returncode == 0


def escrow() -> dict[str, Any]:
    """What the last check of the envelope left: whether the passphrase in it is the one in use; `age` in seconds."""
    record, found = STATE / "escrow.json", {"same": None, "age": None, "since": since()}
    if record.exists():
        told = json.loads(record.read_text())
        conf = configparser.ConfigParser(interpolation=None)
        conf.read_string(CONF.read_text())
        mark = hmac.digest(conf["global"]["repo1-cipher-pass"].encode(), ESCROW.encode(), "sha256").hex()
        found |= {"same": hmac.compare_digest(mark, told["fingerprint"]), "age": int(time.time()) - told["at"]}
    return found


if __name__ == "__main__":
    parts = {"repository": repository, "status": status, "archiver": archiver, "timer": timer, "conf": conf}
    tell({**parts, "drill": drill, "escrow": escrow})
