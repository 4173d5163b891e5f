"""What can never change once an instance is deployed, compared with what its database says."""

from __future__ import annotations

from mastodon_gov.instance.model import Instance

WHY_HANDLE = "other servers know every account as @name@{old}; under another name they are strangers"
WHY_WEB = "the address of every account and post contains {old}; other servers would take them for new ones"


def domain_refusal(
    instance: Instance, recorded_local: str | None, recorded_web: str | None, status_uri_host: str | None
) -> str | None:
    """Why this instance may not be deployed onto that database; None if it may.

    `recorded_*` are the domains of the first deploy, `status_uri_host` the host in the `uri` of a local post; None
    where the database has none. What Mastodon does otherwise: `reference/monitoring-and-standards.md` §6.
    """
    found = (
        ("handle", instance.domain.handle, recorded_local, "the first deploy recorded", WHY_HANDLE),
        ("web", instance.domain.web, recorded_web, "the first deploy recorded", WHY_WEB),
        ("web", instance.domain.web, status_uri_host, "posts in the database carry", WHY_WEB),
    )
    sentences = [
        f"instance.yaml, domain.{key}: found {now}, but {who} {old}. It can never change: {why.format(old=old)}. "
        f"Write {old} again; for another name, make a new instance and let people move their accounts."
        for key, now, old, who, why in found
        if old is not None and old != now
    ]
    return "\n".join(dict.fromkeys(sentences)) or None
