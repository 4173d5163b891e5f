#!/usr/bin/python3
"""Compare live accounts, links, roles and settings with what the instance's files say, and do what they say about it.

    sweep.py [--by NAME]            looks, acts, writes the report, prints it
    sweep.py [--by NAME] --dry-run  looks and prints

What the files say lies in /etc/mastodon-gov/sweep.json. One statement reads; what acts are single statements too.
Nothing is deleted and nobody is suspended: see docs/operator/sweep.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

CONFIG = "/etc/mastodon-gov/sweep.json"
REPORT = "/var/lib/mastodon-gov/sweep.json"
SQL = "/usr/local/lib/mastodon-gov/sweep.sql"
PSQL = [
    "runuser",
    "-u",
    "postgres",
    "--",
    "psql",
    "-qtAX",
    "-v",
    "ON_ERROR_STOP=1",
    "-d",
    "mastodon_production",
    "-f",
    "-",
]
DAY = 86_400
# Only numbers come in: see array().
ACT = """BEGIN;
UPDATE users SET disabled = true, updated_at = now() AT TIME ZONE 'UTC' WHERE id = ANY ({users});
UPDATE invites SET expires_at = now() AT TIME ZONE 'UTC' WHERE id = ANY ({invites});
UPDATE oauth_access_tokens SET revoked_at = now() AT TIME ZONE 'UTC' WHERE id = ANY ({tokens});
COMMIT;
"""
Finding = dict[str, Any]


def query(sql: str) -> str:
    """Answer of the database, as its superuser."""
    return subprocess.run(PSQL, input=sql, capture_output=True, text=True, check=True, timeout=60).stdout


def finding(what: str, subject: str, found: str, expected: str, remedy: str, **more: Any) -> Finding:
    return {"finding": what, "subject": subject, "found": found, "expected": expected, "remedy": remedy} | more


def findings(seen: dict[str, Any], config: dict[str, Any]) -> Iterator[Finding]:
    """Everything that is not as the files say, without having done anything about it."""
    yield from server(seen, config)
    known = {account["handle"].lower(): account for account in config["accounts"]}
    for account in seen["accounts"]:
        if not account["suspended"]:
            yield from one_account(account, known, config)
    yield from missing(seen, known)
    yield from tokens(seen, known, config)
    for invite in seen["invites"]:
        yield finding(
            "invite_outside_ledger", f"link {invite['id']} of @{invite['by']}", "a live link outside the ledger",
            "links made by `mastodon-gov invite`", f"Ask @{invite['by']} what it was for.", id=invite["id"],
        )  # fmt: skip


def is_staff(address: str, domains: list[str]) -> bool:
    """By the file alone: a register that was changed in the database must neither let in nor throw out anybody."""
    return address.isascii() and address.count("@") == 1 and address.rpartition("@")[2].lower() in domains


def one_account(account: dict[str, Any], known: dict[str, Any], config: dict[str, Any]) -> Iterator[Finding]:
    who = {"subject": f"@{account['name']}", "address": account["address"], "id": account["id"], "account": account}
    foreign = [
        address
        for address in (account["address"], account["address_next"])
        if address and not is_staff(address, config["domains"])
    ]
    if foreign:
        yield finding(
            "foreign_address", **who, found=f"an address at {foreign[0].rpartition('@')[2]}",
            expected="an address at a domain of organisations.yaml",
            remedy="Off-board the account, or list the domain if it belongs to the staff.",
        )  # fmt: skip
    if account["disabled"]:
        return  # the rest matters again when it is enabled
    if known and account["name"].lower() not in known and account["name"] != config["owner"]:
        yield finding(
            "account_not_in_file", **who, found="an account on the server", expected="an entry under accounts",
            remedy="Add it to organisations.yaml with its owner, or off-board it.",
        )  # fmt: skip
    if account["needs_factor"] and not account["factor"] and account["age"] > config["second_factor_days"] * DAY:
        yield finding(
            "missing_second_factor", **who, found=f"none, {account['age'] // DAY} days after it was made",
            expected="an authenticator program or a security key",
            remedy="Ask the person to sign in: Mastodon then asks for it (docs/operator/first-post.md).",
        )  # fmt: skip
    if account["approved"] and account["confirmed"]:
        yield from use_of(account, who, config)


def use_of(account: dict[str, Any], who: dict[str, Any], config: dict[str, Any]) -> Iterator[Finding]:
    if account["unused"] > config["dormant_days"] * DAY:
        yield finding(
            "dormant_account", **who, found=f"not used for {account['unused'] // DAY} days",
            expected=f"some use within {config['dormant_days']} days",
            remedy="Ask its owner whether it is still needed; hand it over or off-board it.",
        )  # fmt: skip
    if account["age"] > config["unverified_days"] * DAY and not account["links"] and account["name"] != config["owner"]:
        yield finding(
            "unverified_link", **who, found="no verified link on the profile",
            expected="a link to a site of the organisation, verified by Mastodon",
            remedy="Put the profile's address with rel=me on that site, and the site on the profile.",
        )  # fmt: skip


def missing(seen: dict[str, Any], known: dict[str, Any]) -> Iterator[Finding]:
    live = {account["name"].lower() for account in seen["accounts"] if not account["suspended"]}
    for handle, account in known.items():
        if handle not in live:
            yield finding(
                "account_missing", f"@{account['handle']}", "no such account on the server", "an account as listed",
                "Invite its mailbox, or take the entry out of organisations.yaml.",
                organisation=account["organisation"],
            )  # fmt: skip


def tokens(seen: dict[str, Any], known: dict[str, Any], config: dict[str, Any]) -> Iterator[Finding]:
    for token in seen["tokens"]:
        tools = known.get(token["name"].lower(), {}).get("tools", [])
        if token["application"] not in [*config["applications"], *tools]:
            yield finding(
                "unknown_application", f"@{token['name']}", f"{len(token['ids'])} live token(s) of "
                f"\"{token['application']}\" ({token['scopes']}), last used {token['unused'] // DAY} days ago",
                "applications that sweep.applications or the account's tools name",
                "Name the application in the file if it is right, or let the person revoke it.",
                address=token["address"], ids=token["ids"],
            )  # fmt: skip


def server(seen: dict[str, Any], config: dict[str, Any]) -> Iterator[Finding]:
    """What is not one account's."""
    again = "Run `mastodon-gov plan` to see the difference, and `deploy` to put the file's state back."
    for failed in seen["lock"]:
        yield finding(
            "guard_missing", failed, "a part of the database lock is not as it must be", "the whole lock", again
        )
    differ = sorted(set(seen["domains"]) ^ set(config["domains"]))
    for domain in differ:
        where = "the database only" if domain in seen["domains"] else "organisations.yaml only"
        yield finding("register_changed", domain, f"a staff domain in {where}", "the same register in both", again)
    for item in seen["drifted"]:
        kind = "role_changed" if item.startswith("role/") else "setting_drifted"
        yield finding(kind, item, "changed on the server", "as instance.yaml says", again)
    for name in seen["roles_outside"] if config["roles_managed"] else ():
        remedy = "List it under server.roles, or give its people another role and remove it."
        yield finding("role_changed", f"role/{name}", "a role that no file knows", "roles of server.roles", remedy)
    for domain in seen["blocks_outside"] if config["blocks_managed"] else ():
        remedy = "Take it into server.domain_blocks with reason and day of review, or unblock it."
        yield finding("block_outside_file", domain, "blocked on the server", "an entry in server.domain_blocks", remedy)
    today = time.strftime("%Y-%m-%d", time.gmtime())
    for domain, day in config["reviews"].items():
        if day < today:
            remedy = "Decide again, and write the new day in server.domain_blocks."
            yield finding("block_review_due", domain, f"to be looked at by {day}", "a day in the future", remedy)


def act(found: list[Finding], config: dict[str, Any]) -> None:
    """Disable and revoke what the instance says; each finding then tells what was done."""
    disable: list[dict[str, Any]] = []
    links: list[int] = []
    revoke: list[int] = []
    for one in found:
        one["act"] = config["act"].get(one["finding"], "report")
        account = one.get("account", {})
        if one["act"] == "disable" and (account.get("disabled") or account.get("name") == config["owner"]):
            one["act"] = "report"  # it is, or nobody could let anybody in again
        disable += [account] if one["act"] == "disable" else []
        links += [one["id"]] if one["act"] == "revoke" and one["finding"] == "invite_outside_ledger" else []
        revoke += one["ids"] if one["act"] == "revoke" and one["finding"] == "unknown_application" else []
    if disable or links or revoke:
        query(ACT.format(users=array(one["id"] for one in disable), invites=array(links), tokens=array(revoke)))
        close_streams(
            [f"system:{account['account_id']}" for account in disable] + [f"access_token:{n}" for n in revoke]
        )


def array(numbers: Any) -> str:
    return f"'{{{','.join(str(int(number)) for number in numbers)}}}'::bigint[]"


def close_streams(channels: list[str]) -> None:
    """Mastodon's streaming server ends connections that are told so; without it they would live on."""
    with open("/etc/mastodon/mastodon.env", encoding="utf-8") as file:
        line = next(line for line in file if line.startswith("REDIS_URL="))
    url = urlsplit(line.strip().removeprefix("REDIS_URL="))
    command = ["redis-cli", "--user", url.username or "default", "--no-auth-warning"]
    lines = "".join(f'PUBLISH timeline:{channel} \'{{"event":"kill"}}\'\n' for channel in channels)
    environment = os.environ | {"REDISCLI_AUTH": url.password or ""}
    subprocess.run(command, input=lines, env=environment, capture_output=True, text=True, check=True, timeout=30)


def organisation(one: Finding, bodies: list[dict[str, Any]]) -> str | None:
    """The body whose finding this is, by the domain of the address; none for the server's own."""
    if "organisation" in one:
        return str(one["organisation"])
    domain = str(one.get("address", "")).rpartition("@")[2].lower()
    return next((str(body["id"]) for body in bodies if domain in body["domains"]), None)


def report(seen: dict[str, Any], config: dict[str, Any], found: list[Finding], seconds: float) -> dict[str, Any]:
    rows = [
        {key: one[key] for key in ("finding", "subject", "found", "expected", "remedy")}
        | {"act": one.get("act", "report"), "organisation": organisation(one, config["organisations"])}
        for one in found
    ]
    counted = {"accounts": len(seen["accounts"]), "organisations": len(config["organisations"])}
    return {"at": int(time.time()), "seconds": round(seconds, 2), **counted, "findings": rows}


def main(words: list[str]) -> int:
    began = time.monotonic()
    with open(CONFIG, encoding="utf-8") as file:
        config = json.load(file)
    with open(SQL, encoding="utf-8") as file:
        seen = json.loads(query(file.read()))
    found = list(findings(seen, config))
    if "--dry-run" in words:
        print(json.dumps(report(seen, config, found, time.monotonic() - began)))
        return 0
    act(found, config)
    text = json.dumps(report(seen, config, found, time.monotonic() - began))
    descriptor = os.open(REPORT + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
    with os.fdopen(descriptor, "w") as out:
        os.fchmod(descriptor, 0o640)  # whatever the umask of who runs it
        out.write(text + "\n")
    os.replace(REPORT + ".new", REPORT)
    if "--by" in words:
        acted = ", ".join(f"{one['act']} {one['subject']}" for one in found if one["act"] != "report")
        told = f"sweep by {words[words.index('--by') + 1]}: {len(found)} findings{'; ' + acted if acted else ''}"
        subprocess.run(["logger", "-t", "mastodon-gov", "--", told], check=True)
    for one in found:
        print(f"{one['act']}: {one['finding']} {one['subject']}: {one['found']}", file=sys.stderr)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
