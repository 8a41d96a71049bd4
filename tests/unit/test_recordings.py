"""The bucket of the recordings, who may use it, and what the host gets to know of it."""

import base64
import gzip
import json

import pytest

from teleport_eks.errors import ConfigurationError
from teleport_eks.identity import permissions
from teleport_eks.recordings import ProxyRecordings, ProxyRecordingsArgs, lifecycle, tls_only
from tests.examples import CLUSTER, PARAMETERS, record_proxy, settings
from tests.recorder import Recorder, record

ARN = "arn:aws:s3:::teleport-recordings-1234567"
KEY = "arn:aws:kms:eu-west-1:111122223333:key/01234567-89ab-cdef-0123-456789abcdef"
LOCK = "aws:s3/bucketObjectLockConfiguration:BucketObjectLockConfiguration"
INSTANCE = "aws:ec2/instance:Instance"


def declare(**config: str) -> Recorder:
    checked = settings(recordings="s3", **config)
    return record(lambda: ProxyRecordings("proxy", ProxyRecordingsArgs(checked)))


def encryption(declared: Recorder) -> tuple[str, str | None]:
    of_bucket = "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
    (rule,) = declared.only(of_bucket)["rules"]
    default = rule["applyServerSideEncryptionByDefault"]
    return default["sseAlgorithm"], default.get("kmsMasterKeyId")


def test_the_bucket_is_versioned_encrypted_and_closed() -> None:
    declared = declare()
    assert declared.only("aws:s3/bucketVersioning:BucketVersioning")["versioningConfiguration"] == {"status": "Enabled"}
    assert encryption(declared) == ("AES256", None)
    assert encryption(declare(kmsKeyArn=KEY)) == ("aws:kms", KEY)
    closed = declared.only("aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock")
    assert [value for value in closed.values() if isinstance(value, bool)] == [True] * 4
    assert declared.has("aws:s3/bucketPolicy:BucketPolicy")
    (statement,) = json.loads(tls_only(ARN))["Statement"]
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
    assert statement["Resource"] == [ARN, f"{ARN}/*"]
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_recordings_expire_only_if_the_stack_says_so() -> None:
    assert [rule.get("id") for rule in lifecycle(0)] == ["unfinished"]
    unfinished, expired = lifecycle(365)
    assert "expiration" not in unfinished
    assert expired.get("expiration") == {"days": 365}
    assert expired.get("filter") == {"prefix": "records/"}
    declared = declare(recordingsDays="365")
    (_, rule) = declared.only("aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration")["rules"]
    assert rule["noncurrentVersionExpiration"] == {"noncurrentDays": 30}


def test_new_recordings_are_locked_if_the_stack_says_so() -> None:
    assert not declare().has(LOCK)
    assert declare(recordingsLockDays="90").only(LOCK)["rule"] == {
        "defaultRetention": {"mode": "GOVERNANCE", "days": 90}
    }


@pytest.mark.parametrize("protect", ["true", "false"])
def test_what_is_protected_stays_when_it_leaves_the_stack(protect: str) -> None:
    declared = declare(protect=protect, recordingsLockDays="1")
    kept = {
        name: request.retainOnDelete for name, request in declared.requests.items() if request.type.startswith("aws:")
    }
    # Without the setting, the lock has to go.
    assert not kept.pop("proxy-lock")
    assert list(kept.values()) == [protect == "true"] * 6
    assert declared.only("aws:s3/bucket:Bucket")["forceDestroy"] == (protect == "false")


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        ({"recordings": "S3"}, "must be 'local' or 's3'"),
        ({"recordingsDays": "30"}, "needs teleport-eks:recordings: s3"),
        ({"recordingsLockDays": "30"}, "needs teleport-eks:recordings: s3"),
        ({"recordings": "s3", "recordingsDays": "-1"}, "must be at least 0"),
        (
            {"recordings": "s3", "recordingsDays": "30", "recordingsLockDays": "31"},
            "must not be more than recordingsDays",
        ),
    ],
)
def test_days_that_make_no_sense_are_refused(config: dict[str, str], rule: str) -> None:
    with pytest.raises(ConfigurationError, match=rule):
        settings(**config)
    settings(recordings="s3", recordingsDays="30", recordingsLockDays="30")


def test_the_host_may_add_and_read_recordings_and_delete_nothing() -> None:
    statements = {s["Sid"]: s for s in permissions(CLUSTER.arn, PARAMETERS, None, KEY, recordings_arn=ARN)["Statement"]}
    assert (statements["Recordings"]["Resource"], statements["Recording"]["Resource"]) == (ARN, f"{ARN}/records/*")
    actions = [action for statement in statements.values() for action in statement["Action"]]
    assert "s3:PutObject" in actions
    assert not [action for action in actions if "Delete" in action or "Bypass" in action or action == "s3:PutBucket"]
    assert statements["RecordingsKey"]["Resource"] == KEY
    assert statements["RecordingsKey"]["Condition"] == {"StringEquals": {"kms:EncryptionContext:aws:s3:arn": ARN}}
    without = {s["Sid"] for s in permissions(CLUSTER.arn, PARAMETERS, None, KEY)["Statement"]}
    assert set(statements) - without == {"Recordings", "Recording", "RecordingsKey"}


def test_the_host_knows_the_bucket_and_waits_for_what_guards_it() -> None:
    declared = record_proxy({"recordings": "s3", "recordingsLockDays": "1"})
    text = gzip.decompress(base64.b64decode(declared.only(INSTANCE)["userDataBase64"])).decode()
    assert "s3://teleport-recordings-id/records?region=eu-west-1&disablesse=true" in text
    assert "teleport.service.d/recordings.conf" in text
    needs = {urn.rpartition("::")[2] for urn in declared.requests["teleport-host"].dependencies}
    assert {"teleport-recordings-tls", "teleport-recordings-versions", "teleport-recordings-lock"} <= needs


def test_without_it_there_is_no_bucket_and_the_host_is_as_before() -> None:
    declared = record_proxy({})
    assert not [resource.typ for resource in declared.resources if "s3/" in resource.typ]
    text = gzip.decompress(base64.b64decode(declared.only(INSTANCE)["userDataBase64"])).decode()
    assert "recordings" not in text.lower()
