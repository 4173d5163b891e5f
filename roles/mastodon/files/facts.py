#!/usr/bin/python3 -IB
"""Facts of the role mastodon for the audit: one JSON document. Reads only; no arguments. Secrets are compared here."""

from __future__ import annotations

import http.client
import json
import os
import pwd
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roles.base.files.facts_lib import output, psql, tell
    from roles.mastodon.files.release_tree import check_tree
else:  # on the host the programs' common part lies one directory up
    sys.path.insert(0, "/usr/local/lib/mastodon-gov")
    from facts_lib import output, psql, tell
    from release_tree import check_tree

FILE = Path("/etc/mastodon/mastodon.env")
CURRENT = Path("/opt/mastodon/current")
KINDS = ("web", "sidekiq", "streaming")
PORTS = {"a": 3000, "b": 3001}
SECRET = re.compile("SECRET|PASSWORD|PRIVATE_KEY|ENCRYPTION|REDIS_URL|ACCESS_KEY")
KEYS = ("PRIMARY_KEY", "DETERMINISTIC_KEY", "KEY_DERIVATION_SALT")
TOLD = ("EMAIL_DOMAIN_LISTS_APPLY_AFTER_CONFIRMATION", "IP_RETENTION_PERIOD", "SESSION_RETENTION_PERIOD")
SQL = """SELECT json_build_object(
  'mode', (SELECT value FROM settings WHERE var = 'registrations_mode'),
  'everyone', (SELECT json_agg(permissions) FROM user_roles WHERE id = -99),
  'powerful', (SELECT coalesce(json_agg(json_build_object('name', a.username, 'role', r.name,
     'powers', r.permissions & (1 | 64 | 131072)) ORDER BY a.username), '[]') FROM users u
     JOIN accounts a ON a.id = u.account_id JOIN user_roles r ON r.id = u.role_id
     WHERE r.permissions & (1 | 64 | 131072) <> 0),
  'bypass', (SELECT coalesce(json_agg(name), '[]') FROM user_roles WHERE permissions & 2097152 <> 0),
  'invites', (SELECT coalesce(json_agg(json_build_object('id', i.id, 'uses', i.max_uses,
     'hours', extract(epoch FROM i.expires_at - i.created_at) / 3600, 'ledger',
     EXISTS (SELECT FROM gov.invitation g WHERE g.invite_id = i.id))), '[]') FROM invites i
     WHERE (i.expires_at IS NULL OR i.expires_at > now() AT TIME ZONE 'UTC')
       AND (i.max_uses IS NULL OR i.uses < i.max_uses)),
  'domains', (SELECT coalesce(json_agg(DISTINCT lower(split_part(e, '@', 2))), '[]')
     FROM users u, unnest(ARRAY[u.email, u.unconfirmed_email]) e WHERE e <> ''),
  'no_factor_asked', (SELECT coalesce(json_agg(name), '[]') FROM user_roles r
     WHERE to_jsonb(r) ? 'require_2fa' AND NOT (to_jsonb(r) ->> 'require_2fa')::boolean),
  'no_factor', (SELECT coalesce(json_agg(a.username), '[]') FROM users u JOIN accounts a ON a.id = u.account_id
     WHERE u.current_sign_in_at IS NOT NULL AND u.approved AND u.confirmed_at IS NOT NULL
       AND NOT u.otp_required_for_login AND NOT u.disabled
       AND NOT EXISTS (SELECT FROM webauthn_credentials w WHERE w.user_id = u.id)),
  'idle', (SELECT coalesce(json_agg(a.username), '[]') FROM users u JOIN accounts a ON a.id = u.account_id
     WHERE NOT u.disabled AND coalesce(u.current_sign_in_at, u.created_at) < now() - interval '90 days'),
  -- Of people: any stranger may register an application and get a token of its own, which opens what is public anyway.
  'idle_tokens', (SELECT count(*) FROM oauth_access_tokens t WHERE revoked_at IS NULL AND resource_owner_id IS NOT NULL
     AND coalesce((to_jsonb(t) ->> 'last_used_at')::timestamp, created_at) < now() - interval '90 days'),
  'migrations', (SELECT json_agg(version) FROM schema_migrations),
  'lock', (SELECT gov.status() -> 'failed'));"""
# `same`: as the last deploy left it.
DECLARED = """SELECT json_build_object(
  'accounts', (SELECT coalesce(json_agg(json_build_object('name', a.username, 'disabled', u.disabled) ORDER BY 1), '[]')
     FROM users u JOIN accounts a ON a.id = u.account_id WHERE a.domain IS NULL AND a.suspended_at IS NULL),
  'blocks', (SELECT coalesce(json_object_agg(domain, severity), '{}') FROM domain_blocks),
  'items', (SELECT coalesce(json_object_agg(item, json_build_object('wanted', i.wanted, 'same',
     i.release IS NOT NULL AND i.state IS NOT DISTINCT FROM l.state)), '{}')
     FROM gov.server_item i LEFT JOIN gov.server_live() l USING (item)));"""


def database() -> dict[str, Any]:
    """What the tables say; addresses only by their domain."""
    told: dict[str, Any] = json.loads(psql(SQL, "mastodon_production"))
    told["pending"] = sorted(_migrations() - set(told.pop("migrations")))
    return told


def declared() -> dict[str, Any]:
    """What organisations.yaml and `server:` of instance.yaml speak of, as it is."""
    told: dict[str, Any] = json.loads(psql(DECLARED, "mastodon_production"))
    return told


def _migrations() -> set[str]:
    return {path.name.split("_")[0] for path in CURRENT.glob("db/*migrate/[0-9]*.rb")}


def _file() -> dict[str, str]:
    lines = (line.partition("=") for line in FILE.read_text().splitlines())
    return {key: value for key, sign, value in lines if sign and not key.startswith("#")}


def _secrets() -> dict[str, str]:
    return {key: value.rpartition("@")[0] or value for key, value in _file().items() if SECRET.search(key) and value}


def environment() -> dict[str, object]:
    """Whether each process has what the file says. Ruby writes its title over its environment: there the file must be
    older than the process that read it. The values told are no secrets."""
    wanted, found = _file(), {}
    for kind, (slot, pid) in _running().items():
        rows = Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")
        has = {key: value for key, _, value in (row.partition("=") for row in rows) if key}
        if "RAILS_ENV" in has:
            found[kind] = sorted(key for key, value in wanted.items() if has.get(key) != value)
        else:
            unit = f"mastodon-{kind}@{slot}"
            began = output("systemctl", "show", "--timestamp=unix", "-P", "ExecMainStartTimestamp", unit)
            found[kind] = [] if FILE.stat().st_mtime <= float(began.strip().lstrip("@")) + 1 else ["it is older"]
    seen = FILE.stat()
    return {
        "differs": found,
        "keys": sorted(wanted),
        "file": f"{FILE.owner()}:{FILE.group()} {seen.st_mode & 0o7777:04o}",
        "told": {key: wanted.get(key) for key in TOLD},
    }


def _running() -> dict[str, tuple[str, str]]:
    """Slot and main process of each kind."""
    names = [(kind, slot) for kind in KINDS for slot in PORTS]
    shown = output("systemctl", "show", "-P", "MainPID", *(f"mastodon-{k}@{s}.service" for k, s in names)).split()
    return {kind: (slot, pid) for (kind, slot), pid in zip(names, shown, strict=True) if pid != "0"}


def keys() -> dict[str, object]:
    """The encryption keys: lengths, and whether they differ from each other and from upstream's sample."""
    values = [_file()[f"ACTIVE_RECORD_ENCRYPTION_{name}"] for name in KEYS] + [_file()["SECRET_KEY_BASE"]]
    sample = any(value.endswith("DO_NOT_USE_IN_PRODUCTION") for value in values)
    return {"shortest": min(map(len, values)), "different": len(set(values)) == len(values), "sample": sample}


def shown() -> dict[str, list[str]]:
    """Where a secret can be seen: names of processes that have one in their arguments, and unit files."""
    values = [value.encode() for value in _secrets().values()]
    found: dict[str, list[str]] = {"arguments": [], "units": []}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes()
        except OSError:
            continue  # it ended
        if any(value in text for value in values):
            found["arguments"].append(text.split(b"\0")[0].decode(errors="replace"))
    for path in Path("/etc/systemd/system").rglob("*"):
        if path.is_file() and any(value in path.read_bytes() for value in values):
            found["units"].append(str(path))
    return found


def journal() -> list[str]:
    """Names of the secrets that occur in the journal of the last day; grep gets the values on a pipe."""
    read, write = os.pipe()
    values = _secrets()
    os.write(write, "\n".join(values.values()).encode())
    os.close(write)
    log = subprocess.Popen(["journalctl", "-q", "-o", "cat", "--since=-1d"], stdout=subprocess.PIPE)
    found = subprocess.run(
        ["grep", "-aoF", "-f", f"/dev/fd/{read}"], stdin=log.stdout, pass_fds=(read,), capture_output=True, check=False
    )
    os.close(read)
    log.wait(timeout=30)
    seen = set(found.stdout.decode(errors="replace").splitlines())
    return sorted(key for key, value in values.items() if value in seen)


def strangers() -> list[str]:
    """Processes of account mastodon outside the units of Mastodon."""
    uid, found = pwd.getpwnam("mastodon").pw_uid, []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            group = (path / "cgroup").read_text()
            if path.stat().st_uid == uid and not re.search(r"/(mastodon-[a-z]+@[ab]|run-[a-z0-9-]+)\.service", group):
                found.append((path / "comm").read_text().strip())
        except OSError:
            continue  # it ended
    return sorted(found)


def answers() -> dict[str, object]:
    """What the application itself says of registration, asked past the proxy."""
    slot = _running()["web"][0]
    found: dict[str, object] = {}
    host = _file()["WEB_DOMAIN"]
    for name, path in {"api": "/api/v2/instance", "nodeinfo": "/nodeinfo/2.0", "page": "/auth/sign_up"}.items():
        connection = http.client.HTTPConnection("127.0.0.1", PORTS[slot], timeout=20)
        connection.request("GET", path, headers={"Host": host, "X-Forwarded-Proto": "https"})
        reply = connection.getresponse()
        body = reply.read()
        if name == "api":
            found[name] = json.loads(body)["registrations"]["enabled"]
        elif name == "nodeinfo":
            found[name] = json.loads(body)["openRegistrations"]
        else:
            found[name] = reply.status
    return found


def release() -> dict[str, Any]:
    """The release in force against its own manifest."""
    return check_tree(CURRENT.resolve())


def parts() -> dict[str, object]:
    """The release's list of parts, and installed gems and packages that it does not name."""
    bom = json.loads((CURRENT / "sbom.cdx.json").read_text())
    purls = {str(each.get("purl", "")).partition("@")[0] for each in bom["components"]}
    gems = [path.stem for path in CURRENT.glob("vendor/bundle/ruby/*/specifications/*.gemspec")]
    named = {purl.removeprefix("pkg:gem/") for purl in purls if purl.startswith("pkg:gem/")}
    missing = [gem for gem in gems if not any(gem.startswith(f"{name}-") for name in named)]
    npm = {purl.removeprefix("pkg:npm/").replace("%40", "@") for purl in purls if purl.startswith("pkg:npm/")}
    manifests = [*CURRENT.glob("node_modules/*/package.json"), *CURRENT.glob("node_modules/@*/*/package.json")]
    # By the package's own name: a directory may be an alias. A link leads to a part of Mastodon itself (streaming).
    modules = {json.loads(p.read_text())["name"] for p in manifests if not p.parent.is_symlink()}
    return {
        "format": bom["bomFormat"],
        "parts": len(bom["components"]),
        "gems": len(gems),
        "missing": sorted({*missing, *(modules - npm)})[:30],
    }


def versions() -> dict[str, str]:
    """What is in use, as each program says of itself."""
    node = output(str(CURRENT / "node/bin/node"), "--version").strip().lstrip("v")
    return {
        "debian": Path("/etc/debian_version").read_text().split(".")[0].strip(),
        "postgresql": psql("SHOW server_version;").split(".")[0],
        "ruby": _ruby(),
        "node": node.split(".")[0],
        "mastodon": CURRENT.resolve().name.partition("-")[0],
    }


def _ruby() -> str:
    """The version, and whether it is Debian's own package, which Debian mends as long as the system."""
    told, path = output("ruby", "-e", "puts RUBY_VERSION, RbConfig.ruby").split()
    version = ".".join(told.split(".")[:2])
    packaged = output("dpkg-query", "-S", path, codes=(0, 1)).startswith("ruby")
    return f"Debian's {version}" if packaged else f"{version}, not Debian's"


if __name__ == "__main__":
    looks = (database, declared, environment, keys, shown, journal, strangers, answers, release, parts, versions)
    tell({look.__name__: look for look in looks})
