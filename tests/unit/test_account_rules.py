"""What an account asks of every resource. tests/e2e/test_stack.py has the account in which all of it arrives."""

import fnmatch
import json

import pytest

from ci.roles.pipeline_roles import HOST_ROLE, Scope, policy, writing
from teleport_eks.account_rules import INSTANCE, LOG_GROUP, PARAMETER, PROFILE, ROLE, VOLUME, additions
from teleport_eks.cluster import Cluster, choose_site
from teleport_eks.errors import ConfigurationError
from teleport_eks.identity import permissions
from teleport_eks.settings import parse
from teleport_eks.subnets import RouteTable, Subnet, Volume

BOUNDARY = "arn:aws:iam::111122223333:policy/boundary"
KEY = "arn:aws:kms:eu-west-1:111122223333:key/01234567-89ab-cdef-0123-456789abcdef"
PARAMETERS = "arn:aws:ssm:eu-west-1:111122223333:parameter/teleport-eks/dev"
REQUIRED = {"clusterName": "demo", "acmeEmail": "platform@example.com"}
ASKED = {"permissionsBoundary": BOUNDARY, "iamPath": "/platform/", "kmsKeyArn": KEY, "tags": '{"team": "platform"}'}
TAGS = {"team": "platform"}
DISK = {"encrypted": True}


@pytest.mark.parametrize(
    ("kind", "props", "added"),
    [
        (ROLE, {}, {"permissionsBoundary": BOUNDARY, "path": "/platform/", "tags": TAGS}),
        (PROFILE, {}, {"path": "/platform/", "tags": TAGS}),
        (VOLUME, {"tags": {"Name": "data"}}, {"kmsKeyId": KEY, "tags": {**TAGS, "Name": "data"}}),
        (PARAMETER, {"type": "SecureString"}, {"keyId": KEY, "tags": TAGS}),
        (PARAMETER, {"type": "String"}, {"tags": TAGS}),
        (LOG_GROUP, {}, {"kmsKeyId": KEY, "tags": TAGS}),
        (
            INSTANCE,
            {"rootBlockDevice": DISK},
            {"tags": TAGS, "rootBlockDevice": {**DISK, "kmsKeyId": KEY, "tags": TAGS}},
        ),
        ("aws:iam/rolePolicyAttachment:RolePolicyAttachment", {}, {}),
        ("kubernetes:rbac.authorization.k8s.io/v1:ClusterRole", {}, {}),
    ],
)
def test_a_resource_gets_what_the_account_asks_of_its_type(kind: str, props: dict, added: dict) -> None:
    assert additions(parse(REQUIRED | ASKED, "dev"), kind, props) == added


def test_by_default_nothing_is_added() -> None:
    settings = parse(REQUIRED, "dev")
    assert [additions(settings, kind, {"type": "SecureString"}) for kind in (ROLE, PROFILE, VOLUME, PARAMETER)] == [
        {}
    ] * 4
    assert additions(settings, INSTANCE, {"rootBlockDevice": DISK}) == {"rootBlockDevice": DISK}


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("permissionsBoundary", "boundary", "must be the ARN of a managed IAM policy"),
        ("iamPath", "platform", "must be an IAM path, such as /platform/"),
        ("kmsKeyArn", "arn:aws:kms:eu-west-1:111122223333:alias/ebs", "must be the ARN of a KMS key, not of an alias"),
        ("tags", "team=platform", "must be a YAML map"),
        ("tags", '{"Name": "x", "AWS:y": "z"}', "must not have Name, AWS:y"),
        ("tags", '{"team": "a", "Team": "b"}', "Team, team are one key to IAM"),
        ("tags", '{"te*m": "a"}', "must be a tag's key"),
        ("tags", '{"team": "ä"}', "must be a tag's value"),
        ("tags", json.dumps({f"key-{n}": "" for n in range(46)}), "at most 45"),
    ],
)
def test_what_aws_does_not_allow_is_refused_with_an_example(key: str, value: str, rule: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse({**REQUIRED, key: value}, "dev")
    assert rule in str(refused.value)
    assert f"write: teleport-eks:{key}: " in str(refused.value)


def test_a_data_volume_keeps_its_key_unless_it_is_restored() -> None:
    cluster = Cluster(
        "demo", "arn:aws:eks:eu-west-1:1:cluster/demo", "https://x", "Q0E=", "API", "vpc-1", "sg-1", True, True, ()
    )
    subnets = [Subnet("subnet-1", "vpc-1", "10.0.0.0/24", "eu-west-1a", {})]
    tables, volume = [RouteTable((), True, "igw-1")], Volume("vol-1", "eu-west-1a", "", "arn:aws:kms:x:1:key/other")

    def choose(**config: str) -> None:
        choose_site(parse({**REQUIRED, "kmsKeyArn": KEY, **config}, "dev"), "dev", [cluster], subnets, tables, [volume])

    with pytest.raises(ConfigurationError, match=r"vol-1, has the key arn:aws:kms:x:1:key/other"):
        choose()
    choose(dataSnapshotId="snap-0123456789abcdef0")


def test_the_host_may_decrypt_only_its_own_parameters() -> None:
    (statement,) = [s for s in permissions("arn", PARAMETERS, None, KEY)["Statement"] if s["Sid"] == "ParametersKey"]
    assert (statement["Action"], statement["Resource"]) == ("kms:Decrypt", KEY)
    assert statement["Condition"] == {"StringLike": {"kms:EncryptionContext:PARAMETER_ARN": f"{PARAMETERS}/*"}}


def test_the_pipelines_roles_follow() -> None:
    scope = Scope(
        *("aws", "111122223333", "eu-west-1", "dev", ["demo"], "Z1", "teleport.example.com", "state", KEY),
        permissions_boundary=BOUNDARY,
        iam_path="/platform/",
        kms_key_arn=KEY,
        recordings_in_s3=True,
    )
    (create,) = [s for s in writing(scope) if "iam:CreateRole" in s["Action"]]
    assert create["Condition"] == {"StringEquals": {"iam:PermissionsBoundary": BOUNDARY}}
    assert any(
        fnmatch.fnmatch("arn:aws:iam::111122223333:role/platform/teleport-identity-role-1a2b3c4", pattern)
        for pattern in create["Resource"]
    )
    assert HOST_ROLE in create["Resource"][0]
    used = {action for s in writing(scope) for action in s["Action"] if action.startswith("kms:")}
    assert {"kms:CreateGrant", "kms:GenerateDataKeyWithoutPlaintext"} <= used
    assert len(policy(writing(scope))) <= 10_240, "the limit of all inline policies"
