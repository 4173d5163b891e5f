"""Connections to the S3 service, and its errors as sentences.

The service is known by its standard only: path-style addresses and checksums where the standard demands them, so
that any S3 service will do.
"""

from __future__ import annotations

import socket
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, SSLError

from mastodon_gov.errors import Refusal
from mastodon_gov.instance import Instance
from mastodon_gov.instance.secret_model import AccessKey

SYSTEM_STORE = "/etc/ssl/certs/ca-certificates.crt"
# One try: a service that is away is a sentence after at most 5 s for each of its addresses (seconds).
CONNECT_TIMEOUT, READ_TIMEOUT = 5, 10

# Rights are named like the request, but for these (the service's list of actions: "Actions, resources, and condition
# keys for Amazon S3", Service Authorization Reference).
RIGHTS = {
    "HeadBucket": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "ListObjectVersions": "s3:ListBucketVersions",
    "ListBuckets": "s3:ListAllMyBuckets",
    "PutBucketLifecycleConfiguration": "s3:PutLifecycleConfiguration",
    "GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
    "PutObjectLockConfiguration": "s3:PutBucketObjectLockConfiguration",
    "GetObjectLockConfiguration": "s3:GetBucketObjectLockConfiguration",
    "PutPublicAccessBlock": "s3:PutBucketPublicAccessBlock",
    "GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
    "CreateMultipartUpload": "s3:PutObject",
    "DeleteObjects": "s3:DeleteObject",
}
DENIED = {"AccessDenied", "403", "Forbidden", "AllAccessDisabled"}


def code(error: ClientError) -> str:
    """The service's word for an error, such as `NoSuchBucket`."""
    return str(error.response.get("Error", {}).get("Code", "unknown"))


@contextmanager
def reached(instance: Instance) -> Iterator[str]:
    """Inside, names of addresses.yaml lead where the instance says; gives the path of a file for boto3 with the
    certificate authorities of the system and of the instance."""
    system = Path(ssl.get_default_verify_paths().cafile or SYSTEM_STORE)
    store = system if system.exists() else Path(SYSTEM_STORE)
    if not store.exists():
        raise Refusal(
            f"This machine has no store of certificate authorities: {SYSTEM_STORE} does not exist. "
            "Install the package ca-certificates, then run this again."
        )
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as bundle, _resolved(instance):
        bundle.write("\n".join([store.read_text(), *instance.trusted_ca]) + "\n")
        bundle.flush()
        yield bundle.name


@contextmanager
def _resolved(instance: Instance) -> Iterator[None]:
    """A ministry's S3 often has a name that only its own network knows; boto3 has no other way to be told."""
    real = socket.getaddrinfo

    def known(name: Any, *rest: Any, **options: Any) -> Any:
        listed = instance.addresses.get(str(name)) or (name,)
        return [found for each in listed for found in real(each if each is name else str(each), *rest, **options)]

    socket.getaddrinfo = known  # type: ignore[assignment]  # passes on whatever it was given
    try:
        yield
    finally:
        socket.getaddrinfo = real


def connect(instance: Instance, key: AccessKey | None, bundle: str) -> Any:  # boto3 makes its clients at run time
    """A client with this key; without a key, an anonymous one. Nothing is sent yet."""
    storage = instance.object_storage
    config = Config(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        retries={"total_max_attempts": 1},
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        signature_version=None if key else UNSIGNED,
    )
    return boto3.client(
        "s3",
        endpoint_url=storage.endpoint,
        region_name=storage.region,
        verify=bundle,
        config=config,
        aws_access_key_id=key.access_key.get_secret_value() if key else None,
        aws_secret_access_key=key.secret_key.get_secret_value() if key else None,
    )


@contextmanager
def sentences(instance: Instance, key: str, bucket: str) -> Iterator[None]:
    """Turn errors of the service into refusals. `key` is the setting's name in the secrets, never its value."""
    try:
        yield
    except ClientError as error:
        raise Refusal(_client_sentence(instance, key, bucket, error)) from None
    except SSLError as error:
        raise Refusal(
            f"{instance.object_storage.endpoint} (object_storage.endpoint): its certificate is not trusted ({error}). "
            "Name the authority that signed it in network.trusted_ca_files, or correct the service's certificate."
        ) from None
    except BotoCoreError as error:
        raise Refusal(
            f"{instance.object_storage.endpoint} (object_storage.endpoint) does not answer ({error}). "
            "Check the address, the service and the firewall between, then run this again."
        ) from None


def _client_sentence(instance: Instance, key: str, bucket: str, error: ClientError) -> str:
    """What one answer of the service means to a person."""
    what, endpoint = code(error), instance.object_storage.endpoint
    request = error.operation_name
    if what == "InvalidAccessKeyId":
        return (
            f"{endpoint} does not know the access key of object_storage.{key} in the secrets. "
            "Correct it with `mastodon-gov secrets edit`."
        )
    if what == "SignatureDoesNotMatch":
        return (
            f"{endpoint} refuses the secret key of object_storage.{key} in the secrets: it does not belong to the "
            "access key. Correct it with `mastodon-gov secrets edit`."
        )
    if what == "RequestTimeTooSkewed":
        return f"{endpoint} refuses requests because its clock and this machine's differ. Set the clock, then retry."
    if what in DENIED:
        right = RIGHTS.get(request, f"s3:{request}")
        return (
            f"object_storage.{key} in the secrets lacks the right {right} on bucket {bucket} "
            f"({endpoint} answered {what}). Give its user this right, or use the key of the bucket's owner."
        )
    if what in ("BucketAlreadyExists", "OperationAborted"):
        return (
            f"Bucket {bucket} belongs to somebody else at {endpoint}. "
            "Choose another name in object_storage of instance.yaml."
        )
    message = error.response.get("Error", {}).get("Message") or "no reason given"
    return f"{endpoint} refused {request} on bucket {bucket}: {what} ({message}). Ask the service's operator."
