"""Where an instance keeps what it must not lose: object storage, and the backups in it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mastodon_gov.instance.types import (
    Allowed,
    Bucket,
    Clock,
    MountPoint,
    Origin,
    Part,
    Word,
)

Days = Annotated[int, Field(ge=1, le=3650, strict=True)]
Region = Annotated[
    str, Field(pattern=r"^[a-z0-9-]{2,40}$"), Allowed("a region as the S3 service spells it")
]  # fmt: skip


class ObjectStorage(Part):
    """Any S3 service. Days are counted by the S3 service; a lock in COMPLIANCE mode cannot be shortened."""

    endpoint: Origin
    """Address of the S3 service. A name with a private address must be listed in addresses.yaml."""
    region: Region = "us-east-1"
    """Region, as the S3 service spells it."""
    media_bucket: Bucket
    """Bucket for pictures and videos. Everybody may read an object whose address they know; nobody may list."""
    backup_bucket: Bucket
    """Bucket for backups. Closed to everybody else, and locked against deletion."""
    media_noncurrent_days: Days = 30
    """Days a deleted or replaced picture can still be brought back."""
    backup_lock_days: Days = 14
    """Days nobody can delete a backup, with any key. It can be made longer, never shorter."""
    backup_gib: Annotated[int, Field(ge=1, strict=True)] | None = None
    """GiB that the S3 service grants the bucket of the backups; `status` warns when they are used up to 80 %, and when
    they will not be enough."""
    # Names of the two users as the S3 service's policies spell them.
    media_user: Annotated[
        str, Field(pattern=r"^[^\s\"\\]+$"), Allowed("a user as the S3 service's policies spell it")
    ] = "arn:aws:iam:::user/media"
    """The S3 user that writes pictures, as policies spell it."""
    backup_user: Annotated[
        str, Field(pattern=r"^[^\s\"\\]+$"), Allowed("a user as the S3 service's policies spell it")
    ] = "arn:aws:iam:::user/backups"
    """The S3 user that writes backups, as policies spell it."""


class SecondRepository(Part):
    """A second repository: exactly one of a file system of another machine, and another S3 service."""

    directory: MountPoint | None = None
    """Where the file system of another machine is mounted on the host."""
    endpoint: Origin | None = None
    """Address of another S3 service; its key is the secret `object_storage.second`."""
    bucket: Bucket | None = None
    """Its bucket, which must exist there, with versioning and a lock."""
    region: Region = "us-east-1"
    """Its region."""

    @model_validator(mode="after")
    def exactly_one(self) -> SecondRepository:
        """Refuse none or both places, and a service without its bucket."""
        given = [name for name in ("directory", "endpoint") if getattr(self, name) is not None]
        if len(given) != 1 or (self.endpoint is None) != (self.bucket is None):
            found = " and ".join([*given, *(["bucket"] if self.bucket else [])]) or "no place"
            raise ValueError(f"{found}|a directory, or an endpoint with its bucket")
        return self


class Backups(Part):
    """pgBackRest. Times are UTC; `archive_timeout` is in seconds and bounds what a lost host loses."""

    stanza: Word = "social"
    """pgBackRest's name for this database."""
    full_on: Literal["daily", "mon", "tue", "wed", "thu", "fri", "sat", "sun"] = "daily"
    """On which nights the backup is a full one. On the others it builds on the last full one."""
    full_at: Clock = "02:30"
    """When the nightly backup starts (UTC)."""
    incr_every: Annotated[int, Field(ge=1, le=12, strict=True)] = 6
    """Hours between the small backups of the day; a restore replays the changes since the last one."""
    keep_full: Annotated[int, Field(ge=2, le=365, strict=True)] = 14
    """How many full backups are kept, with all changes between them; together at least the days of
    `object_storage.backup_lock_days`."""
    second: SecondRepository | None = None
    """A second repository. It gets all WAL and a full backup each night."""
    queue_gib: Annotated[int, Field(ge=1, strict=True)] | None = None
    """GiB of changes that may wait on the host while the S3 service is away; what is more is thrown away, and nobody
    can restore it. By default half of the disk of the WAL, or a quarter where the database lies on it too."""
    drill_max_age_days: Annotated[int, Field(ge=1, le=90, strict=True)] = 7
    """Days after which `status` asks for a drill: a backup that nobody restored is a hope."""
    archive_timeout: Annotated[int, Field(ge=30, le=3600, strict=True)] = 60
    """Seconds after which a change is sent away at the latest: what a lost host loses."""

    @property
    def full_days(self) -> int:
        """Days between two full backups."""
        return 1 if self.full_on == "daily" else 7
