"""The emulated account refuses what AWS refuses, with AWS's code, even if the client does not check."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from sandbox.account import REGION, made_up
from tests.tables import create_tables

TRUST = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]}
ROLE = {"RoleName": "it", "AssumeRolePolicyDocument": json.dumps({"Version": "2012-10-17", **TRUST})}
GROUP = {"GroupName": "it", "Description": "Teleport proxy"}
VOLUME = {"AvailabilityZone": f"{REGION}a", "Size": 10}
PARAMETER = {"Name": "/teleport-eks/it", "Value": "x", "Type": "String"}
CLUSTER = {"name": "it", "roleArn": "arn:aws:iam::123456789012:role/it", "resourcesVpcConfig": {}}
IMAGE = {"ImageId": "ami-12345678", "MinCount": 1, "MaxCount": 1}

Client = Callable[[str], Any]


@pytest.fixture(scope="module")
def aws() -> Iterator[Client]:
    """Clients that check nothing themselves."""
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": REGION}
    lax = Config(parameter_validation=False, retries={"total_max_attempts": 1})
    with made_up() as account:
        yield lambda service: boto3.client(service, endpoint_url=account.endpoint, config=lax, **keys)


def refused(call: Callable[..., Any], **parameters: Any) -> str:
    with pytest.raises(ClientError) as error:
        call(**parameters)
    return error.value.response["Error"]["Code"]


def tags(kind: str, *pairs: tuple[str, str]) -> list[dict]:
    return [{"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in pairs]}]


def volume(*pairs: tuple[str, str]) -> dict:
    return {**VOLUME, "TagSpecifications": tags("volume", *pairs)}


def policy(size: int) -> str:
    statement = {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::" + "x" * size}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def record(**change: Any) -> dict:
    it = {"Name": "it.example.com", "Type": "A", "TTL": 60, "ResourceRecords": [{"Value": "192.0.2.1"}], **change}
    return {"HostedZoneId": "Z123", "ChangeBatch": {"Changes": [{"Action": "CREATE", "ResourceRecordSet": it}]}}


MANY = [(f"key-{number}", "") for number in range(51)]
BAD = {
    "an apostrophe": ("ec2", "create_security_group", {**GROUP, "Description": "Let's"}),
    "a long description": ("ec2", "create_security_group", {**GROUP, "Description": "x" * 256}),
    "no description": ("ec2", "create_security_group", {"GroupName": "it"}, "MissingParameter"),
    "a name like an id": ("ec2", "create_security_group", {**GROUP, "GroupName": "sg-it"}),
    "an unknown volume": ("ec2", "create_volume", {**VOLUME, "VolumeType": "gp9"}),
    "a size in words": ("ec2", "create_volume", {**VOLUME, "Size": "ten"}),
    "AWS's own tag": ("ec2", "create_volume", volume(("aws:it", ""))),
    "a long tag key": ("ec2", "create_volume", volume(("x" * 129, ""))),
    "a long tag": ("ec2", "create_volume", volume(("it", "x" * 257))),
    "51 tags": ("ec2", "create_volume", volume(*MANY), "TagLimitExceeded"),
    "an unknown instance": ("ec2", "run_instances", {**IMAGE, "InstanceType": "t3.smal"}),
    "much user data": ("ec2", "run_instances", {**IMAGE, "UserData": "x" * 16385}),
    "a role with a blank": ("iam", "create_role", {**ROLE, "RoleName": "i t"}),
    "a role for a minute": ("iam", "create_role", {**ROLE, "MaxSessionDuration": 60}),
    "a role's description": ("iam", "create_role", {**ROLE, "Description": "→"}),
    "a role's tag": ("iam", "create_role", {**ROLE, "Tags": [{"Key": "it*", "Value": ""}]}),
    "a role nobody trusts": ("iam", "create_role", {"RoleName": "it"}),
    "a long trust policy": ("iam", "create_role", {**ROLE, "AssumeRolePolicyDocument": policy(2048)}, "LimitExceeded"),
    "a long policy": ("iam", "create_policy", {"PolicyName": "it", "PolicyDocument": policy(6144)}, "LimitExceeded"),
    "a parameter's name": ("ssm", "put_parameter", {**PARAMETER, "Name": "/it's"}),
    "AWS's own parameter": ("ssm", "put_parameter", {**PARAMETER, "Name": "/aws/it"}),
    "16 levels": ("ssm", "put_parameter", {**PARAMETER, "Name": "/it" * 16}),
    "4 KiB": ("ssm", "put_parameter", {**PARAMETER, "Value": "x" * 4097}),
    "8 KiB": ("ssm", "put_parameter", {**PARAMETER, "Value": "x" * 8193, "Tier": "Advanced"}),
    "a cluster with a dot": ("eks", "create_cluster", {**CLUSTER, "name": "i.t"}),
    "a cluster without a role": ("eks", "create_cluster", {"name": "it"}),
    "a cluster's tag": ("eks", "create_cluster", {**CLUSTER, "tags": {"aws:it": ""}}),
    "a record of no type": ("route53", "change_resource_record_sets", record(Type="AA")),
    "a negative time": ("route53", "change_resource_record_sets", record(TTL=-1)),
}
# What each service calls it, where the line says no other.
CODES = {
    "ec2": "InvalidParameterValue",
    "eks": "InvalidParameterException",
    "iam": "ValidationError",
    "route53": "InvalidInput",
    "ssm": "ValidationException",
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD.keys())
def test_a_bad_value_is_refused_with_awss_code(aws: Client, case: tuple) -> None:
    service, operation, parameters, *code = case
    assert refused(getattr(aws(service), operation), **parameters) == (code or [CODES[service]])[0]


def test_the_longest_good_values_are_accepted(aws: Client) -> None:
    ec2, iam, ssm = aws("ec2"), aws("iam"), aws("ssm")
    most = tags("security-group", ("x" * 128, "ö" * 256), *MANY[:49])
    assert ec2.create_security_group(**{**GROUP, "Description": "(a)/b: c;" * 28, "TagSpecifications": most})["GroupId"]
    assert iam.create_role(**ROLE, Tags=[{"Key": "Größe", "Value": "a b@c"}])["Role"]["Arn"]
    assert ssm.put_parameter(**{**PARAMETER, "Value": "x" * 4096})["Version"] == 1
    assert ssm.put_parameter(**{**PARAMETER, "Name": "/a" * 15, "Value": "x" * 8192, "Tier": "Advanced"})


def test_a_group_has_each_rule_once_and_sixty_at_most(aws: Client) -> None:
    ec2 = aws("ec2")
    group = ec2.create_security_group(GroupName="full", Description="Teleport proxy")["GroupId"]

    def rule(source: str, description: str = "web", port: int = 80) -> dict:
        permission: dict = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port}
        if source == group:
            permission["UserIdGroupPairs"] = [{"GroupId": source, "Description": description}]
        else:
            permission["IpRanges"] = [{"CidrIp": source, "Description": description}]
        return {"GroupId": group, "IpPermissions": [permission]}

    def refused_rule(*arguments: Any) -> str:
        return refused(ec2.authorize_security_group_ingress, **rule(*arguments))

    ec2.authorize_security_group_ingress(**rule(group))
    ec2.authorize_security_group_ingress(**rule(group, "web", 81))
    for number in range(58):
        ec2.authorize_security_group_ingress(**rule(f"192.0.2.{number}/32"))
    assert refused_rule("192.0.2.60/32") == "RulesPerSecurityGroupLimitExceeded"
    ec2.revoke_security_group_ingress(**rule("192.0.2.57/32"))
    # Another description makes no other rule.
    assert refused_rule("192.0.2.0/32", "other") == refused_rule(group, "other") == "InvalidPermission.Duplicate"
    assert refused_rule("192.0.2.60/32", "Let's Encrypt") == "InvalidParameterValue"
    ec2.authorize_security_group_ingress(**rule("192.0.2.60/32"))


def test_a_roles_inline_policies_are_counted_together(aws: Client) -> None:
    iam = aws("iam")
    iam.create_role(**{**ROLE, "RoleName": "large"})
    for name in ("first", "first"):  # the second time replaces it
        iam.put_role_policy(RoleName="large", PolicyName=name, PolicyDocument=policy(6000))
    second = {"RoleName": "large", "PolicyName": "second", "PolicyDocument": policy(6000)}
    assert refused(iam.put_role_policy, **second) == "LimitExceeded"


def test_a_secret_is_not_repeated(aws: Client) -> None:
    with pytest.raises(ClientError, match=r"2 validation errors detected.*\*\*\*") as error:
        aws("ssm").put_parameter(Name="/it", Value=["hunter2"], Type="SecureText")
    assert "hunter2" not in str(error.value)


def test_of_writes_with_a_condition_one_wins(aws: Client) -> None:
    table = aws("dynamodb")
    create_tables(table, "state", "events")

    def claim(who: int) -> bool:
        with suppress(table.exceptions.ConditionalCheckFailedException):
            table.update_item(
                TableName="state",
                Key={"HashKey": {"S": "it"}, "FullPath": {"S": "claim"}},
                UpdateExpression="SET Claim = :who",
                ConditionExpression="attribute_not_exists(Claim)",
                ExpressionAttributeValues={":who": {"S": str(who)}},
            )
            return True
        return False

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(claim, range(16))) == 1
