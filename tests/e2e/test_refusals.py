"""What is refused before anything is created, and what a preview asks of the account."""

import json
from pathlib import Path
from typing import Any

import pytest
from pulumi import automation

from ci.roles.pipeline_roles import Scope, reading
from sandbox import engine
from sandbox.account import AWS_AUTH, Account
from sandbox.providers.aws import CALLS
from tests.e2e.inventory import made


def refused(account: Account, core: Any, **changes: Any) -> str:
    """What is said when the dev stack with another configuration is brought up; nothing is created."""
    changed = {f"teleport-eks:{key}": value for key, value in changes.items()}
    config = engine.configuration("dev") | engine.NO_CLUSTER | changed
    with engine.throwaway("dev", account, config) as stack, pytest.raises(automation.CommandError) as failed:
        stack.up(color="never")
    assert set(made(account).values()) == {0}
    assert core.read_namespaced_config_map("aws-auth", "kube-system").data == AWS_AUTH
    return str(failed.value)


def test_bad_input_creates_nothing(account: Account, core: Any) -> None:
    assert "2 problems" in refused(account, core, acmeEmail="", adminCidrs=["0.0.0.0/0"])


def test_a_cluster_that_is_not_there_is_answered_with_those_that_are(account: Account, core: Any) -> None:
    said = refused(account, core, clusterName="dmeo")
    assert "there are demo, staging" in said
    assert "value: dmeo" in said


def test_without_a_public_subnet_all_that_was_looked_at_is_named(account: Account, core: Any) -> None:
    ec2 = account.client("ec2")
    for table in ec2.describe_route_tables()["RouteTables"]:
        if any(route.get("GatewayId", "").startswith("igw-") for route in table["Routes"]):
            ec2.delete_route(RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0")
    said = refused(account, core)
    assert "demo-private-a 10.0.0.0/24" in said
    assert "demo-public-b 10.0.3.0/24" in said


def test_a_preview_makes_only_the_calls_that_its_role_may(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CALLS, str(tmp_path / "log"))
    engine.preview("dev", account, engine.configuration("dev") | engine.NO_CLUSTER)
    asked = {json.loads(line)[0] for line in (tmp_path / "log").read_text().splitlines()}
    scope = Scope("aws", "123456789012", "eu-west-1", "dev", ["demo"])
    assert {"eks:DescribeCluster", "ec2:DescribeSubnets", "ssm:GetParameter"} <= asked
    assert asked <= {action for statement in reading(scope) for action in statement["Action"]}
