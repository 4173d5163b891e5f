"""Read a bucket's settings, change one, and believe only what can be read back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from mastodon_gov.errors import Refusal
from mastodon_gov.instance import Instance
from mastodon_gov.instance.secret_model import AccessKey
from mastodon_gov.storage.client import code, connect, reached, sentences
from mastodon_gov.storage.settings import Action, Found, Wanted, difference, wanted

# How long a service may take to show what it has taken (seconds); large ones are not consistent at once.
SETTLE = 10.0
NOT_SET = {
    "NoSuchBucketPolicy",
    "NoSuchLifecycleConfiguration",
    "ObjectLockConfigurationNotFoundError",
    "NoSuchPublicAccessBlockConfiguration",
    # radosgw's words for a bucket without lock.
    "InvalidRequest",
}
UNKNOWN_SETTING = {"NotImplemented", "MethodNotAllowed", "XNotImplemented"}


def _get(request: Callable[..., Any], bucket: str) -> dict[str, Any]:
    """The answer, or nothing where the setting was never made."""
    try:
        answer: dict[str, Any] = request(Bucket=bucket)
    except ClientError as error:
        if code(error) in NOT_SET:
            return {}
        raise
    return answer


def read(client: Any, bucket: str) -> Found:
    """All settings of one bucket."""
    try:
        versioning = client.get_bucket_versioning(Bucket=bucket).get("Status", "")
    except ClientError as error:
        if code(error) == "NoSuchBucket":
            return Found()
        raise
    lock = _get(client.get_object_lock_configuration, bucket).get("ObjectLockConfiguration", {})
    retention = lock.get("Rule", {}).get("DefaultRetention", {})
    return Found(
        exists=True,
        lock_enabled=lock.get("ObjectLockEnabled") == "Enabled",
        lock_mode=retention.get("Mode", ""),
        lock_days=retention.get("Days") or 365 * retention.get("Years", 0),
        versioning=versioning,
        lifecycle=tuple(_get(client.get_bucket_lifecycle_configuration, bucket).get("Rules", [])),
        access_block=_access_block(client, bucket),
        policy=json.loads(_get(client.get_bucket_policy, bucket).get("Policy") or "{}"),
    )


def _access_block(client: Any, bucket: str) -> dict[str, Any] | None:
    """None where the service has no such switch: its policies are all there is."""
    try:
        found: dict[str, Any] = _get(client.get_public_access_block, bucket).get("PublicAccessBlockConfiguration", {})
    except ClientError as error:
        if code(error) in UNKNOWN_SETTING:
            return None
        raise
    return found


def apply(client: Any, region: str, action: Action) -> None:
    """Send one change."""
    bucket, value = action.bucket, action.value
    if action.setting == "create":
        place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=value, **place)
    elif action.setting == "lock":
        rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": value}}
        lock = {"ObjectLockEnabled": "Enabled", "Rule": rule}
        client.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=lock)
    elif action.setting == "versioning":
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": value})
    elif action.setting == "lifecycle":
        client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [value]})
    elif action.setting == "access_block":
        client.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=value)
    elif action.setting == "policy":
        client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(value))


def pending(instance: Instance, owner: AccessKey) -> list[tuple[Wanted, list[Action]]]:
    """What a deploy would change, bucket by bucket; reads only. Refusal: a sentence."""
    plans = []
    with reached(instance) as bundle:
        client = connect(instance, owner, bundle)
        for bucket in wanted(instance):
            with sentences(instance, "owner", bucket.name):
                found = read(client, bucket.name)
            plans.append((bucket, difference(bucket, found)))
    return [(bucket, actions) for bucket, actions in plans if actions]


def settle(instance: Instance, owner: AccessKey, bucket: Wanted, actions: list[Action]) -> None:
    """Send the changes of one bucket and read them back. Refusal: a change was refused, or was taken and not kept."""
    with reached(instance) as bundle, sentences(instance, "owner", bucket.name):
        client = connect(instance, owner, bundle)
        for action in actions:
            apply(client, instance.object_storage.region, action)
        left = difference(bucket, read(client, bucket.name))
        deadline = time.monotonic() + SETTLE
        while left and time.monotonic() < deadline:
            time.sleep(0.5)
            left = difference(bucket, read(client, bucket.name))
    if left:
        raise Refusal(
            f"{instance.object_storage.endpoint} accepted the settings of bucket {bucket.name} but does not keep them: "
            f"{'; '.join(action.why for action in left)}. This service cannot hold the instance's data; ask its "
            "operator or choose another in object_storage.endpoint."
        )
