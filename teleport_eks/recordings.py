"""The bucket for session recordings."""

import json
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from teleport_eks.settings import Settings

FOLDER = "records"
# An uploaded recording of any length is complete within hours.
UNFINISHED_DAYS = 7
# How long an expired recording can be brought back.
NONCURRENT_DAYS = 30


def tls_only(bucket_arn: str) -> str:
    """The bucket's policy, as JSON: who may use it is IAM's matter, but nobody may without TLS."""
    statement = {
        "Sid": "TlsOnly",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [bucket_arn, f"{bucket_arn}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def lifecycle(days: int) -> "list[aws.s3.BucketLifecycleConfigurationRuleArgsDict]":
    """The bucket's rules, if recordings expire after ``days``; 0: they do not.

    If they do not expire, older versions stay too: Teleport plays the oldest, so nobody can replace a recording.
    """
    rules: list[aws.s3.BucketLifecycleConfigurationRuleArgsDict] = [
        {
            "id": "unfinished",
            "status": "Enabled",
            "filter": {"prefix": ""},
            "abort_incomplete_multipart_upload": {"days_after_initiation": UNFINISHED_DAYS},
        }
    ]
    if days:
        rules.append(
            {
                "id": "expired",
                "status": "Enabled",
                "filter": {"prefix": f"{FOLDER}/"},
                "expiration": {"days": days},
                "noncurrent_version_expiration": {"noncurrent_days": NONCURRENT_DAYS},
            }
        )
    return rules


@dataclass(frozen=True)
class ProxyRecordingsArgs:
    settings: Settings


class ProxyRecordings(pulumi.ComponentResource):
    """Owns the bucket and all that guards it.

    Unless ``protect`` is false, they stay in the account when they leave the stack, so that neither a destroy nor
    ``recordings: local`` deletes a recording.
    """

    bucket: pulumi.Output[str]
    bucket_arn: pulumi.Output[str]
    url: pulumi.Output[str]

    def __init__(self, name: str, args: ProxyRecordingsArgs, *, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("teleport-eks:index:ProxyRecordings", name, None, opts)
        settings = args.settings
        kept = pulumi.ResourceOptions(parent=self, retain_on_delete=settings.protect)

        bucket = aws.s3.Bucket(name, force_destroy=not settings.protect, tags={"Name": name}, opts=kept)
        aws.s3.BucketServerSideEncryptionConfiguration(
            f"{name}-encryption",
            bucket=bucket.id,
            rules=[
                {
                    "apply_server_side_encryption_by_default": {
                        "sse_algorithm": "aws:kms" if settings.kms_key_arn else "AES256",
                        "kms_master_key_id": settings.kms_key_arn,
                    },
                    # One call to KMS for many objects.
                    "bucket_key_enabled": bool(settings.kms_key_arn),
                }
            ],
            opts=kept,
        )
        closed = aws.s3.BucketPublicAccessBlock(
            f"{name}-closed",
            bucket=bucket.id,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=kept,
        )
        # S3 refuses two changes of this kind at once, and rules about versions before there are any.
        after_closed = pulumi.ResourceOptions.merge(kept, pulumi.ResourceOptions(depends_on=[closed]))
        aws.s3.BucketPolicy(f"{name}-tls", bucket=bucket.id, policy=bucket.arn.apply(tls_only), opts=after_closed)
        versioning = aws.s3.BucketVersioning(
            f"{name}-versions",
            bucket=bucket.id,
            versioning_configuration={"status": "Enabled"},
            opts=kept,
        )
        after_versioning = pulumi.ResourceOptions.merge(kept, pulumi.ResourceOptions(depends_on=[versioning]))
        aws.s3.BucketLifecycleConfiguration(
            f"{name}-lifecycle",
            bucket=bucket.id,
            rules=lifecycle(settings.recordings_days),
            opts=after_versioning,
        )
        if settings.recordings_lock_days:
            # Not COMPLIANCE: nobody could take it back, not even AWS, so a typing error would cost money for years.
            # The host cannot get around GOVERNANCE either, because that needs a permission of its own.
            aws.s3.BucketObjectLockConfiguration(
                f"{name}-lock",
                bucket=bucket.id,
                rule={"default_retention": {"mode": "GOVERNANCE", "days": settings.recordings_lock_days}},
                # Not kept: without it new recordings are not locked, and those that are stay locked.
                opts=pulumi.ResourceOptions(parent=self, depends_on=[versioning]),
            )

        self.bucket = bucket.id
        self.bucket_arn = bucket.arn
        self.url = bucket.id.apply(lambda bucket: f"s3://{bucket}/{FOLDER}")
        self.register_outputs({"bucket": self.bucket})
