"""The typed, frozen description of one instance: every choice of `instance.yaml` and `organisations.yaml`.

Nothing here reads files or the network. `load.py` turns YAML into these types and errors into sentences;
`flows.py` derives who may talk to whom. The text below a field is its documentation (docs/it-team/instance.md).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mastodon_gov.instance.organisations import OfficialAccount, Organisation
from mastodon_gov.instance.server import Server
from mastodon_gov.instance.storage import Backups, ObjectStorage
from mastodon_gov.instance.sweep import Sweep
from mastodon_gov.instance.types import (
    Address,
    Clock,
    Domain,
    Flag,
    Handle,
    Locale,
    MailAddress,
    Network,
    Part,
    ProgramPath,
    ProxyUrl,
    RelativePath,
    SshKey,
    TimeServer,
    Url,
    Version,
    Word,
)


class Domains(Part):
    """Names of the instance."""

    handle: Domain
    """What people see after the @ (`@press@agency.example`). It can never change once deployed: other servers know
    every account by it."""
    web: Domain
    """The name browsers and apps open. It can never change once deployed: it is part of the address of every post."""
    media: Domain
    """The name pictures and videos are served from. Not the web name: uploaded files must not share its cookies."""


class Owner(Part):
    """The first account, with every permission in Mastodon."""

    username: Handle
    """The name before the @ of the owner's account."""
    address: MailAddress
    """The owner's mail address, within a domain of organisations.yaml."""


class Officers(Part):
    """Who answers for the instance beside its owner: people or offices, by mail. The audit asks for all of them."""

    deputy: MailAddress | None = None
    """Who does when the owner is away."""
    data_protection: MailAddress | None = None
    """The data protection officer."""
    security: MailAddress | None = None
    """The security officer."""


class Administrator(Part):
    """A person who may sign in to the hosts by SSH."""

    name: Word
    """The person's account on the hosts."""
    keys: tuple[SshKey, ...] = Field(min_length=1)
    """The person's public SSH keys."""


class Auditor(Part):
    """A person who may look, and change nothing: the account `auditor` on the hosts runs only the audit's programs."""

    name: Word
    """The person's name, for the record."""
    keys: tuple[SshKey, ...] = Field(min_length=1)
    """The person's public SSH keys, each written out or the name of a .pub file in the instance directory."""


class Access(Part):
    """Who may sign in to the hosts, and from where."""

    networks: tuple[Network, ...] = Field(min_length=1)
    """Networks that SSH answers (`192.0.2.0/28`), or names of addresses.yaml. Nobody else sees the port."""
    deploy_keys: tuple[SshKey, ...] = Field(min_length=1)
    """Public SSH keys that deploy, each written out or the name of a .pub file in the instance directory."""
    administrators: tuple[Administrator, ...] = ()
    """People with an account and sudo on the hosts. Who is taken off this list loses both at the next deploy."""
    auditors: tuple[Auditor, ...] = ()
    """People who may run the audit, over the account `auditor`. Without any, the account does not exist."""
    privileged_programs: tuple[ProgramPath, ...] = ()
    """Programs on the hosts that whoever starts them runs with another's rights (set-uid, set-gid), beside those that
    the audit knows as Debian's; any other fails its control MFG-OS-19. Nothing is installed or changed."""


class NetworkSettings(Part):
    """Services of the network that every host uses."""

    resolvers: tuple[Address, ...] = Field(min_length=1)
    """DNS resolvers: IP addresses, or names of addresses.yaml. The hosts may ask no others; list all they do ask."""
    time_servers: tuple[TimeServer, ...] = Field(min_length=1)
    """Time servers. A wrong clock breaks certificates, second factors and federation."""
    http_proxy: ProxyUrl | None = None
    """The web proxy, where hosts reach the internet only through one. It must itself refuse private addresses."""
    trusted_ca_files: tuple[RelativePath, ...] = ()
    """Certificates (PEM) of your own authorities that the hosts trust besides Debian's, as files of this directory."""


class Acme(Part):
    """An ACME directory and whom it may write to."""

    directory: Url
    """Address of the ACME directory."""
    contact: MailAddress
    """Who is told when a certificate is about to run out."""


class InternalCa(Part):
    """Certificates that the ministry's own CA has signed for keys made on the host."""

    directory: RelativePath
    """Directory with the signed certificates, one file per host."""


class GivenFiles(Part):
    """Certificate chain and key as files of the instance directory; the key is a file encrypted with age."""

    chain: RelativePath
    """The certificate with its chain (PEM)."""
    key: RelativePath
    """The key, encrypted with age."""


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
            raise ValueError(f"{' and '.join(chosen) or 'no issuer'}|exactly one of acme, internal_ca and files")
        return self


class Mail(Part):
    """The relay that takes our mail; STARTTLS with a verified certificate is always required."""

    relay: Domain
    """The mail relay. A name with a private address must be listed in addresses.yaml."""
    port: Annotated[int, Field(ge=1, le=65535, strict=True)] = 587
    """The relay's port for submission with STARTTLS."""
    from_address: MailAddress
    """The sender of all mail."""
    reply_to: MailAddress | None = None
    """Where answers go, if not to the sender."""


class Database(Part):
    """PostgreSQL. `memory` (MiB) is what it may plan with; without it, half of what the host shows."""

    memory: Annotated[int, Field(ge=512, strict=True)] | None = None
    """Memory in MiB that PostgreSQL may plan with. Left out: half of the host's, rounded down."""
    max_connections: Annotated[int, Field(ge=40, le=1000, strict=True)] = 100
    """Connections at the same time: twice all web, Sidekiq and streaming threads (two slots run while they are
    swapped), and 10."""


class Application(Part):
    """Mastodon's processes. Retention is in days."""

    default_locale: Locale = "en"
    """Language of pages for visitors without one of their own."""
    web_workers: Annotated[int, Field(ge=1, le=32, strict=True)] = 2
    """Web processes; about 400 MiB each."""
    web_threads: Annotated[int, Field(ge=1, le=32, strict=True)] = 5
    """Threads of each web process."""
    sidekiq_threads: Annotated[int, Field(ge=5, le=100, strict=True)] = 10
    """Threads for background jobs: federation, mail, pictures."""
    ip_retention: Annotated[int, Field(ge=1, le=365, strict=True)] = 90
    """Days that IP addresses of users are kept."""
    session_retention: Annotated[int, Field(ge=1, le=365, strict=True)] = 90
    """Days that unused sessions are kept."""


class Updates(Part):
    """Unattended security upgrades of Debian packages, at this time (UTC)."""

    at: Clock = "03:30"
    """When they are installed (UTC)."""
    automatic: Flag = True
    """Whether they are installed without a person."""


class Instance(Part):
    """One logical instance, as its directory describes it."""

    format: Literal[1]
    """Version of this file's form."""
    lab: Flag = False
    """Marks an instance of tests and demonstrations: reserved names and the stand-in release are allowed only there."""
    release: Version
    """The Mastodon version to run, from the list of `mastodon-gov release list`."""
    domain: Domains
    owner: Owner
    officers: Officers = Officers()
    security_contact: MailAddress | None = None
    """Whom people tell of a weakness of this server (security.txt). Left out: the owner's address."""
    access: Access
    network: NetworkSettings
    certificates: Certificates
    object_storage: ObjectStorage
    mail: Mail
    backups: Backups = Backups()
    database: Database = Database()
    mastodon: Application = Application()
    updates: Updates = Updates()
    server: Server | None = None
    sweep: Sweep = Sweep()
    # The rest comes from organisations.yaml, addresses.yaml and the files that instance.yaml names.
    organisations: tuple[Organisation, ...] = Field(min_length=1)
    accounts: tuple[OfficialAccount, ...] = ()
    addresses: dict[str, tuple[Address, ...]] = Field(default_factory=dict)
    trusted_ca: tuple[str, ...] = ()
    server_files: dict[str, str] = Field(default_factory=dict)

    @property
    def staff_domains(self) -> tuple[str, ...]:
        """All mail domains of the organisations that have a place here, sorted."""
        return tuple(sorted(domain for body in self.register.values() for domain in body["domains"]))

    @property
    def register(self) -> dict[str, dict[str, Any]]:
        """What the lock in the database knows of the organisations: state and sorted domains, by id."""
        return {
            body.id: {"state": body.state, "domains": sorted(body.domains) if body.state != "requested" else []}
            for body in self.organisations
        }

    def reached_at(self, name: str) -> list[str]:
        """Addresses that addresses.yaml lists for a host, the one to reach it by first; else its name. Version 4 first:
        a lab and many ministries route nothing else."""
        known = sorted(self.addresses.get(name, ()), key=lambda address: address.version)
        return [str(address) for address in known] or [name]

    @property
    def public_names(self) -> tuple[str, ...]:
        """Host names that the proxy serves and the certificate carries."""
        return (self.domain.web, self.domain.media)
