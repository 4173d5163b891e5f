#!/usr/bin/python3 -B
"""Write a manifest into the backup bucket for every backup that has none; docs/decisions/backup-set.md has its form.

Prints JSON: the labels of the manifests it wrote. Exit code 1 with a sentence when one could not be written; the next
run makes up for it. A copy of each lies in /var/lib/mastodon-gov/manifests. With --observe it writes nothing, and
prints what a manifest would say of the live database and its release.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from roles.backups.files.backup_bucket import Refused, keys, request
    from roles.backups.files.backup_host import STATE, Unanswered, pgbackrest, psql, put, settings
else:  # on the host the programs lie side by side
    from backup_bucket import Refused, keys, request
    from backup_host import STATE, Unanswered, pgbackrest, psql, put, settings

COPIES = STATE / "manifests"
ENVIRONMENT = Path("/etc/mastodon/mastodon.env")
RELEASE = Path("/opt/mastodon/current")
DATABASE = "mastodon_production"
# What a restore without these would not be: their secrets by their names in the environment file.
SECRETS = (
    "SECRET_KEY_BASE ACTIVE_RECORD_ENCRYPTION_PRIMARY_KEY ACTIVE_RECORD_ENCRYPTION_DETERMINISTIC_KEY "
    "ACTIVE_RECORD_ENCRYPTION_KEY_DERIVATION_SALT VAPID_PRIVATE_KEY VAPID_PUBLIC_KEY"
).split()
TABLES = "accounts users statuses media_attachments follows custom_emojis keypairs".split()
NOW = """
select json_build_object('at', floor(extract(epoch from clock_timestamp()))::bigint,
  'lsn', pg_current_wal_insert_lsn(), 'postgresql', current_setting('server_version'),
  'there', (select count(*) from pg_database where datname = :'name'));
select 'select floor(extract(epoch from max(at)))::bigint from mfg.heartbeat'
  where to_regclass('mfg.heartbeat') is not null \\gexec
"""
SHAPE = """
select json_build_object('tables', (select coalesce(json_agg(relname), '[]') from pg_class
    where relnamespace = 'public'::regnamespace and relkind = 'r'),
  'collation', (select json_build_object('provider', datlocprovider, 'collate', datcollate, 'version', datcollversion)
    from pg_database where datname = current_database()));
"""

COUNT = """select count(*), coalesce(max(id), 0) from public.:"table";"""


def mac(key: bytes, text: str) -> bytes:
    """HMAC-SHA256."""
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def fingerprints(label: str, values: dict[str, str], cipher_pass: str) -> dict[str, str]:
    """Of each secret by its dotted name; worth nothing without the cipher pass."""
    key = mac(cipher_pass.encode(), f"fingerprint {label}")
    return {name: mac(key, f"{name}\0{value}").hex() for name, value in values.items()}


def sealed(manifest: dict[str, Any], cipher_pass: str) -> dict[str, Any]:
    """The manifest with its seal: who only has the S3 key cannot make one."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return {**manifest, "seal": mac(mac(cipher_pass.encode(), "manifest"), text).hex()}


def environment() -> dict[str, str]:
    """What Mastodon runs with; empty where it is not on this host yet."""
    lines = ENVIRONMENT.read_text().splitlines() if ENVIRONMENT.exists() else []
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def release() -> dict[str, Any] | None:
    """Identity of the active release: what RELEASE.json says, and the digest over all its files."""
    if not (RELEASE / "RELEASE.json").exists():
        return None
    known = json.loads((RELEASE / "RELEASE.json").read_text())
    manifest = hashlib.sha256((RELEASE / "MANIFEST.sha256").read_bytes()).hexdigest()
    return {**{name: known.get(name) for name in ("name", "version", "commit", "standin")}, "manifest": manifest}


def observed() -> tuple[dict[str, Any], dict[str, Any]]:
    """The live database now, and what it is made of. Tables that are not there are left out."""
    lines = psql(NOW, name=DATABASE).split("\n")
    now = json.loads(lines[0])
    made = {"postgresql": now.pop("postgresql").split(" ")[0], "schema": None, "collation": None}
    seen: dict[str, Any] = {**now, "heartbeat": int(lines[1]) if lines[1:] and lines[1] else None}
    seen |= {"counts": {}, "max_ids": {}}
    if not seen.pop("there"):
        return seen, made
    shape = json.loads(psql(SHAPE, DATABASE))
    made["collation"] = shape["collation"]
    if "schema_migrations" in shape["tables"]:
        made["schema"] = psql("select max(version) from public.schema_migrations", DATABASE) or None
    for table in (name for name in TABLES if name in shape["tables"]):
        count, newest = psql(COUNT, DATABASE, table=table).split("|")
        seen["counts"][table], seen["max_ids"][table] = int(count), int(newest)
    return seen, made


def manifest(conf: dict[str, str], backup: dict[str, Any], system_id: str, configuration: str | None) -> dict[str, Any]:
    """Everything that belongs to one backup, sealed."""
    seen, made = observed()
    env, label = environment(), backup["label"]
    values = {f"mastodon.{name.lower()}": env[name] for name in SECRETS if name in env}
    values["backups.cipher_pass"] = conf["repo1-cipher-pass"]
    document = {
        "format": 1,
        "stanza": conf["stanza"],
        "label": label,
        "type": backup["type"],
        "prior": backup["prior"],
        "start": backup["timestamp"]["start"],
        "stop": backup["timestamp"]["stop"],
        "lsn_start": backup["lsn"]["start"],
        "lsn_stop": backup["lsn"]["stop"],
        "wal_start": backup["archive"]["start"],
        "wal_stop": backup["archive"]["stop"],
        "system_id": system_id,
        "bytes": backup["info"]["size"],
        "repository_bytes": backup["info"]["repository"]["delta"],
        "release": release(),
        "domain": {"handle": env["LOCAL_DOMAIN"], "web": env["WEB_DOMAIN"]} if env else None,
        "media": {name: env[f"S3_{name.upper()}"] for name in ("endpoint", "region", "bucket")} if env else None,
        "configuration": configuration,
        "fingerprints": fingerprints(label, values, conf["repo1-cipher-pass"]),
        "observed": seen,
        **made,
    }
    return sealed(document, conf["repo1-cipher-pass"])


def missing(conf: dict[str, str]) -> list[tuple[dict[str, Any], str]]:
    """Backups of the first repository without a manifest, each with its database's system id."""
    code, out, err = pgbackrest(conf, "--repo=1", "--output=json", "info", timeout=120)
    found = json.loads(out, strict=False) if out else []
    if code or not found or found[0]["status"]["code"] != 0:
        raise Unanswered(f"pgBackRest shows no backup: {(err or out).strip()[:300]}")
    systems = {each["id"]: str(each["system-id"]) for each in found[0]["db"]}
    there = set(keys(conf, "manifests/"))
    backups = [each for each in found[0]["backup"] if f"manifests/{each['label']}.json" not in there]
    return [(backup, systems[backup["database"]["id"]]) for backup in backups]


def write(conf: dict[str, str]) -> list[str]:
    """Write what is missing and return the labels; copies of manifests whose backup has gone are removed."""
    COPIES.mkdir(mode=0o755, exist_ok=True)
    found = keys(conf, "configuration/")
    configuration = found[-1] if found else None
    written = []
    for backup, system_id in missing(conf):
        document = manifest(conf, backup, system_id, configuration)
        request(conf, "PUT", f"manifests/{backup['label']}.json", json.dumps(document, indent=1).encode())
        put(COPIES / f"{backup['label']}.json", document)
        written.append(backup["label"])
    for old in sorted(COPIES.glob("*.json"), key=lambda path: path.stat().st_mtime)[:-400]:
        old.unlink()
    return written


def main() -> None:
    """One JSON document on standard output."""
    began = time.monotonic()
    try:
        if sys.argv[1:] == ["--observe"]:
            seen, made = observed()
            print(json.dumps({"release": release(), **made, "observed": seen}))
            return
        written = write(settings())
    except (Refused, Unanswered) as error:
        sys.exit(f"The backup's manifest was not written: {error}. The next backup makes up for it.")
    print(json.dumps({"written": written, "seconds": round(time.monotonic() - began, 2)}))


if __name__ == "__main__":
    main()
