"""Types of the values in an instance directory. `Allowed` says in words what the pattern beside it says to Python."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field


@dataclass(frozen=True)
class Allowed:
    """What is allowed, as the end of the sentence "Allowed: …"."""

    text: str


Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAME = rf"({_LABEL}\.)+[a-z][a-z0-9-]{{0,61}}[a-z0-9]"
DOMAIN = rf"^{_NAME}$"
ADDRESS = rf"^[A-Za-z0-9_%+-]+(\.[A-Za-z0-9_%+-]+)*@{_NAME}$"
SSH_KEY = r"^(ssh-ed25519|sk-ssh-ed25519@openssh\.com|ssh-rsa) [A-Za-z0-9+/=]+( [^\n]*)?$"
PORT = r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"

Flag = Annotated[bool, Field(strict=True), Allowed("true or false")]
Domain = Annotated[
    str,
    Field(pattern=DOMAIN, max_length=253),
    Allowed("a full host name in small letters, such as social.agency.example"),
]
MailAddress = Annotated[
    str,
    Field(pattern=ADDRESS, max_length=254),
    Allowed("a mail address with its domain in small letters, such as press@agency.example"),
]
SshKey = Annotated[
    str,
    Field(pattern=SSH_KEY),
    Allowed("a public SSH key on one line, as in a .pub file (ssh-ed25519, sk-ssh-ed25519@openssh.com or ssh-rsa)"),
]
Handle = Annotated[
    str, Field(pattern=r"^[a-z0-9_]{1,30}$"), Allowed("1 to 30 small letters, digits and underscores, without the @")
]
Bucket = Annotated[
    str,
    Field(pattern=r"^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$"),
    Allowed("3 to 63 small letters, digits and hyphens (no dots: they break TLS)"),
]
Url = Annotated[
    str,
    Field(pattern=rf"^https://{_NAME}(:{PORT})?(/[^\s?#@]*)?$"),
    Allowed("an https address with a host name, such as https://s3.agency.example"),
]
Origin = Annotated[
    str,
    Field(pattern=rf"^https://{_NAME}(:{PORT})?$"),
    Allowed("an https address with a host name and without a path, as pgBackRest wants it: https://s3.agency.example"),
]
ProxyUrl = Annotated[
    str,
    Field(pattern=rf"^http://({_NAME}|[a-z0-9-]+):{PORT}$"),
    Allowed("http://NAME:PORT, without user and password"),
]
Clock = Annotated[
    str,
    Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$"),
    Allowed("a time of day in UTC from 00:00 to 23:59, such as 02:30"),
]
Locale = Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Z]{2})?$"), Allowed("a language code such as en, de or pt-BR")]
Version = Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9]+$"), Allowed("three numbers with dots, such as 4.6.5")]
Word = Annotated[
    str,
    Field(pattern=r"^[a-z][a-z0-9-]{0,30}$"),
    Allowed("a word of at most 31 small letters, digits and hyphens that begins with a letter"),
]
TimeServer = Annotated[str, Field(pattern=rf"^({_NAME}|[0-9.]+|[0-9a-f:]+)$"), Allowed("a host name or an IP address")]
RelativePath = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$"),
    Allowed("the path of a file inside the instance directory, such as ca/ministry.pem"),
]  # fmt: skip

MountPoint = Annotated[
    str, Field(pattern=r"^(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$"),
    Allowed("the path on the hosts where a file system is mounted, such as /srv/backups"),
]  # fmt: skip
ProgramPath = Annotated[
    str, Field(pattern=r"^(/[A-Za-z0-9_.+-]*[A-Za-z0-9_+-])+$"),
    Allowed("the path of a program on the hosts, such as /usr/sbin/mount.nfs"),
]  # fmt: skip


class Part(BaseModel):
    """A frozen part of the instance; a key it does not know is an error. Text below a field is its documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, use_attribute_docstrings=True)

    def __copy__(self) -> Self:
        """Itself: nothing in it changes, and pyinfra copies host data at every look."""
        return self

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Itself, as above."""
        return self
