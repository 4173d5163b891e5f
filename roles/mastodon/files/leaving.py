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
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING or __package__:
    from roles.mastodon.files.leaving_database import Refused, Session, quoted
else:  # on the host, where the programs lie side by side
    from leaving_database import Refused, Session, quoted

HERE = Path(__file__).resolve().parent
PLACE = Path("/var/lib/mastodon-gov/evidence")
ENVIRONMENT = Path("/etc/mastodon/mastodon.env")
# A transaction of the application that holds a row for longer than this is stuck.
BEGIN = "BEGIN; SET LOCAL lock_timeout = '10s'; SET LOCAL timezone = 'UTC';"


def found(session: Session, request: dict[str, Any]) -> dict[int, str]:
    """User ids and names of the accounts that the request means: by name, or by an address that is theirs, is about to
    be, or was when they joined. Locking their rows also keeps out new sessions, tokens and posts, which point to
    them."""
    handles = [name.lower() for name in request.get("handles", [])]
    named = f"SELECT jsonb_array_elements_text({quoted(handles)})"
    theirs = f"SELECT jsonb_array_elements_text({quoted(addresses_of(request))})"
    asked = (
        "SELECT jsonb_build_array(u.id, a.username) FROM public.users u JOIN public.accounts a ON a.id = u.account_id "
        f"WHERE a.domain IS NULL AND (lower(a.username) IN ({named}) OR lower(u.email) IN ({theirs}) "
        f"OR lower(u.unconfirmed_email) IN ({theirs}) OR u.id IN (SELECT gov.users_invited(ARRAY({theirs})))) "
        "ORDER BY u.id FOR UPDATE;"
    )
    users: dict[int, str] = dict(json.loads(line) for line in session.ask(asked))
    there = {name.lower() for name in users.values()}
    if missing := [f"@{name}" for name in request.get("must", []) if name.lower() not in there]:
        raise Refused(f"There is no account {', '.join(missing)} on this server. See `mastodon-gov people`.")
    return users


def addresses_of(request: dict[str, Any]) -> list[str]:
    """The addresses of the person whom the request means."""
    return [address.lower() for address in request.get("addresses", [])]


def nobody(request: dict[str, Any]) -> Refused:
    """The sentence when there is nothing to shut."""
    who = [f"the address {each}" for each in addresses_of(request)] or [f"the name {n}" for n in request["handles"]]
    return Refused(
        f"Nobody with {', '.join(who)} has an account or an open invitation here, and organisations.yaml names no "
        "account of theirs. See `mastodon-gov people` and `mastodon-gov invitations`."
    )


def script(name: str, users: dict[int, str], links: Iterable[int] = ()) -> str:
    """One of our SQL files, for these users and these invites."""
    lists = {"users": users, "links": links}
    made = (f"\\set {key} '{{{','.join(map(str, numbers))}}}'\n" for key, numbers in lists.items())
    return "".join(made) + (HERE / name).read_text()


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


def posts_of(evidence: Path) -> Path:
    """Where the posts of an account are written that is handed over."""
    return evidence.with_suffix(".posts.jsonl")


def export(session: Session, users: dict[int, str], evidence: Path) -> dict[str, str]:
    """What the account said in public, one post in each line, as it stands in the database, beside the evidence."""
    path = posts_of(evidence)
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
    if not channels:
        return None
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


def journal(request: dict[str, Any], names: Sequence[str], also: str = "") -> None:
    """Who did what to whom (accounts, or addresses that have none) and why, in the host's journal."""
    whom = ", ".join(name if "@" in name else f"@{name}" for name in names)
    fields = {"MESSAGE": f"{request['verb']} {whom} by {request['by']}: {request['why']}{also}",
              "SYSLOG_IDENTIFIER": "mastodon-gov", "MFG_VERB": request["verb"], "MFG_BY": request["by"],
              "MFG_WHOM": ", ".join(names), "MFG_WHY": request["why"]}  # fmt: skip
    lines = "".join(f"{name}={' '.join(str(value).split())}\n" for name, value in fields.items())
    subprocess.run(["logger", "--journald"], input=lines, text=True, check=False)


def shut(session: Session, request: dict[str, Any], dry: bool = False) -> dict[str, Any]:
    """Everything that leads into these accounts ends now, and so do invitations that wait for the person; `again` hands
    the accounts to `to` in the same breath. `dry`: the same, taken back at once, without evidence."""
    session.ask(BEGIN)
    began = time.monotonic()
    users = found(session, request)
    kept: dict[str, str] = {}
    try:
        if users and not dry:
            path = keep(session.one(script("leaving_evidence.sql", users)), request)
            kept = {"evidence": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            kept |= export(session, users, path) if request.get("export") else {}
        note = {key: request[key] for key in ("verb", "by", "why")}
        note |= {"users": list(users), "addresses": addresses_of(request), "evidence": kept.get("evidence", "")}
        noted = session.one(f"SELECT gov.shut({quoted(note)}::jsonb);")
        if not users and not noted["links"]:
            raise nobody(request)
        done = session.one(script("leaving_cut.sql", users, noted["links"]))
        if request.get("again"):
            give_back(session, request, next(iter(users)))
        session.ask("ROLLBACK;" if dry else "COMMIT;")
    except Refused:
        if "evidence" in kept:
            Path(kept["evidence"]).unlink()
            posts_of(Path(kept["evidence"])).unlink(missing_ok=True)
        raise
    told = {"accounts": list(users.values()), "cut": done["cut"], "without_owner": noted["without_owner"]}
    if dry:
        return told
    trouble = kill_streams(done["channels"])
    journal(request, told["accounts"] or addresses_of(request), f"; evidence {kept.get('evidence', 'none')}")
    return told | kept | {"streams": trouble or "ended", "seconds": round(time.monotonic() - began, 3)}


def give_back(session: Session, request: dict[str, Any], user: int) -> None:
    """Restore role and access; the new person sets a password through the mail to the address."""
    to = request.get("to")
    taken = (
        "SELECT a.username FROM public.users u JOIN public.accounts a ON a.id = u.account_id "
        f"WHERE lower(u.email) = lower({quoted(to or '')}) AND u.id <> {user};"
    )
    if names := session.ask(taken):
        raise Refused(
            f"The address {to} belongs to @{names[0]} already, and an address has one account. Give this one another "
            "address: that of a functional mailbox (`mailbox` in organisations.yaml for a handover, else `--to`)."
        )
    note = {"user": user, "by": request["by"], "to": to}
    role = session.one(f"SELECT gov.hand_back({quoted(note)}::jsonb);")["role_id"]
    address = f", email = lower({quoted(to)})" if to else ""
    session.ask(f"UPDATE public.users SET disabled = false, role_id = {role or 'NULL'}{address} WHERE id = {user};")


def handback(session: Session, request: dict[str, Any], dry: bool = False) -> dict[str, Any]:
    """Cut once more whatever came in meanwhile, then open the account. `dry`: the same, taken back at once."""
    session.ask(BEGIN)
    users = found(session, request)
    (user,) = users
    done = session.one(script("leaving_cut.sql", users))
    give_back(session, request, user)
    address = session.ask(f"SELECT email FROM public.users WHERE id = {user};")[-1]
    session.ask("ROLLBACK;" if dry else "COMMIT;")
    told = {"accounts": list(users.values()), "address": address}
    if dry:
        return told
    trouble = kill_streams(done["channels"])
    journal(request, told["accounts"], f"; address {address}")
    return told | {"streams": trouble or "ended"}


def release(session: Session, request: dict[str, Any]) -> dict[str, Any]:
    """Close the ledger's row of an account, if it has one: `owner --reset` opens the account by itself. Its
    `tootctl … --confirm` would also confirm a change of address that a hijacker began: that ends here."""
    session.ask(BEGIN)
    users = found(session, request)
    if not users:
        raise nobody(request)
    for user in users:
        session.ask(f"SELECT gov.hand_back({quoted({'user': user, 'by': request['by']})}::jsonb);")
        session.ask(f"UPDATE public.users SET unconfirmed_email = NULL, confirmation_token = NULL WHERE id = {user};")
    session.ask("COMMIT;")
    journal(request, list(users.values()))
    return {"accounts": list(users.values())}


def look(session: Session, request: dict[str, Any]) -> dict[str, Any]:
    """What the verb would do or refuse: it is done and taken back, no stream ends, nothing is written down."""
    return (handback if request["verb"] == "handback" else shut)(session, request, dry=True)


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
