"""What people see of the server: `server:` of instance.yaml, from its title to its custom emoji.

A key that is left out is left to Mastodon's own pages. A key that is taken out again goes back to the release's
default, or takes away what it had made (docs/it-team/server-settings.md).
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from mastodon_gov.instance.types import Allowed, Domain, Flag, Handle, Locale, MailAddress, Part, RelativePath

# Names and limits are Mastodon's: app/models/{form/admin_settings,user_role,rule,domain_block,custom_emoji}.rb, 4.6.5.
Line = Annotated[
    str,
    Field(pattern=r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?$", max_length=200),
    Allowed("1 to 200 characters on one line"),
]
RuleLine = Annotated[
    str,
    Field(pattern=r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?$", max_length=300),
    Allowed("1 to 300 characters on one line"),
]
Words = Annotated[str, Field(min_length=1, max_length=10_000), Allowed("text of 1 to 10000 characters")]
Access = Literal["public", "authenticated", "disabled"]
TopicAccess = Literal["public", "authenticated"]
Audience = Literal["disabled", "users", "all"]
Keep = Annotated[int, Field(ge=1, le=3650, strict=True)]
# `administrator` belongs to the role Owner alone; `invite_bypass_approval` is taken away by the database lock.
Permission = Literal[
    "view_devops", "view_audit_log", "view_dashboard", "manage_reports", "manage_federation", "manage_settings",
    "manage_blocks", "manage_taxonomies", "manage_appeals", "manage_users", "manage_invites", "manage_rules",
    "manage_announcements", "manage_custom_emojis", "manage_webhooks", "invite_users", "manage_roles",
    "manage_user_access", "delete_user_data", "view_feeds", "manage_email_subscriptions",
]  # fmt: skip


class Contact(Part):
    """Whom citizens and other servers write to; without it, the owner."""

    account: Handle | None = None
    """Account of this server that is shown as the contact. It must exist. Left out: the owner's."""
    address: MailAddress | None = None
    """Mail address that is shown. Left out: the owner's."""


class RuleText(Part):
    """A rule in one more language."""

    language: Locale
    """Language of the translation."""
    text: RuleLine
    """The rule in that language."""
    hint: str = Field("", max_length=1000)
    """Its explanation in that language."""


class Rule(Part):
    """A rule that everybody reads before signing up, in the order of the file."""

    text: RuleLine
    """The rule."""
    hint: str = Field("", max_length=1000)
    """A longer explanation."""
    translations: tuple[RuleText, ...] = ()
    """The rule in other languages."""


class Terms(Part):
    """Terms of service. A new date makes a new edition and keeps the old one; the same date corrects the text."""

    file: RelativePath
    """Markdown template in this directory."""
    effective: date
    """Day from which they hold (`2027-01-31`). On a server that is younger, the day of the first deploy."""
    changelog: Words
    """What changed, for the readers."""


class Role(Part):
    """A role of Mastodon, for people who look after the server. Owner and everyone are not listed: they are fixed."""

    name: Line
    """Name of the role."""
    permissions: tuple[Permission, ...]
    """What the role may do, by Mastodon's names."""
    position: Annotated[int, Field(ge=0, le=999, strict=True)]
    """Rank: who has a higher number may act on people with a lower one. Owner has 1000."""
    color: Annotated[str, Field(pattern=r"^(#[0-9a-f]{6})?$"), Allowed('a colour such as "#3050a0"')] = ""
    """Colour of the badge (`"#3050a0"`)."""
    badge: Flag = False
    """Whether everybody sees the role on its people's profiles."""


class Feeds(Part):
    """Who reads the feeds of all posts: `public`, `authenticated` (only signed-in people) or `disabled`."""

    local: Access = "public"
    """Posts of this server."""
    remote: Access = "authenticated"
    """Posts of other servers that arrive here. Open to all, this server would publish strangers' posts."""
    local_hashtags: TopicAccess = "public"
    """Posts of this server by hashtag."""
    remote_hashtags: Access = "authenticated"
    """Posts of other servers by hashtag."""


class Retention(Part):
    """Days that copies are kept. Retention of addresses and sessions: `mastodon`."""

    remote_media_days: Keep | None = None
    """Days that copies of other servers' pictures are kept."""
    archives_days: Keep | None = None
    """Days that an archive which a person asked for can be fetched."""
    remote_posts_days: Keep | None = None
    """Days that other servers' posts are kept. It also removes posts that your people answered: think twice."""


class DomainBlock(Part):
    """Another server that this one does not, or not fully, talk to."""

    domain: Domain
    """Its handle domain; sub-domains are included."""
    severity: Literal["silence", "suspend", "noop"]
    """`suspend`: nothing goes in or out, and what it left here is deleted. `silence`: only its followers see it.
    `noop`: only what the next two keys say."""
    reject_media: Flag = False
    """Keep no pictures of it."""
    reject_reports: Flag = False
    """Take no reports from it."""
    obfuscate: Flag = False
    """Show the name only in part where blocks are listed."""
    reason: Words
    """Why, for the record; only moderators see it."""
    public_comment: Line
    """Why, for everybody."""
    reviewer: Line
    """Who decided."""
    review: date
    """Day by which somebody looks again; afterwards the sweep reports it."""


class Announcement(Part):
    """A notice that signed-in people see."""

    text: Words
    """The notice."""
    starts: date | None = None
    """First day of what is announced; with `ends`."""
    ends: date | None = None
    """Its last day; the notice then goes away."""


class Images(Part):
    """Pictures of the server: files of this directory (PNG, JPEG, GIF or WebP)."""

    thumbnail: RelativePath | None = None
    """Picture of the server in lists and previews, 1200 × 630."""
    thumbnail_description: Annotated[str, Field(max_length=200), Allowed("text of at most 200 characters")] | None = (
        None
    )
    """What the picture shows, for people who do not see it."""
    mascot: RelativePath | None = None
    """Picture beside the sign-in form and the editor."""
    app_icon: RelativePath | None = None
    """Icon of the server where it is installed as an app."""
    favicon: RelativePath | None = None
    """Icon in the browser's tab."""


class Emoji(Part):
    """A custom emoji: a small picture people write as `:name:`."""

    shortcode: Annotated[
        str, Field(pattern=r"^[a-z0-9_]{2,60}$"), Allowed("2 to 60 small letters, digits and underscores")
    ]
    """Its name between the colons."""
    file: RelativePath
    """PNG, GIF or WebP below 256 KiB."""


class Server(Part):
    """What people see of the server. Text files are Markdown with values: `{{ instance.mastodon.ip_retention }}`."""

    title: Line | None = None
    """Name of the server."""
    short_description: Line | None = None
    """One or two sentences about it."""
    about: RelativePath | None = None
    """Markdown template of the page /about."""
    contact: Contact | None = None
    rules: tuple[Rule, ...] | None = None
    """The rules: all of them. Rules made in Mastodon's pages are taken away."""
    privacy_policy: RelativePath | None = None
    """Markdown template of the privacy policy."""
    terms: Terms | None = None
    roles: tuple[Role, ...] | None = None
    """Roles by name. Others stay and are reported by the sweep."""
    feeds: Feeds | None = None
    retention: Retention | None = None
    trends: Flag | None = None
    """Whether popular posts, hashtags and links are shown."""
    landing_page: Literal["about", "overview", "local_feed", "trends"] | None = None
    """What visitors see first; `overview` since 4.6."""
    profile_directory: Flag | None = None
    """Whether accounts of this server are listed."""
    wrapstodon: Flag | None = None
    """Whether people are offered a summary of their year (4.6)."""
    domain_blocks: tuple[DomainBlock, ...] | None = None
    """Blocks by domain. Those that moderators make stay and are reported by the sweep."""
    show_domain_blocks: Audience | None = None
    """Who reads the list of blocks with the public comments."""
    announcements: tuple[Announcement, ...] | None = None
    """Notices of the operator; others stay."""
    images: Images | None = None
    emoji: tuple[Emoji, ...] | None = None
    """Custom emoji by name; others stay."""
