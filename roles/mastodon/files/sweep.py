#!/usr/bin/python3
"""Compare live accounts, links, roles and settings with what the instance's files say, and do what they say about it.

    sweep.py [--by NAME]            looks, acts, writes the report, prints it
    sweep.py [--by NAME] --dry-run  looks and prints

What the files say lies in /etc/mastodon-gov/sweep.json. One statement reads; what acts are single statements too.
No account and no post is deleted, nobody is suspended: see docs/operator/sweep.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from roles.mastodon.files.leaving import kill_streams
    from roles.mastodon.files.leaving_database import quoted
    from roles.mastodon.files.sweep_findings import Finding, finding, findings
else:  # on the host, where the programs lie side by side
    from leaving import kill_streams
    from leaving_database import quoted
    from sweep_findings import Finding, finding, findings

CONFIG = "/etc/mastodon-gov/sweep.json"
REPORT = "/var/lib/mastodon-gov/sweep.json"
NEW = "/var/lib/mastodon-gov/sweep-new.txt"
TELL = ["systemctl", "start", "--no-block", "mfg-findings.service"]
SQL = "/usr/local/lib/mastodon-gov/sweep.sql"
PSQL = "runuser -u postgres -- psql -qtAX -v ON_ERROR_STOP=1 -d mastodon_production -f -".split()
# More accounts at once are a mistake in a file, not people who left: then nobody is disabled.
MOST = 20
# Mastodon goes on sending notifications to subscriptions of a revoked token. With its row in the ledger, an account is
# opened by `handback` only (gov_users_locked), which gives it back the role it had.
ACT = """BEGIN;
INSERT INTO gov.lockdown (user_id, username, verb, locked_by, why, role_id, evidence)
SELECT u.id, a.username, 'sweep', {by}, {why}, u.role_id, {report} FROM users u JOIN accounts a ON a.id = u.account_id
 WHERE u.id = ANY ({users}) ON CONFLICT (user_id) WHERE lifted_at IS NULL DO NOTHING;
UPDATE users SET disabled = true, updated_at = now() AT TIME ZONE 'UTC' WHERE id = ANY ({users});
UPDATE invites SET expires_at = now() AT TIME ZONE 'UTC' WHERE id = ANY ({invites});
UPDATE oauth_access_tokens SET revoked_at = now() AT TIME ZONE 'UTC' WHERE id = ANY ({tokens});
DELETE FROM web_push_subscriptions WHERE access_token_id = ANY ({tokens});
COMMIT;
"""


def query(sql: str) -> str:
    """Answer of the database, as its superuser."""
    return subprocess.run(PSQL, input=sql, capture_output=True, text=True, check=True, timeout=60).stdout


def act(found: list[Finding], config: dict[str, Any], by: str = "the timer") -> str | None:
    """Disable and revoke what the instance says; each finding then tells what was done. Returns what went wrong."""
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
    if len(disable) > MOST:
        for one in found:
            one["act"] = "report" if one["act"] == "disable" else one["act"]
        remedy = "Look at the accounts of this report: correct organisations.yaml, or off-board them one by one."
        many = finding(
            "too_many", "the server", f"{len(disable)} accounts to disable at once", f"at most {MOST}", remedy
        )
        found.append(many | {"act": "report"})
        disable = []
    if disable or links or revoke:
        why = ", ".join(sorted({one["finding"] for one in found if one["act"] == "disable"}))
        note = {"by": quoted(by), "why": quoted(why), "report": quoted(REPORT)}
        query(ACT.format(users=array(a["id"] for a in disable), invites=array(links), tokens=array(revoke), **note))
        # Without it, connections that are open would live on.
        channels = [f"timeline:system:{account['account_id']}" for account in disable]
        channels += [f"timeline:access_token:{n}" for n in revoke]
        return kill_streams(channels) if channels else None
    return None


def array(numbers: Any) -> str:
    return f"'{{{','.join(str(int(number)) for number in numbers)}}}'::bigint[]"


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


def before() -> set[tuple[str, str]]:
    """What the last report had found; nothing where there is none, or none that can be read."""
    try:
        with open(REPORT, encoding="utf-8") as file:
            return {(row["finding"], row["subject"]) for row in json.load(file)["findings"]}
    except (OSError, ValueError):
        return set()


def write(path: str, text: str) -> None:
    """For root and its group, in place by one rename, whatever the umask of who runs it."""
    descriptor = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
    with os.fdopen(descriptor, "w") as out:
        os.fchmod(descriptor, 0o640)
        out.write(text)
    os.replace(path + ".new", path)


def sentence(one: Finding) -> str:
    """A finding for a person."""
    return f"{one['act']}: {one['finding']} {one['subject']}: {one['found']}"


def tell(found: list[Finding], known: set[tuple[str, str]]) -> None:
    """Mail root what was not in the last report; a unit of its own has the way to the relay."""
    if new := [one for one in found if (one["finding"], one["subject"]) not in known]:
        write(NEW, "".join(f"{sentence(one)}\n  {one['remedy']}\n" for one in new))
        subprocess.run(TELL, check=True)


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
    by = words[words.index("--by") + 1] if "--by" in words else ""
    known, trouble = before(), act(found, config, by or "the timer")
    text = json.dumps(report(seen, config, found, time.monotonic() - began))
    write(REPORT, text + "\n")
    tell(found, known)
    if by:
        acted = ", ".join(f"{one['act']} {one['subject']}" for one in found if one["act"] != "report")
        told = f"sweep by {by}: {len(found)} findings{'; ' + acted if acted else ''}"
        subprocess.run(["logger", "-t", "mastodon-gov", "--", told], check=True)
    for one in found:
        print(sentence(one), file=sys.stderr)
    print(text)
    if trouble:
        print(f"sweep: what was shut is shut, but open streams could not be ended: {trouble}.", file=sys.stderr)
    return 1 if trouble else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
