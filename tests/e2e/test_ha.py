"""``topology: ha`` on the stand-ins. One stack for all tests of this file, in its order."""

import fnmatch
from collections.abc import Iterator

import pytest
from pulumi import automation

from ci.roles import pipeline_roles
from ci.roles.pipeline_roles import Scope, reading, writing, writing_several_hosts
from sandbox import engine
from sandbox.account import Account
from sandbox.control_plane import ControlPlane
from tests.e2e.inventory import instances, made, parameters, user_data
from tests.e2e.world import World, new_world


@pytest.fixture(scope="module")
def up(pulumi_cli: None, control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    del pulumi_cli  # only has to be there
    calls = tmp_path_factory.mktemp("calls") / "log"
    named = {"topology": "ha", "domainName": "teleport.example.com", "hostedZone": "example.com"}
    with new_world(control_plane, calls, **named, tags={"team": "platform"}) as world:
        world.stack.up()
        yield world


def running(account: Account) -> list[str]:
    return sorted(i["InstanceId"] for i in instances(account) if i["State"]["Name"] == "running")


def left(account: Account) -> dict[str, int]:
    """How many there are of what only this topology has."""
    elb = account.client("elbv2")
    return {
        "tables": len(account.client("dynamodb").list_tables()["TableNames"]),
        "balancers": len(elb.describe_load_balancers()["LoadBalancers"]),
        "target groups": len(elb.describe_target_groups()["TargetGroups"]),
        "groups": len(account.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]),
        "templates": len(account.client("ec2").describe_launch_templates()["LaunchTemplates"]),
    }


def test_two_hosts_share_tables_and_are_behind_one_name(up: World) -> None:
    account, outputs = up.account, up.outputs
    assert left(account) == {"tables": 2, "balancers": 1, "target groups": 4, "groups": 1, "templates": 1}
    # moto gives each host two disks.
    assert made(account) | {"parameters": 0, "volumes": 0} == {
        **dict.fromkeys(made(account), 0), "instances": 2, "roles": 1, "buckets": 1
    }  # fmt: skip
    assert outputs["instanceId"].split(",") == running(account)
    assert outputs["publicIp"] == ""

    (balancer,) = account.client("elbv2").describe_load_balancers()["LoadBalancers"]
    assert (balancer["Type"], balancer["Scheme"]) == ("network", "internet-facing")
    assert len({zone["ZoneName"] for zone in balancer["AvailabilityZones"]}) == 2
    listeners = account.client("elbv2").describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]
    assert sorted(listener["Port"] for listener in listeners) == [3023, 3024, 3026, 3080]
    route53 = account.client("route53")
    zone = route53.list_hosted_zones()["HostedZones"][0]["Id"]
    (record,) = [
        r for r in route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"] if r["Type"] == "A"
    ]
    assert record["Name"].rstrip(".") == outputs["hostname"] == "teleport.example.com"
    assert record["AliasTarget"]["DNSName"].rstrip(".") == balancer["DNSName"]

    (group,) = account.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    assert (group["MinSize"], group["MaxSize"], len(group["TargetGroupARNs"])) == (2, 2, 4)
    assert group["VPCZoneIdentifier"].count("subnet-") == 2


def test_teleport_finds_the_tables_as_it_would_create_them(up: World) -> None:
    dynamodb = up.account.client("dynamodb")
    tables = [dynamodb.describe_table(TableName=t)["Table"] for t in sorted(dynamodb.list_tables()["TableNames"])]
    keys = [[key["AttributeName"] for key in table["KeySchema"]] for table in tables]
    assert keys == [["SessionID", "EventIndex"], ["HashKey", "FullPath"]]
    (index,) = tables[0]["GlobalSecondaryIndexes"]
    assert (index["IndexName"], index["Projection"]["ProjectionType"]) == ("timesearchV2", "ALL")
    assert tables[1]["StreamSpecification"] == {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}
    for table in tables:
        name = table["TableName"]
        ttl = dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
        assert (ttl["TimeToLiveStatus"], ttl["AttributeName"]) == ("ENABLED", "Expires")
        backups = dynamodb.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
        assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"
        tags = dynamodb.list_tags_of_resource(ResourceArn=table["TableArn"])["Tags"]
        assert {"Key": "team", "Value": "platform"} in tags


def test_a_second_time_there_is_nothing_to_do(up: World) -> None:
    assert set(up.stack.preview().change_summary) == {automation.OpType.SAME}
    assert set(up.stack.refresh().summary.resource_changes or {}) == {automation.OpType.SAME}


def test_a_new_team_reaches_the_hosts_through_ssm_only(up: World) -> None:
    before = running(up.account)
    team = {"organization": "acme", "team": "web", "kubernetesGroups": ["web"]}
    up.set(teams=[*engine.configuration("dev")["teleport-eks:teams"], team])
    changed = up.stack.up().summary.resource_changes or {}
    # The role's parameter, and whom the proxy may impersonate.
    assert (changed[automation.OpType.CREATE], changed[automation.OpType.UPDATE]) == (1, 1)
    assert "roles/kube-acme-web" in parameters(up.account)
    assert running(up.account) == before


def test_a_new_teleport_is_a_new_template_and_replaces_the_hosts(up: World) -> None:
    before = running(up.account)
    up.set(teleportVersion="18.7.4")
    # The group too: the template's next version is not known before there is one.
    assert up.stack.preview().change_summary[automation.OpType.UPDATE] == 2
    up.stack.up()
    after = running(up.account)
    assert len(after) == 2
    assert not set(after) & set(before)
    for instance in after:
        assert "TELEPORT_VERSION=18.7.4" in user_data(up.account, instance)
    asked = [action for action, _ in up.called()]
    assert asked.count("autoscaling:StartInstanceRefresh") == 1
    assert asked.count("ec2:CreateLaunchTemplateVersion") == 1
    assert up.outputs["instanceId"].split(",") == after


def test_a_destroy_leaves_nothing_and_the_pipelines_roles_may_do_it_all(up: World) -> None:
    up.stack.destroy()
    assert set(left(up.account).values()) == {0}
    assert set(made(up.account).values()) == {0}

    asked, calls = {action for action, _ in up.called()}, pipeline_roles.CALLS
    assert sorted(asked - {*calls["single"]}) == calls["ha"], "other calls: write them to ci/roles/calls.json"
    scope = Scope(
        *("aws", "123456789012", "eu-west-1", "dev", ["demo"], "Z1", "teleport.example.com"),
        recordings_in_s3=True,
        several_hosts=True,
    )
    statements = [*reading(scope), *writing(scope), *writing_several_hosts(scope)]
    assert asked - {action for statement in statements for action in statement["Action"]} == set()

    def names(service: str, parameter: str) -> set[str]:
        return {p[parameter] for action, p in up.called() if action.startswith(service) and parameter in p}

    for found, pattern in (
        (names("dynamodb:", "TableName"), pipeline_roles.TABLES),
        (names("elasticloadbalancing:", "Name"), pipeline_roles.BALANCER),
        (names("autoscaling:", "AutoScalingGroupName"), pipeline_roles.HOSTS),
    ):
        assert found
        assert [name for name in found if not fnmatch.fnmatch(name, pattern)] == []
