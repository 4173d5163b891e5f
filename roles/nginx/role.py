"""The proxy: TLS, security headers, the web host in front of Mastodon, the media host in front of S3.

One file of configuration: nginx judges it whole before it takes the place of the old one.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, date, datetime
from hashlib import sha256
from urllib.parse import urlsplit

from mastodon_gov.instance import Node
from roles.lib import deploy
from roles.lib.files import Absent, Directory, Entry, ManagedFile
from roles.lib.render import facts_program, managed
from roles.lib.settle import settle
from roles.lib.units import Unit

PACKAGES = ["logrotate", "nginx"]
CONFIG = "/etc/nginx/nginx.conf"
SHARE = "/usr/local/share/mastodon-gov"
CHALLENGES = "/var/lib/acme-challenge"
# The role certificates points this link to the certificate in force.
TLS = "/etc/mastodon-gov/tls/current"
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
CHECK = "install -d -m 755 /run/nginx && nginx -t -q"
# It reads them when it is told to: the certificate, and whom to believe when it asks the storage.
READS = (CONFIG, TLS, f"{TLS}/fullchain.pem", f"{TLS}/privkey.pem", BUNDLE)
NGINX = Unit("nginx.service", reads=READS, reload=True, check=CHECK)
UNITS = [NGINX, Unit("logrotate.timer")]
LOG_DAYS = 14
STATIC = ("assets", "avatars", "emoji", "headers", "ocr", "sounds")  # folders of a release that Rails never answers for
ADMIN_PATHS = ("/metrics", "/sidekiq", "/pghero")
COMPRESSED = (
    "application/activity+json application/atom+xml application/javascript application/jrd+json application/json "
    "application/ld+json application/manifest+json application/rss+xml application/xml image/svg+xml text/css "
    "text/javascript text/plain text/xml"
).split()
# What S3 services tell about themselves and their objects, and what we say ourselves; nginx has no pattern for names.
STORAGE_HEADERS = (
    "Set-Cookie Cache-Control x-amz-acl x-amz-bucket-region x-amz-delete-marker x-amz-expiration x-amz-id-2 "
    "x-amz-object-lock-legal-hold x-amz-object-lock-mode x-amz-object-lock-retain-until-date "
    "x-amz-replication-status x-amz-request-id x-amz-server-side-encryption x-amz-storage-class x-amz-tagging-count "
    "x-amz-version-id x-rgw-object-type Access-Control-Allow-Origin Content-Security-Policy Permissions-Policy "
    "Referrer-Policy Strict-Transport-Security X-Content-Type-Options X-Frame-Options"
).split()
# Where the lock in the database may refuse what a person sends, and which page (below) then says so.
REFUSED = {
    # Where Mastodon deletes, moves or empties an account (04-guards.sql).
    "official": (
        "= /settings/delete",
        "= /statuses_cleanup",
        "^~ /settings/migration",
        "= /admin/accounts/batch",
        "~ ^/admin/accounts/[0-9]+/(action|memorialize)$",
        "~ ^/admin/reports/[0-9]+/actions$",
    ),
    "register": ("~ ^/admin/accounts/[0-9]+/change_email$",),
    "settings": ("^~ /admin/settings",),
}
NOT_REGISTERED = (
    "This address is not in the staff register, it belongs to another organisation, or the invitation is for another "
    "address."
)
STYLE = "body{font:1.1em/1.5 sans-serif;max-width:38em;margin:15vh auto;padding:0 1em;color:#1b1b1b;background:#fff}"


@dataclass(frozen=True)
class Page:
    """A page that nginx answers with by itself, when the application is down too."""

    title: str
    text: str


ERRORS = {
    400: Page("The request could not be read", "Please go back and try again."),
    403: Page("Not allowed", "This address does not take such requests."),
    404: Page("Page not found", "There is nothing at this address. It may have been removed."),
    405: Page("Not allowed", "This address does not take such requests."),
    413: Page("The file is too large", "The server takes files of up to 99 MB."),
    414: Page("The address is too long", "Please go back and use a shorter address."),
    500: Page("The server failed", "Something went wrong on our side. Please try again in a few minutes."),
    502: Page("The server is not available", "It may be under maintenance. Please try again in a few minutes."),
    503: Page("The server is busy", "Please try again in a few minutes."),
    504: Page("The server took too long", "Please try again in a few minutes."),
}
REFUSALS = {
    "register": Page("Not registered", f"{NOT_REGISTERED} Please ask the coordinator of your organisation."),
    "official": Page(
        "Not possible with an official account",
        "An official account is not deleted, moved, emptied or made a memorial by a click: its posts are records. "
        "This account was not changed. Please ask the coordinator of your organisation.",
    ),
    "settings": Page(
        "This setting is fixed",
        "Registration stays closed and the setting was not changed. The operator changes settings in instance.yaml.",
    ),
}


def expires(today: date) -> str:
    """A time half a year to a year ahead that changes twice a year only, so that deploys settle (RFC 9116)."""
    return f"{today.year + 1}-{'01' if today.month <= 6 else '07'}-01T00:00:00Z"


def files(node: Node) -> list[Entry]:
    """Pages, security.txt and log rotation first: the configuration names them."""
    return [
        Absent("/etc/nginx/sites-enabled/default"),
        facts_program("nginx"),
        Directory("/var/cache/nginx"),
        Directory(CHALLENGES),
        Directory(SHARE),
        Directory(f"{SHARE}/errors"),
        *(_page(node, str(code), page) for code, page in ERRORS.items()),
        *(_page(node, name, page) for name, page in REFUSALS.items()),
        _security_txt(node),
        managed("nginx/etc/logrotate.d/nginx", "/etc/logrotate.d/nginx", node, days=LOG_DAYS),
        Directory("/etc/systemd/system/nginx.service.d"),
        managed(
            "nginx/etc/systemd/system/nginx.service.d/60-mfg.conf",
            "/etc/systemd/system/nginx.service.d/60-mfg.conf",
            node,
        ),
        _config(node),
    ]


def _page(node: Node, name: str, page: Page) -> ManagedFile:
    template = "nginx/usr/local/share/mastodon-gov/errors/page.html"
    return managed(template, f"{SHARE}/errors/{name}.html", node, page=page, style=STYLE)


def _security_txt(node: Node) -> ManagedFile:
    until = expires(datetime.now(UTC).date())
    return managed("nginx/usr/local/share/mastodon-gov/security.txt", f"{SHARE}/security.txt", node, expires=until)


def _config(node: Node) -> ManagedFile:
    return managed(
        "nginx/etc/nginx/nginx.conf",
        CONFIG,
        node,
        validate=f"{CHECK} -c",
        challenges=CHALLENGES,
        tls=TLS,
        bundle=BUNDLE,
        share=SHARE,
        errors=sorted(ERRORS),
        style_hash=f"sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}",
        compressed=COMPRESSED,
        static=STATIC,
        admin_paths=ADMIN_PATHS,
        refused=REFUSED,
        not_registered=NOT_REGISTERED,
        storage=urlsplit(node.instance.object_storage.endpoint),
        storage_headers=STORAGE_HEADERS,
    )


@deploy("Proxy")
def nginx(node: Node) -> None:
    """It comes after the role certificates, which provides the link to a certificate (at first a placeholder)."""
    settle(PACKAGES, files(node), UNITS)
