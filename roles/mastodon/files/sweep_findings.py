"""What of a server is not as the files say: the sweep's judgement, without looking and without acting.

`seen` is the answer of sweep.sql, `config` what the deploy wrote into /etc/mastodon-gov/sweep.json.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

DAY = 86_400
Finding = dict[str, Any]


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
    yield from records(account, who)
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
    entry = known.get(account["name"].lower(), {})
    yield from role_of(account, who, "Owner" if account["name"] == config["owner"] else entry.get("role"))
    if account["approved"] and account["confirmed"]:
        yield from use_of(account, who, config)
        yield from links_of(account, who, entry, config)


def records(account: dict[str, Any], who: dict[str, Any]) -> Iterator[Finding]:
    """What the lock refuses, and what only somebody who went past it, or came before it, can have left behind."""
    operator = "Ask the operator who did it."
    if account["cleanup"]:
        yield finding(
            "cleanup_enabled", **who, found="old posts are deleted automatically",
            expected="posts stay: they are records",
            remedy=f"Switch it off (Preferences, Automated post deletion). {operator}",
        )  # fmt: skip
    if account["moved"]:
        yield finding(
            "account_moved", **who, found="it points to another account as its successor",
            expected="an account that stays",
            remedy=f"Cancel the redirect (Account settings). {operator}",
        )  # fmt: skip
    if account["passwordless"]:
        yield finding(
            "passwordless_account", **who, found="neither a password nor an identity of single sign-on",
            expected="one of both: without, any password leads on to the second factor",
            remedy="`mastodon-gov lockdown` gives it a password that nobody knows; then `handback`.",
        )  # fmt: skip


def role_of(account: dict[str, Any], who: dict[str, Any], listed: str | None) -> Iterator[Finding]:
    """A role comes with the invitation, or stands in the file; one that was taken away by hand does no harm."""
    wanted = listed or account["invited_role"]
    if account["role"] != wanted and (account["role"] or listed):
        yield finding(
            "role_changed", **who, found=f"the role {account['role'] or 'of everyone'}",
            expected=f"the role {wanted or 'of everyone'}, as the invitation or the file says",
            remedy="Take it away in Mastodon, or write it as the account's `role` into organisations.yaml.",
        )  # fmt: skip


def use_of(account: dict[str, Any], who: dict[str, Any], config: dict[str, Any]) -> Iterator[Finding]:
    if account["unused"] > config["dormant_days"] * DAY:
        yield finding(
            "dormant_account", **who, found=f"not used for {account['unused'] // DAY} days",
            expected=f"some use within {config['dormant_days']} days",
            remedy="Ask its owner whether it is still needed; hand it over or off-board it.",
        )  # fmt: skip


def links_of(
    account: dict[str, Any], who: dict[str, Any], entry: dict[str, Any], config: dict[str, Any]
) -> Iterator[Finding]:
    """A verified link tells readers that the account is the body's: only when it leads to the body's site."""
    if account["age"] <= config["unverified_days"] * DAY or account["name"] == config["owner"]:
        return
    domain = account["address"].rpartition("@")[2].lower()
    own = [body["domains"] for body in config["organisations"]
           if body["id"] == entry.get("organisation") or (not entry and domain in body["domains"])]  # fmt: skip
    hosts = [host_of(link) for link in account["links"]]
    if not hosts or (own and not any(related(host, each) for host in hosts for domains in own for each in domains)):
        shown = f"verified links only to {', '.join(hosts)}" if hosts else "no verified link on the profile"
        yield finding(
            "unverified_link", **who, found=shown,
            expected="a link to a site of the organisation, verified by Mastodon",
            remedy="Put the profile's address with rel=me on that site, and the site on the profile.",
        )  # fmt: skip


def host_of(link: str) -> str:
    """The host of a web address, as the register writes it; "" when there is none."""
    try:
        return (urlsplit(link).hostname or "").encode("idna").decode()
    except ValueError:
        return ""


def related(host: str, domain: str) -> bool:
    """Whether one is the other or lies under it: agency.test is to mail.agency.test, www.agency.test is not."""
    return "." in host and (f".{host}".endswith(f".{domain}") or domain.endswith(f".{host}"))


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
    yield from register(seen, config, again)
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


def register(seen: dict[str, Any], config: dict[str, Any], again: str) -> Iterator[Finding]:
    """What the lock judges by: domains, which body each belongs to, the bodies' states, the lock's settings."""
    differ = set(seen["domains"]) ^ set(config["domains"])
    for domain in sorted(differ):
        where = "the database only" if domain in seen["domains"] else "organisations.yaml only"
        yield finding("register_changed", domain, f"a staff domain in {where}", "the same register in both", again)
    for body in sorted({*seen["register"], *config["register"]}):
        held, wanted = (_entry(each["register"].get(body), differ) for each in (seen, config))
        if held != wanted:
            yield finding("register_changed", body, held, wanted, again)
    for name in sorted({*seen["settings"], *config["settings"]}):
        held, wanted = (str(each["settings"].get(name, "not set")) for each in (seen, config))
        if held != wanted:
            yield finding("register_changed", f"setting {name}", held, wanted, again)


def _entry(body: dict[str, Any] | None, told: set[str]) -> str:
    """State and domains of a body, without domains that are a finding already."""
    return f"{body['state']}: {', '.join(sorted({*body['domains']} - told)) or '-'}" if body else "no such organisation"
