"""Whether a restored copy is whole: pages, indexes, counts against the manifest, secrets that open what lies in it.

For restore.py and drill.py. Every part says what it observed; `problems` are sentences, none is good.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from roles.restore.files.catalogue import BESIDE, Target, as_user, ask, configured, first_line, listing, parsed
    from roles.restore.files.recovery import PORT, Copy, sql
else:  # on the host the programs lie side by side
    from catalogue import BESIDE, Target, as_user, ask, configured, first_line, listing, parsed
    from recovery import PORT, Copy, sql

DATABASE = "mastodon_production"
ENVIRONMENT = Path("/etc/mastodon/mastodon.env")
RUN = "/usr/local/lib/mastodon-gov/mastodon-run"
CURRENT = Path("/opt/mastodon/current")
# What a query counts, and what stands for it in a manifest (docs/decisions/backup-set.md).
TABLES = ("accounts", "users", "statuses", "media_attachments", "follows", "custom_emojis", "keypairs")
DAY = 86400
FEW = 10  # rows that may be the newest ones and go on one day
# Opens one secret with the application's own keys; says nothing of what it holds. Keys of remote accounts are public
# only, and an older copy has no table for them.
OPEN = """
row = User.where.not(otp_secret: nil).first
row ||= Keypair.where.not(private_key: nil).first if defined?(Keypair) && Keypair.table_exists?
value = row && (row.respond_to?(:otp_secret) ? row.otp_secret : row.private_key)
puts(row.nil? ? "none" : value.to_s.empty? ? "empty" : "opened")
"""


def content(copy: Copy) -> dict[str, Any]:
    """What the copy holds: counts, highest ids, schema, the lock's own verdict, the last heartbeat."""
    there = set(sql(copy, "select tablename from pg_tables where schemaname = 'public'", DATABASE).splitlines())
    tables = [name for name in TABLES if name in there]
    counts = {t: int(sql(copy, f"select count(*) from public.{t}", DATABASE)) for t in tables}  # noqa: S608
    ids = {t: int(sql(copy, f"select coalesce(max(id), 0) from public.{t}", DATABASE)) for t in tables}  # noqa: S608
    lock = "select case when to_regprocedure('gov.status()') is null then '' else 'there' end"
    beats = sql(copy, "select coalesce(to_regclass('mfg.heartbeat')::text, '')")
    beat = sql(copy, "select extract(epoch from max(at)) from mfg.heartbeat") if beats else ""
    locked = bool(sql(copy, lock, DATABASE))
    schema = "schema_migrations" in there and sql(copy, "select max(version) from schema_migrations", DATABASE)
    return {
        "counts": counts,
        "max_ids": ids,
        "schema": schema or None,
        "lock": json.loads(sql(copy, "select gov.status()->'ok'", DATABASE)) if locked else None,
        "heartbeat": float(beat) if beat else None,
    }


def manifest_before(target: Target, when: float, user: str = "postgres") -> dict[str, Any] | None:
    """The newest manifest that speaks of a moment not after this one; one without a right seal, or under another's
    name, counts as absent. Newest first, because each is a question to the repository and none is ever removed."""
    latest = time.strftime("%Y%m%d-%H%M%S", time.gmtime(when + DAY))  # labels are in the host's own time zone
    began = {name: name.removesuffix(".json").rpartition("_")[2][:15] for name in _listed(target, user)}
    for name in sorted((name for name in began if began[name] <= latest), key=lambda name: began[name], reverse=True):
        told = parsed(ask(target, BESIDE, "--raw", "repo-get", f"manifests/{name}", user=user))
        sealed = hmac.compare_digest(str(told.get("seal")).encode(), seal(told).encode())
        if sealed and f"{told['label']}.json" == name and told["observed"]["at"] <= when:
            return told
    return None


def _listed(target: Target, user: str) -> list[str]:
    return [name for name in listing(target, "manifests", BESIDE, user=user) if name.endswith(".json")]


def _key(label: str) -> bytes:
    passphrase = configured()[1]["repo1-cipher-pass"].encode()
    return hmac.digest(passphrase, label.encode(), "sha256")


def seal(told: dict[str, Any]) -> str:
    """The seal that this manifest must carry."""
    text = json.dumps({k: v for k, v in told.items() if k != "seal"}, sort_keys=True, separators=(",", ":"))
    return hmac.new(_key("manifest"), text.encode(), hashlib.sha256).hexdigest()


def fingerprint_problems(told: dict[str, Any] | None) -> list[str]:
    """Secrets of this host that are not those of the backup, by name; none where one of the two is not there."""
    if told is None or not ENVIRONMENT.exists():
        return []
    lines = (line.partition("=") for line in ENVIRONMENT.read_text().splitlines() if "=" in line and line[0] != "#")
    here = {f"mastodon.{name.lower()}": value for name, _, value in lines}
    key = _key("fingerprint " + told["label"])
    wrong = [
        name
        for name, wanted in told["fingerprints"].items()
        if name in here and hmac.new(key, f"{name}\0{here[name]}".encode(), hashlib.sha256).hexdigest() != wanted
    ]
    return [
        f"The secrets of this host are not those of the backup: {', '.join(wrong)}. Nobody with a second factor "
        "could sign in. Put the secrets of that time into the instance directory "
        "(`mastodon-gov fetch-configuration`), deploy."
        for _ in wrong[:1]
    ]


def count_problems(seen: dict[str, Any], told: dict[str, Any] | None) -> list[str]:
    """Rows that must be there, because the manifest's moment lies before the target. The newest ones may have been
    deleted since: that is so when the copy has a later heartbeat and has not lost most of its rows."""
    then = told["observed"] if told else {"max_ids": {}}
    reached = (seen.get("heartbeat") or 0) >= (then.get("heartbeat") or float("inf"))
    low = [
        f"{t} ends at {seen['max_ids'].get(t, 0)}, expected {n}"
        for t, n in then["max_ids"].items()
        if seen["max_ids"].get(t, 0) < n and n and not (reached and _few_gone(seen, then, t))
    ]
    return [f"Rows of the manifest {told['label'] if told else ''} are missing: {'; '.join(low)}."] if low else []


def _few_gone(seen: dict[str, Any], then: dict[str, Any], table: str) -> bool:
    had, has = then["counts"].get(table, 0), seen["counts"].get(table, 0)
    return bool(had - has <= max(FEW, had // 2))


def damaged_indexes(copy: Copy, bin_: Path) -> list[str]:
    """pg_amcheck over the application's database; its extension is taken off again if it was not there."""
    had = sql(copy, "select count(*) from pg_extension where extname = 'amcheck'", DATABASE) != "0"
    words = [str(bin_ / "pg_amcheck"), "--install-missing", "--heapallindexed", "-j", "2", "-h", str(copy.run)]
    done = as_user(copy.user, *words, "-p", PORT, "-U", "postgres", DATABASE, timeout=None)
    if not had:
        sql(copy, "drop extension if exists amcheck", DATABASE, writable=True)
    found = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return [f"pg_amcheck found damage: {' '.join(found[:2]) or done.returncode}."] if done.returncode else []


def damaged_pages(copy: Copy, bin_: Path) -> list[str]:
    """pg_checksums over the stopped copy."""
    done = as_user(copy.user, str(bin_ / "pg_checksums"), "--check", "-D", str(copy.data), timeout=None)
    return [f"pg_checksums: {first_line(done.stderr or done.stdout)}."] if done.returncode else []


def asking(copy: Copy, release: Path) -> list[str]:
    """The words in front of a program of a release that shall work on the copy."""
    given = copy.run / "database.env"
    given.write_text(f"DB_HOST={copy.run}\nDB_PORT={PORT}\n")
    return ["env", f"MFG_ENVIRONMENT={given}", RUN, "mastodon-owner", str(release), "bundle", "exec"]


def opened(copy: Copy) -> tuple[str, list[str]]:
    """Open one secret of the copy through the application's keys; `not tried` where no release is installed."""
    if not CURRENT.exists():
        return "not tried", []
    words = [*asking(copy, CURRENT.resolve()), "rails", "runner", "-"]
    done = subprocess.run(words, input=OPEN, capture_output=True, text=True, check=False)
    word = (done.stdout.split() or [""])[-1]
    if done.returncode == 0 and word in ("opened", "none"):
        return word, []
    why = "the keys do not fit" if "Decryption" in done.stderr else first_line(done.stderr or word)
    return "failed", [
        f"No second factor in the copy can be opened with this host's secrets: {why}. Put the secrets of that time "
        "into the instance directory (`mastodon-gov fetch-configuration`), deploy, then restore."
    ]


def schema_problems(seen: dict[str, Any]) -> list[str]:
    """A database that only a newer release can have made cannot run here."""
    if not CURRENT.exists() or not seen["schema"]:
        return []
    known = [
        path.name.split("_")[0] for half in ("migrate", "post_migrate") for path in (CURRENT / "db" / half).glob("*_*")
    ]
    if seen["schema"] <= max(known, default=seen["schema"]):
        return []
    return [
        f"The copy holds migrations up to {seen['schema']}, which release {CURRENT.resolve().name} does not know. Set "
        "`release` in instance.yaml to the one of the backup, deploy, then restore."
    ]


def age(seen: dict[str, Any], when: float) -> float | None:
    """Seconds between the last heartbeat in the copy and a moment: what would be lost. None without a heartbeat."""
    return None if seen["heartbeat"] is None else round(when - seen["heartbeat"], 1)
