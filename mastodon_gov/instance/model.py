"""The typed, frozen description of one instance: every choice of `instance.yaml` and `organisations.yaml`.

Nothing here reads files or the network. `load.py` turns YAML into these types and errors into sentences;
`flows.py` derives who may talk to whom.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

DOMAIN = r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]$"
ADDRESS = r"^[A-Za-z0-9._%+-]+@([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]$"
SSH_KEY = r"^(ssh-ed25519|sk-ssh-ed25519@openssh\.com|ssh-rsa) [A-Za-z0-9+/=]+( [^\n]*)?$"

Domain = Annotated[str, Field(pattern=DOMAIN, min_length=4, max_length=253)]
MailAddress = Annotated[str, Field(pattern=ADDRESS)]
SshKey = Annotated[str, Field(pattern=SSH_KEY)]
Handle = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,30}$")]
Bucket = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$")]
Url = Annotated[str, Field(pattern=r"^https://[a-z0-9.-]+(:[0-9]{1,5})?(/[^\s]*)?$")]
Clock = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]


class Part(BaseModel):
    """A frozen part of the instance; a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Domains(Part):
    """Names of the instance. `handle` and `web` can never change once deployed."""

    handle: Domain
    web: Domain
    media: Domain


class Owner(Part):
    """The first account, with every permission in Mastodon."""

    username: Handle
    address: MailAddress


class Administrator(Part):
    """A person who may sign in to the hosts by SSH."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
    keys: tuple[SshKey, ...] = Field(min_length=1)


class Access(Part):
    """Who may sign in to the hosts, and from where."""

    networks: tuple[Network, ...] = Field(min_length=1)
    deploy_keys: tuple[SshKey, ...] = Field(min_length=1)
    administrators: tuple[Administrator, ...] = ()


class NetworkSettings(Part):
    """Services of the network that every host uses."""

    resolvers: tuple[Address, ...] = Field(min_length=1)
    time_servers: tuple[str, ...] = Field(min_length=1)
    http_proxy: Annotated[str, Field(pattern=r"^http://[a-z0-9.:\[\]-]+$")] | None = None
    trusted_ca_files: tuple[str, ...] = ()


class Acme(Part):
    """An ACME directory and whom it may write to."""

    directory: Url
    contact: MailAddress


class InternalCa(Part):
    """Certificates that the ministry's own CA has signed for keys made on the host."""

    directory: str


class GivenFiles(Part):
    """Certificate chain and key as files of the instance directory; the key is a file encrypted with age."""

    chain: str
    key: str


class Certificates(Part):
    """Where the certificates of the public names come from: exactly one issuer."""

    acme: Acme | None = None
    internal_ca: InternalCa | None = None
    files: GivenFiles | None = None

    @model_validator(mode="after")
    def exactly_one(self) -> Certificates:
        """Refuse none or several issuers."""
        chosen = [name for name in ("acme", "internal_ca", "files") if getattr(self, name) is not None]
        if len(chosen) != 1:
            raise ValueError(
                f"has {', '.join(chosen) or 'no issuer'}; exactly one of acme, internal_ca, files is allowed"
            )
        return self


class ObjectStorage(Part):
    """Any S3 service. Days are counted by the S3 service; a lock in COMPLIANCE mode cannot be shortened."""

    endpoint: Url
    region: str = "us-east-1"
    media_bucket: Bucket
    backup_bucket: Bucket
    media_noncurrent_days: Annotated[int, Field(ge=1, le=3650)] = 30
    backup_lock_days: Annotated[int, Field(ge=1, le=3650)] = 14
    # Names of the two users as the S3 service's policies spell them.
    media_user: str = "arn:aws:iam:::user/media"
    backup_user: str = "arn:aws:iam:::user/backups"


class Mail(Part):
    """The relay that takes our mail; STARTTLS with a verified certificate is always required."""

    relay: Domain
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    from_address: MailAddress
    reply_to: MailAddress | None = None


class Backups(Part):
    """pgBackRest. Times are UTC; `archive_timeout` is in seconds and bounds what a lost host loses."""

    stanza: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")] = "social"
    full_at: Clock = "02:30"
    keep_full: Annotated[int, Field(ge=2, le=365)] = 14
    archive_timeout: Annotated[int, Field(ge=30, le=3600)] = 60


class Database(Part):
    """PostgreSQL. `memory` (MiB) is what it may plan with; without it, what the host shows."""

    memory: Annotated[int, Field(ge=512)] | None = None
    max_connections: Annotated[int, Field(ge=40, le=1000)] = 100


class Application(Part):
    """Mastodon's processes. Retention is in days."""

    default_locale: Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Z]{2})?$")] = "en"
    web_workers: Annotated[int, Field(ge=1, le=32)] = 2
    web_threads: Annotated[int, Field(ge=1, le=32)] = 5
    sidekiq_threads: Annotated[int, Field(ge=5, le=100)] = 10
    ip_retention: Annotated[int, Field(ge=1, le=365)] = 90
    session_retention: Annotated[int, Field(ge=1, le=365)] = 90


class Updates(Part):
    """Unattended security upgrades of Debian packages, at this time (UTC)."""

    at: Clock = "03:30"
    automatic: bool = True


class Organisation(Part):
    """A body whose staff may hold accounts; only exactly these mail domains."""

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
    name: str = Field(min_length=2, max_length=200)
    domains: tuple[Domain, ...] = Field(min_length=1)


class Instance(Part):
    """One logical instance, as its directory describes it."""

    format: Literal[1]
    lab: bool = False
    release: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    domain: Domains
    owner: Owner
    access: Access
    network: NetworkSettings
    certificates: Certificates
    object_storage: ObjectStorage
    mail: Mail
    backups: Backups = Backups()
    database: Database = Database()
    mastodon: Application = Application()
    updates: Updates = Updates()
    # The next three come from organisations.yaml, addresses.yaml and the files named in network.trusted_ca_files.
    organisations: tuple[Organisation, ...] = Field(min_length=1)
    addresses: dict[str, tuple[Address, ...]] = {}
    trusted_ca: tuple[str, ...] = ()

    @property
    def staff_domains(self) -> tuple[str, ...]:
        """All mail domains of all organisations, sorted."""
        return tuple(sorted({domain for body in self.organisations for domain in body.domains}))

    @property
    def public_names(self) -> tuple[str, ...]:
        """Host names that the proxy serves and the certificate carries."""
        return (self.domain.web, self.domain.media)


class AccessKey(Part):
    """An S3 key pair."""

    access_key: SecretStr
    secret_key: SecretStr


class MastodonSecrets(Part):
    """Secrets of the application. Losing the encryption keys locks out everybody with a second factor."""

    secret_key_base: SecretStr
    active_record_encryption_primary_key: SecretStr
    active_record_encryption_deterministic_key: SecretStr
    active_record_encryption_key_derivation_salt: SecretStr
    vapid_private_key: SecretStr
    vapid_public_key: SecretStr


class RedisSecrets(Part):
    """Password of the application's user in Redis."""

    password: SecretStr


class MailSecrets(Part):
    """Sign-in at the relay; both empty where the relay knows us by address."""

    login: SecretStr = SecretStr("")
    password: SecretStr = SecretStr("")


class StorageSecrets(Part):
    """S3 keys. `owner` makes buckets and policies and never reaches a host."""

    owner: AccessKey
    media: AccessKey
    backups: AccessKey


class BackupSecrets(Part):
    """Passphrase of the backup repository; it cannot be changed after the first backup."""

    cipher_pass: SecretStr


class Secrets(Part):
    """What `secrets.age` holds."""

    format: Literal[1]
    mastodon: MastodonSecrets
    redis: RedisSecrets
    mail: MailSecrets = MailSecrets()
    object_storage: StorageSecrets
    backups: BackupSecrets


class Node(Part):
    """What a role sees: one host of one instance. `groups` are the inventory's groups the host is in."""

    name: str
    groups: frozenset[str]
    instance: Instance
    secrets: Secrets
