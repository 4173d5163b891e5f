"""What `secrets.age` holds. Values are `SecretStr`: printing, logging and error texts show stars."""

from __future__ import annotations

from typing import Literal

from pydantic import SecretStr

from mastodon_gov.instance.types import Part


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
    """S3 keys. `owner` makes buckets and policies and never reaches a host; `second` is for `backups.second`."""

    owner: AccessKey
    media: AccessKey
    backups: AccessKey
    second: AccessKey | None = None


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
