#!/usr/bin/python3
"""What runs here, since when, and how it is: one JSON document. Reads, never writes.

Every part says what it observed, or `{"error": sentence}` when it could not look: a part that could not look is not
healthy.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

LIB = "/usr/local/lib/mastodon-gov"
CERTIFICATE = "/etc/mastodon-gov/tls/current/fullchain.pem"
QUEUES = ("default", "push", "ingress", "mailers", "pull", "scheduler", "fasp")
SERVICES = ("nginx", "postgresql@17-main", "redis-server", "ssh", "nftables", "chrony", "mastodon")


def output(*words: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30, env=env)
    return done.stdout


def program(name: str) -> object:
    command, *words = name.split()
    return json.loads(output(f"{LIB}/{command}", *words))


def services() -> dict[str, dict[str, object]]:
    shown = output("systemctl", "show", "--timestamp=unix", "-p", "Id,ActiveState,ActiveEnterTimestamp", *SERVICES)
    found = [dict(line.split("=", 1) for line in block.splitlines()) for block in shown.strip().split("\n\n")]
    return {
        unit["Id"]: {"state": unit["ActiveState"], "since": int(unit["ActiveEnterTimestamp"].lstrip("@") or 0)}
        for unit in found
    }


def certificate() -> dict[str, object]:
    text = output(
        "openssl",
        "x509",
        "-in",
        CERTIFICATE,
        "-noout",
        "-enddate",
        "-issuer",
        "-ext",
        "subjectAltName",
        "-dateopt",
        "iso_8601",
    )
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    ends = time.mktime(time.strptime(fields["notAfter"].rstrip("Z"), "%Y-%m-%d %H:%M:%S")) - time.timezone
    names = re.findall(r"DNS:([^,\s]+)", text)
    return {
        "issuer": fields["issuer"],
        "names": names,
        "not_after": int(ends),
        "days_left": int((ends - time.time()) // 86400),
    }


def disks() -> dict[str, dict[str, float]]:
    found = {}
    for place in ("/", "/var/lib/postgresql", "/opt/mastodon"):
        if os.path.exists(place):
            usage = shutil.disk_usage(place)
            found[place] = {
                "free_gib": round(usage.free / 2**30, 1),
                "used_percent": round(100 * usage.used / usage.total, 1),
            }
    return found


def queues() -> dict[str, object]:
    """Lengths, and how long the oldest job has waited (seconds). The password travels in the environment."""
    url = next(x for x in Path("/etc/mastodon/mastodon.env").read_text().splitlines() if x.startswith("REDIS_URL="))
    parts = urlsplit(url.removeprefix("REDIS_URL="))
    env = os.environ | {"REDISCLI_AUTH": parts.password or ""}

    def redis(*words: str) -> str:
        return output("redis-cli", "--user", parts.username or "default", "--no-auth-warning", *words, env=env).strip()

    waiting = {name: int(redis("LLEN", f"queue:{name}")) for name in QUEUES}
    oldest = [json.loads(job)["enqueued_at"] for name in QUEUES if (job := redis("LINDEX", f"queue:{name}", "-1"))]
    # Sidekiq 8 writes milliseconds, older ones seconds.
    ages = [time.time() - (when / 1000 if when > 1e11 else when) for when in oldest]
    sets = {name: int(redis("ZCARD", name)) for name in ("retry", "dead", "schedule")}
    return {
        "waiting": waiting,
        "oldest_s": round(max(ages, default=0.0), 1),
        "processes": int(redis("SCARD", "processes")),
        **sets,
    }


def lock() -> object:
    sql = "SELECT gov.status()->'ok', gov.status()->'failed'"
    ok, failed = (
        output("runuser", "-u", "postgres", "--", "psql", "-qtAX", "-d", "mastodon_production", "-c", sql)
        .strip()
        .split("|")
    )
    return {"ok": json.loads(ok), "failed": json.loads(failed)}


def failed_units() -> list[str]:
    return [
        line.split()[0] for line in output("systemctl", "list-units", "--failed", "--plain", "--no-legend").splitlines()
    ]


def drill() -> dict[str, object]:
    """The last drill that ended, and for how long none has succeeded (s); the first is due after the first deploy."""
    told = [json.loads(path.read_text()) for path in sorted(Path("/var/lib/mastodon-gov/drills").glob("*.json"))]
    good = [each["at"] for each in told if each["rc"] == 0]
    home = Path("/var/lib/mfg-drill")
    since = good[-1] if good else home.stat().st_mtime if home.exists() else time.time()
    last = {name: told[-1].get(name) for name in ("at", "rc", "label", "rpo_s", "rto_s", "problems")} if told else None
    return {"last": last, "without_s": int(time.time() - since)}


def sweep() -> dict[str, object]:
    """How many findings of each kind the last sweep had, and when it was."""
    told = json.loads(Path("/var/lib/mastodon-gov/sweep.json").read_text())
    return {"at": told["at"], "findings": dict(Counter(row["finding"] for row in told["findings"]))}


PARTS: dict[str, Callable[[], object]] = {
    "services": services,
    "slots": lambda: program("slots.py status"),
    "upgrade": lambda: program("journal.py last"),
    "certificate": certificate,
    "disks": disks,
    "queues": queues,
    "lock": lock,
    "sweep": sweep,
    "backup": lambda: program("backup-status"),
    "drill": drill,
    "restore": lambda: {"held": os.path.exists("/etc/nginx/held/held.conf")},
    "failed_units": failed_units,
    "owner_password_waits": lambda: os.path.exists("/var/lib/mastodon-gov/owner-first-password"),
}


def main() -> None:
    found: dict[str, object] = {
        "at": int(time.time()),
        "booted": int(time.time() - float(Path("/proc/uptime").read_text().split()[0])),
    }
    for name, look in PARTS.items():
        try:
            found[name] = look()
        except (OSError, ValueError, KeyError, IndexError, StopIteration, subprocess.SubprocessError) as error:
            found[name] = {"error": f"{type(error).__name__}: {error}"[:300]}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
