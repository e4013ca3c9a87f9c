"""What an S3 bucket is set to do with deleted objects: Object Lock, and lifecycle rules for what is no longer current.

Asked through boto3, since obstore has no words for it. Credentials that are good for backups need not be allowed to
ask; then nothing is known.
"""

from __future__ import annotations

import os
from typing import Any

from model.errors import LoxError
from repository.store.remote import backend


def rules_of(bucket: str, prefix: str) -> str:
    """In words; empty if nobody may tell. `prefix` is that of the repository, without a slash at its end."""
    try:
        botocore, boto3 = backend("botocore.exceptions", "s3", "s3"), backend("boto3", "s3", "s3")
    except LoxError:
        return ""
    try:
        client = boto3.client("s3", region_name=os.environ.get("AWS_REGION"))
        told = [
            _asked(botocore, lambda: _lock(client, bucket)),
            _asked(botocore, lambda: _expiry(client, bucket, prefix)),
        ]
    except botocore.BotoCoreError:  # no region, no credentials, no connection
        return ""
    return "; ".join(filter(None, told))


def _asked(botocore: Any, question: Any) -> str:
    try:
        return str(question())
    except botocore.ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        return "no lifecycle rule removes them" if code == "NoSuchLifecycleConfiguration" else ""


def _lock(client: Any, bucket: str) -> str:
    found = client.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]
    rule = found.get("Rule", {}).get("DefaultRetention")
    if not rule:
        return "Object Lock without a default retention"
    time = f"{rule['Days']} days" if rule.get("Days") else f"{rule.get('Years')} years"
    return f"Object Lock, {str(rule.get('Mode', '')).lower()}, {time} from when they were stored"


def _expiry(client: Any, bucket: str, prefix: str) -> str:
    days = [
        rule["NoncurrentVersionExpiration"]["NoncurrentDays"]
        for rule in client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
        if rule.get("Status") == "Enabled"
        and "NoncurrentDays" in rule.get("NoncurrentVersionExpiration", {})
        and f"{prefix}/".startswith(_prefix_of(rule))
    ]
    return f"removed {min(days)} days after they were deleted" if days else "no lifecycle rule removes them"


def _prefix_of(rule: dict[str, Any]) -> str:
    filter = rule.get("Filter", {})
    return str(rule.get("Prefix") or filter.get("Prefix") or filter.get("And", {}).get("Prefix") or "")
