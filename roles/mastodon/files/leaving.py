#!/usr/bin/python3
"""Shut accounts at once, with everything that leads into them, or hand one back: for `mastodon-gov offboard`,
`lockdown`, `handback` and `handover`.

    leaving.py shut|handback|look|release      the request is JSON on standard input, the answer JSON on standard output

No Rails: one transaction as the operator's database role, then the streams. What was there is written to a file that
only root can read before anything changes. Exit 1 with a sentence when nothing changed.
"""

# ruff: noqa: S608 - every value in the SQL is a literal made by quoted(), or a number
from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent
PLACE = Path("/var/lib/mastodon-gov/evidence")
ENVIRONMENT = Path("/etc/mastodon/mastodon.env")
# The program itself: Debian's wrapper /usr/bin/psql reads files of the cluster that only postgres may read.
PSQL = "runuser -u mastodon-owner -- /usr/lib/postgresql/17/bin/psql -XqAt -v ON_ERROR_STOP=1".split()
PSQL += ["-U", "mastodon_owner", "-d", "mastodon_production"]
# A transaction of the application that holds a row for longer than this is stuck.
BEGIN = "BEGIN; SET LOCAL lock_timeout = '10s'; SET LOCAL timezone = 'UTC';"
END = "--end--"


class Refused(Exception):
    """A sentence for the person; nothing was changed."""


class Session:
    """One connection to the database, asked step by step."""

    def __init__(self) -> None:
        self.psql = subprocess.Popen(
            PSQL, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def ask(self, sql: str) -> list[str]:
        """Lines that the statements print."""
        return list(self.lines(sql))

    def lines(self, sql: str) -> Iterator[str]:
        """As they come. An error ends the session, and with it the transaction."""
        to_psql, said, errors = self.psql.stdin, self.psql.stdout, self.psql.stderr
        if not (to_psql and said and errors):
            raise Refused("psql could not be started.")
        try:
            to_psql.write(f"{sql}\n\\echo {END}\n")
            to_psql.flush()
        except BrokenPipeError:
            pass  # its last words are read below
        for line in said:
            if line.rstrip("\n") == END:
                return
            yield line.rstrip("\n")
        told = errors.read().strip() or "psql ended without a word"
        raise Refused(f"The database refused, and nothing was changed: {told.splitlines()[0]}")

    def one(self, sql: str) -> Any:
        """The one JSON document that the statements print; a refusal in it is ours."""
        answer = json.loads(self.ask(sql)[-1])
        if isinstance(answer, dict) and "refusal" in answer:
            raise Refused(answer["refusal"])
        return answer


def quoted(value: object) -> str:
    """A SQL literal; JSON for what is not text."""
    text = value if isinstance(value, str) else json.dumps(value)
    return "'" + text.replace("'", "''") + "'"


def found(session: Session, request: dict[str, Any], lock: bool) -> dict[int, str]:
    """User ids and names of the accounts that the request means. Locking their rows also keeps new sessions, tokens and
    posts out, which point to them."""
    users: dict[int, str] = {}
    handles = [name.lower() for name in request.get("handles", [])]
    addresses = [address.lower() for address in request.get("addresses", [])]
    asked = (
        "SELECT jsonb_build_array(u.id, a.username, lower(u.email)) FROM public.users u "
        "JOIN public.accounts a ON a.id = u.account_id WHERE a.domain IS NULL AND ("
        f"lower(a.username) IN (SELECT jsonb_array_elements_text({quoted(handles)})) OR "
        f"lower(u.email) IN (SELECT jsonb_array_elements_text({quoted(addresses)}))) ORDER BY u.id"
    )
    seen: set[str] = set()
    for line in session.ask(asked + (" FOR UPDATE;" if lock else ";")):
        number, name, address = json.loads(line)
        users[number] = name
        seen |= {name.lower(), address}
    if missing := [f"@{name}" for name in request.get("must", []) if name.lower() not in seen]:
        raise Refused(f"There is no account {', '.join(missing)} on this server. See `mastodon-gov people`.")
    if not users:
        raise Refused(
            f"Nobody with the address {', '.join(addresses)} has an account here, and organisations.yaml names "
            "no account of theirs. See `mastodon-gov people`."
        )
    return users


def script(name: str, users: dict[int, str]) -> str:
    """One of our SQL files, for these users."""
    ids = "{" + ",".join(map(str, users)) + "}"
    return f"\\set users '{ids}'\n" + (HERE / name).read_text()


def keep(evidence: list[dict[str, Any]], request: dict[str, Any]) -> Path:
    """Write down what was there, for root only, and be sure that it is on the disk."""
    PLACE.mkdir(mode=0o700, parents=True, exist_ok=True)
    names = "-".join(each["account"] for each in evidence[:3])
    at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = PLACE / f"{at}-{request['verb']}-{names}-{os.getpid()}.json"
    document = {"verb": request["verb"], "by": request["by"], "why": request["why"], "accounts": evidence}
    written(path, [json.dumps(document, indent=1)])
    return path


def written(path: Path, lines: Iterable[str]) -> str:
    """A new file for root only, surely on the disk. Returns its SHA-256."""
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for line in lines:
            digest.update(line.encode() + b"\n")
            file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def export(session: Session, users: dict[int, str], evidence: Path) -> dict[str, str]:
    """What the account said in public, one post in each line, as it stands in the database, beside the evidence."""
    path = evidence.with_suffix(".posts.jsonl")
    posts = (
        "SELECT to_jsonb(s) || jsonb_build_object('media', "
        "(SELECT coalesce(jsonb_agg(to_jsonb(m) ORDER BY m.id), '[]') FROM public.media_attachments m "
        "WHERE m.status_id = s.id)) FROM public.statuses s "
        "JOIN public.users u ON u.account_id = s.account_id "
        f"WHERE u.id IN ({','.join(map(str, users))}) AND s.visibility < 2 "
        "AND s.deleted_at IS NULL ORDER BY s.id;"
    )
    return {"export": str(path), "export_sha256": written(path, session.lines(posts))}


def kill_streams(channels: list[str]) -> str | None:
    """Tell the streaming servers to hang up. The password travels in the environment. Returns what went wrong."""
    line = next(x for x in ENVIRONMENT.read_text().splitlines() if x.startswith("REDIS_URL="))
    parts = urlsplit(line.removeprefix("REDIS_URL=").strip('"'))
    words = ["redis-cli", "--no-auth-warning", "-h", parts.hostname or "localhost", "-p", str(parts.port or 6379)]
    words += ["--user", parts.username] if parts.username else []
    orders = "".join(f'PUBLISH {channel} \'{{"event":"kill"}}\'\n' for channel in channels)
    env = os.environ | {"REDISCLI_AUTH": parts.password or ""}
    try:
        done = subprocess.run(words, input=orders, capture_output=True, text=True, timeout=5, check=False, env=env)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    good = not done.returncode and all(answer.isdigit() for answer in done.stdout.split())
    return None if good and done.stdout else (done.stderr.strip() or done.stdout.strip() or "no answer")[:200]


def journal(request: dict[str, Any], names: list[str], also: str = "") -> None:
    """Who did what to whom and why, in the host's journal."""
    fields = {"MESSAGE": f"{request['verb']} @{', @'.join(names)} by {request['by']}: {request['why']}{also}",
              "SYSLOG_IDENTIFIER": "mastodon-gov", "MFG_VERB": request["verb"], "MFG_BY": request["by"],
              "MFG_WHOM": ", ".join(names), "MFG_WHY": request["why"]}  # fmt: skip
    lines = "".join(f"{name}={' '.join(str(value).split())}\n" for name, value in fields.items())
    subprocess.run(["logger", "--journald"], input=lines, text=True, check=False)


def shut(session: Session, request: dict[str, Any]) -> dict[str, Any]:
    """Everything that leads into these accounts ends now; `again` hands them to `to` in the same breath."""
    began = time.monotonic()
    session.ask(BEGIN)
    users = found(session, request, lock=True)
    path = keep(session.one(script("leaving_evidence.sql", users)), request)
    more: dict[str, str] = {}
    try:
        more = export(session, users, path) if request.get("export") else {}
        note = {key: request[key] for key in ("verb", "by", "why")} | {"users": list(users), "evidence": str(path)}
        noted = session.one(f"SELECT gov.shut({quoted(note)}::jsonb);")
        done = session.one(script("leaving_cut.sql", users))
        if request.get("again"):
            give_back(session, request, next(iter(users)))
        session.ask("COMMIT;")
    except Refused:
        for each in (path, *map(Path, filter(None, [more.get("export")]))):
            each.unlink()
        raise
    trouble = kill_streams(done["channels"])
    journal(request, list(users.values()), f"; evidence {path}")
    return {"accounts": list(users.values()), "cut": done["cut"], "evidence": str(path), "streams": trouble or "ended",
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "without_owner": noted["without_owner"],
            "seconds": round(time.monotonic() - began, 3), **more}  # fmt: skip


def give_back(session: Session, request: dict[str, Any], user: int) -> None:
    """Restore role and access; the new person sets a password through the mail to the address."""
    role = session.one(f"SELECT gov.hand_back({quoted({'user': user, 'by': request['by']})}::jsonb);")["role_id"]
    address = f", email = lower({quoted(request['to'])})" if request.get("to") else ""
    session.ask(f"UPDATE public.users SET disabled = false, role_id = {role or 'NULL'}{address} WHERE id = {user};")


def handback(session: Session, request: dict[str, Any]) -> dict[str, Any]:
    """Cut once more whatever came in meanwhile, then open the account."""
    session.ask(BEGIN)
    users = found(session, request, lock=True)
    (user,) = users
    done = session.one(script("leaving_cut.sql", users))
    give_back(session, request, user)
    address = session.ask(f"SELECT email FROM public.users WHERE id = {user}; COMMIT;")[-1]
    trouble = kill_streams(done["channels"])
    journal(request, list(users.values()), f"; address {address}")
    return {"accounts": list(users.values()), "address": address, "streams": trouble or "ended"}


def release(session: Session, request: dict[str, Any]) -> dict[str, Any]:
    """Close the ledger's row of an account, if it has one: `owner --reset` opens the account by itself. Its
    `tootctl … --confirm` would also confirm a change of address that a hijacker began: that ends here."""
    session.ask(BEGIN)
    users = found(session, request, lock=True)
    for user in users:
        session.ask(f"SELECT gov.hand_back({quoted({'user': user, 'by': request['by']})}::jsonb);")
        session.ask(f"UPDATE public.users SET unconfirmed_email = NULL, confirmation_token = NULL WHERE id = {user};")
    session.ask("COMMIT;")
    journal(request, list(users.values()))
    return {"accounts": list(users.values())}


def look(session: Session, request: dict[str, Any]) -> dict[str, Any]:
    """What would be shut; nothing is written."""
    users = found(session, request, lock=False)
    held = session.one(script("leaving_evidence.sql", users))
    lists = ("sessions", "tokens", "grants", "push_subscriptions", "security_keys", "invites", "scheduled_posts")
    cut = {name: sum(len(each[name]) for each in held) for name in lists}
    cut["tokens"] = sum(1 for each in held for token in each["tokens"] if not token["revoked_at"])
    return {"accounts": list(users.values()), "cut": {"accounts": len(users), **cut}}


def main() -> int:
    request = json.load(sys.stdin)
    try:
        answer = {"shut": shut, "handback": handback, "look": look, "release": release}[sys.argv[1]](Session(), request)
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 1
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
