"""Every secret by its dotted name: what it may look like, how it is made, whether it can be replaced.

Values end up in three readers of environment files (systemd, Ruby, shell), which treat white space, `#`, quotes,
backtick, `$` and backslash in three ways (`reference/mastodon-production.md` §1). So no value has one.
"""

from __future__ import annotations

import base64
import re
import secrets as random
import string
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

Values = dict[str, str]
PLACEHOLDER = "TO-BE-GIVEN"
FORBIDDEN = re.compile(r"[\s#'\"`$\\]|[^\x20-\x7e]")
ALNUM = string.ascii_letters + string.digits


@dataclass(frozen=True)
class Kind:
    """One secret. `make` is None for what others give us; `keep` is the reason why it can never be replaced."""

    pattern: str
    words: str
    make: Callable[[], str] | None = None
    keep: str = ""
    optional: bool = False
    after: str = ""


def _alnum32() -> str:
    return "".join(random.choice(ALNUM) for _ in range(32))


_ENCRYPTION = Kind(
    r"[A-Za-z0-9]{32,128}",
    "32 letters and digits",
    _alnum32,
    "second factors and signing keys in the database are encrypted with it; with another one nobody with a second "
    "factor could sign in",
)
_VAPID = "every browser and app would have to subscribe to notifications again"
_GIVEN_KEY = Kind(
    r"[\x21-\x7e]{3,256}", "what the S3 service shows", after="deploy; then remove the old key at the S3 service"
)

KINDS = {
    "mastodon.secret_key_base": Kind(
        r"[0-9a-f]{128}",
        "128 hexadecimal digits",
        lambda: random.token_hex(64),
        after="deploy; everybody has to sign in again, and links in mails already sent stop working",
    ),
    "mastodon.active_record_encryption_primary_key": _ENCRYPTION,
    "mastodon.active_record_encryption_deterministic_key": _ENCRYPTION,
    "mastodon.active_record_encryption_key_derivation_salt": _ENCRYPTION,
    "mastodon.vapid_private_key": Kind(
        r"[A-Za-z0-9_-]{43}=?", "a P-256 key: 43 characters of URL-safe base64", keep=_VAPID
    ),
    "mastodon.vapid_public_key": Kind(
        r"B[A-Za-z0-9_-]{86}=?", "a P-256 point: 87 characters of URL-safe base64", keep=_VAPID
    ),
    "redis.password": Kind(
        r"[A-Za-z0-9_-]{32,256}",
        "at least 32 letters, digits, - and _",
        lambda: random.token_urlsafe(48),
        after="deploy; Redis takes the old password too until no process of Mastodon has it",
    ),
    "mail.login": Kind(r"[\x21-\x7e]{0,256}", "what the mail relay gave you, or nothing", after="deploy"),
    "mail.password": Kind(r"[\x21-\x7e]{0,256}", "what the mail relay gave you, or nothing", after="deploy"),
    **{
        f"object_storage.{user}.{part}": _GIVEN_KEY
        for user in ("owner", "media", "backups")
        for part in ("access_key", "secret_key")
    },
    **{
        f"object_storage.second.{part}": Kind(
            r"[\x21-\x7e]{3,256}", "what the second S3 service shows", after="deploy", optional=True
        )
        for part in ("access_key", "secret_key")
    },
    "backups.cipher_pass": Kind(
        r"[A-Za-z0-9_-]{64,256}",
        "at least 64 letters, digits, - and _ (48 random bytes)",
        lambda: random.token_urlsafe(48),
        "every backup made so far is encrypted with it; with another one none could be restored",
    ),
}
# What other people's services give us.
_FROM_OTHERS = (name for name, kind in KINDS.items() if kind.make is None and not kind.optional)
GIVEN = tuple(name for name in _FROM_OTHERS if not name.startswith("mastodon.vapid"))


def generate() -> Values:
    """New secrets by dotted name, with a placeholder for each that others give us; plain text, for `write` alone."""
    private, public = _vapid_pair()
    made = {name: kind.make() if kind.make else PLACEHOLDER for name, kind in KINDS.items() if not kind.optional}
    return made | {"mastodon.vapid_private_key": private, "mastodon.vapid_public_key": public}


def _vapid_pair() -> tuple[str, str]:
    """Private number (32 bytes) and uncompressed point (65 bytes) on P-256, as the gem webpush reads them."""
    key = ec.generate_private_key(ec.SECP256R1())
    number = key.private_numbers().private_value.to_bytes(32, "big")
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return _base64(number), _base64(point)


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def fault(name: str, value: str) -> str | None:
    """What is wrong with a value, in words that do not show it; None if nothing is."""
    kind = KINDS[name]
    if value == PLACEHOLDER:
        return "the placeholder of `init`"
    if FORBIDDEN.search(value):
        return "white space, one of # ' \" ` $ \\, or a character outside ASCII"
    if not re.fullmatch(kind.pattern, value):
        return f"{len(value)} characters of another form"
    return None


def pair_faults(values: Values) -> dict[str, str]:
    """Faults between values that are each right: name to words."""
    faults: dict[str, str] = {}
    seen: dict[str, str] = {}
    for name in (n for n in KINDS if "encryption" in n or n.endswith(".secret_key")):
        if name in values and values[name] in seen:
            faults[name] = f"the same value as {seen[values[name]]}"
        seen.setdefault(values.get(name, ""), name)
    login, password = values.get("mail.login"), values.get("mail.password")
    if "" in (login, password) and (login or password):
        faults["mail.password" if login else "mail.login"] = "nothing, while the other half of the sign-in is given"
    halves = [f"object_storage.second.{part}" for part in ("access_key", "secret_key")]
    if sum(name in values for name in halves) == 1:
        faults |= {name: "nothing, while the other half of the key is given" for name in halves if name not in values}
    private, public = values.get("mastodon.vapid_private_key"), values.get("mastodon.vapid_public_key")
    if private and public and _point(private) != public.rstrip("="):
        faults["mastodon.vapid_public_key"] = "a public key that does not belong to vapid_private_key"
    return faults


def _point(private: str) -> str:
    number = int.from_bytes(base64.urlsafe_b64decode(private.rstrip("=") + "="), "big")
    try:
        key = ec.derive_private_key(number, ec.SECP256R1())
    except ValueError:
        return ""
    return _base64(key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))
