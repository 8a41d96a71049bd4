"""What the host may do in AWS."""

import json

from teleport_eks.identity import ProxyIdentity, ProxyIdentityArgs, permissions
from tests.examples import CLUSTER, PARAMETERS
from tests.recorder import record

ZONE = "arn:aws:route53:::hostedzone/Z1"


def test_each_permission_names_its_resource() -> None:
    without_zone = {"Cluster": CLUSTER.arn, "Parameters": [PARAMETERS, f"{PARAMETERS}/*"]}
    with_zone = {**without_zone, "Challenge": ZONE, "ChallengeIsThere": "arn:aws:route53:::change/*"}
    for zone, expected in ((None, without_zone), (ZONE, with_zone)):
        statements = permissions(CLUSTER.arn, PARAMETERS, zone)["Statement"]
        assert {s["Sid"]: s["Resource"] for s in statements} == expected


def test_the_host_writes_only_its_own_logs_and_metrics() -> None:
    logs, metrics = permissions("arn", PARAMETERS, log_group_arn="arn:group", metrics_namespace="x")["Statement"][-2:]
    assert logs["Action"] == ["logs:CreateLogStream", "logs:PutLogEvents"]
    assert logs["Resource"] == "arn:group:*"
    assert metrics["Condition"] == {"StringEquals": {"cloudwatch:namespace": "x"}}


def test_only_ec2_can_assume_the_role() -> None:
    declared = record(lambda: ProxyIdentity("proxy", ProxyIdentityArgs("aws-cn", CLUSTER.arn, PARAMETERS)))
    role = declared.only("aws:iam/role:Role")
    trust = json.loads(role["assumeRolePolicy"])
    assert [s["Principal"] for s in trust["Statement"]] == [{"Service": "ec2.amazonaws.com"}]
    assert "name" not in role
    assert json.loads(declared.only("aws:iam/rolePolicy:RolePolicy")["policy"]) == permissions(CLUSTER.arn, PARAMETERS)
    attached = declared.only("aws:iam/rolePolicyAttachment:RolePolicyAttachment")["policyArn"]
    assert attached == "arn:aws-cn:iam::aws:policy/AmazonSSMManagedEC2InstanceDefaultPolicy"
    assert declared.only("aws:iam/instanceProfile:InstanceProfile")["role"] == "proxy-role"
