"""What the server shall show, item by item: `server:` of instance.yaml with its texts rendered.

An item is `setting/<Mastodon's name>`, `role/<name>`, `domain_block/<domain>`, `rules` and so on; the deploy compares
items, and the database keeps them (roles/mastodon/files/lock/04-server.sql).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jinja2 import StrictUndefined, TemplateSyntaxError
from jinja2.sandbox import SandboxedEnvironment

from mastodon_gov.instance.server import DomainBlock, Rule, Server, Terms

if TYPE_CHECKING:
    from mastodon_gov.instance.model import Instance

Items = dict[str, Any]
# Mastodon's names of settings that are one value of ours: app/models/form/admin_settings.rb.
SETTINGS: dict[str, Callable[[Server], Any]] = {
    "site_title": lambda s: s.title,
    "site_short_description": lambda s: s.short_description,
    "local_live_feed_access": lambda s: s.feeds and s.feeds.local,
    "remote_live_feed_access": lambda s: s.feeds and s.feeds.remote,
    "local_topic_feed_access": lambda s: s.feeds and s.feeds.local_hashtags,
    "remote_topic_feed_access": lambda s: s.feeds and s.feeds.remote_hashtags,
    "media_cache_retention_period": lambda s: s.retention and s.retention.remote_media_days,
    "backups_retention_period": lambda s: s.retention and s.retention.archives_days,
    "content_cache_retention_period": lambda s: s.retention and s.retention.remote_posts_days,
    "trends": lambda s: s.trends,
    "landing_page": lambda s: s.landing_page,
    "profile_directory": lambda s: s.profile_directory,
    "wrapstodon": lambda s: s.wrapstodon,
    "show_domain_blocks": lambda s: s.show_domain_blocks,
    "show_domain_blocks_rationale": lambda s: s.show_domain_blocks,
    "thumbnail_description": lambda s: s.images and s.images.thumbnail_description,
}
IMAGES = ("thumbnail", "mascot", "app_icon", "favicon")


def items(instance: Instance) -> Items:
    """Every item the instance describes; none without `server:`. Raises ValueError for a text that does not render."""
    server = instance.server
    if server is None:
        return {}
    found: Items = {f"setting/{name}": read(server) for name, read in SETTINGS.items()}
    found |= {f"setting/{name}": text for name, text in _contact(instance, server).items()}
    found["setting/site_extended_description"] = server.about and render(instance, server.about)
    found["setting/site_terms"] = server.privacy_policy and _formatted(render(instance, server.privacy_policy))
    found["rules"] = None if server.rules is None else [_rule(rule) for rule in server.rules]
    found["terms"] = server.terms and _terms(instance, server.terms)
    for role in server.roles or ():
        found[f"role/{role.name}"] = role.model_dump(mode="json", exclude={"name"})
    for block in server.domain_blocks or ():
        found[f"domain_block/{block.domain}"] = _block(block)
    for notice in server.announcements or ():
        digest = hashlib.md5(notice.text.encode(), usedforsecurity=False).hexdigest()  # as PostgreSQL's md5()
        found[f"announcement/{digest}"] = notice.model_dump(mode="json")
    for var in IMAGES:
        path = server.images and getattr(server.images, var)
        found[f"image/{var}"] = path and _file(instance, path)
    for emoji in server.emoji or ():
        found[f"emoji/{emoji.shortcode}"] = _file(instance, emoji.file)
    return {item: value for item, value in found.items() if value is not None}


def render(instance: Instance, path: str) -> str:
    """A Markdown template of the instance directory with live values. Raises ValueError with what is wrong in it."""
    jinja = SandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    try:
        text = jinja.from_string(instance.server_files[path]).render(instance=instance)
    except TemplateSyntaxError as error:
        raise ValueError(f"{path}, line {error.lineno}: {error.message}") from None
    except Exception as error:  # an expression of the file can fail in any way
        raise ValueError(f"{path}: {error}") from None
    return text.replace("\r\n", "\n").strip()


def _formatted(text: str) -> str:
    """Mastodon puts privacy policy and terms through `format` to fill in %{domain}: a lone % would be an error 500
    (app/serializers/rest/privacy_policy_serializer.rb)."""
    return text.replace("%", "%%")


def _contact(instance: Instance, server: Server) -> dict[str, str]:
    if server.contact is None:
        return {}
    account, address = server.contact.account, server.contact.address
    return {
        "site_contact_username": account or instance.owner.username,
        "site_contact_email": address or instance.owner.address,
    }


def _rule(rule: Rule) -> dict[str, Any]:
    translations = {other.language: {"text": other.text, "hint": other.hint} for other in rule.translations}
    return {"text": rule.text, "hint": rule.hint, "translations": translations}


def _terms(instance: Instance, terms: Terms) -> dict[str, str]:
    text = _formatted(render(instance, terms.file))
    return {"text": text, "changelog": terms.changelog.strip(), "effective": terms.effective.isoformat()}


def _block(block: DomainBlock) -> dict[str, Any]:
    """Mastodon has no field for reviewer and date of review: the private comment carries them."""
    private = f"{block.reason.strip()}\nDecided by {block.reviewer}; review by {block.review.isoformat()}."
    kept = block.model_dump(mode="json", include={"severity", "reject_media", "reject_reports", "obfuscate"})
    return kept | {"public_comment": block.public_comment, "private_comment": private}


def _file(instance: Instance, path: str) -> dict[str, str]:
    """A picture: its name and digest count for the comparison; the bytes travel in `payload`."""
    content = base64.b64decode(instance.server_files[path])
    return {"file": path.rpartition("/")[2], "sha256": hashlib.sha256(content).hexdigest()}


def payload(instance: Instance) -> dict[str, str]:
    """The pictures' bytes (base64) by digest."""
    server = instance.server
    paths = [emoji.file for emoji in server.emoji or ()] if server else []
    if server and server.images:
        paths += [path for var in IMAGES if (path := getattr(server.images, var))]
    return {_file(instance, path)["sha256"]: instance.server_files[path] for path in paths}
