"""The whole program on the stand-ins. What is asserted is what the account and the cluster hold afterwards.

One stack for all tests of this file, in its order: it is brought up, given other names, and destroyed.
"""

import base64
import fnmatch
import gzip
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client as kubernetes
from kubernetes.config import new_client_from_config
from pulumi import automation

from ci.roles import pipeline_roles
from ci.roles.pipeline_roles import Scope, reading, writing
from sandbox.account import AWS_AUTH
from sandbox.control_plane import ControlPlane
from tests.e2e.conftest import aws_auth
from tests.e2e.inventory import instances, made, parameters, user_data
from tests.e2e.world import World, new_world

CANARY = f"canary-{os.urandom(8).hex()}"
BOUNDARY = "arn:aws:iam::123456789012:policy/boundary"
TOPIC = "arn:aws:sns:eu-west-1:123456789012:on-call"
OUTPUTS = [
    "hostname",
    "publicIp",
    "webUrl",
    "githubHomepageUrl",
    "githubCallbackUrl",
    "tshLogin",
    "instanceId",
    "roleArn",
    "securityGroupId",
    "accessMode",
    "kubernetesGroup",
    "nextSteps",
    "readme",
    "recordingsBucket",
]


@pytest.fixture(scope="module")
def world(pulumi_cli: None, control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    del pulumi_cli  # only has to be there
    with new_world(control_plane, tmp_path_factory.mktemp("calls") / "log") as world:
        yield world


@pytest.fixture(scope="module")
def up(world: World) -> World:
    """The dev stack with all that it can have but other names; each process that runs meanwhile is looked at."""
    key = world.account.client("kms").create_key()["KeyMetadata"]["Arn"]
    world.set(permissionsBoundary=BOUNDARY, iamPath="/platform/", kmsKeyArn=key, tags={"team": "platform"})
    world.set(alarmTopicArn=TOPIC, logRetentionDays=90)
    world.set(adminCidrs=["203.0.113.7/32"], githubClientId="Iv1.0123456789abcdef", snapshotDays=7)
    world.set(recordings="s3", recordingsDays=365, recordingsLockDays=90)
    world.stack.set_config("teleport-eks:githubClientSecret", automation.ConfigValue(CANARY, secret=True))
    seen: set[str] = set()
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.05):
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(process.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
                except OSError:
                    continue  # it has ended

    watcher = threading.Thread(target=look)
    watcher.start()
    said: list[str] = []
    try:
        world.stack.up(on_output=said.append, on_error=said.append, log_verbosity=9, log_to_std_err=True, log_flow=True)
    finally:
        done.set()
        watcher.join()
    world.said, world.arguments = "\n".join(said), "\n".join(seen)
    return world


@pytest.fixture(scope="module")
def renamed(up: World) -> World:
    """The same stack with a name in DNS of its own, and others in the cluster."""
    up.set(suffixNames=True, domainName="teleport.example.com", hostedZone="example.com")
    up.stack.up()
    return up


def test_the_account_has_what_the_guide_made_by_hand(up: World) -> None:
    outputs, account = up.outputs, up.account
    ec2, iam = account.client("ec2"), account.client("iam")

    (instance,) = instances(account)
    assert instance["InstanceId"] == outputs["instanceId"]
    assert instance["InstanceType"] == "t3.small"
    assert instance["MetadataOptions"]["HttpTokens"] == "required"
    subnet = ec2.describe_subnets(SubnetIds=[instance["SubnetId"]])["Subnets"][0]
    assert {"Key": "Name", "Value": "demo-public-a"} in subnet["Tags"]
    assert [group["GroupId"] for group in instance["SecurityGroups"]] == [outputs["securityGroupId"]]

    (address,) = ec2.describe_addresses()["Addresses"]
    assert (address["PublicIp"], address["InstanceId"]) == (outputs["publicIp"], outputs["instanceId"])
    assert outputs["hostname"] == f"ec2-{address['PublicIp'].replace('.', '-')}.nip.io"
    encrypted = {volume["Encrypted"] for volume in ec2.describe_volumes()["Volumes"]}
    assert encrypted == {True}

    profile = instance["IamInstanceProfile"]["Arn"].rpartition("/")[2]
    role = iam.get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]["Roles"][0]
    assert role["Arn"] == outputs["roleArn"]
    (policy_name,) = iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"]
    policy = iam.get_role_policy(RoleName=role["RoleName"], PolicyName=policy_name)["PolicyDocument"]
    assert policy["Statement"][0]["Resource"].endswith(":cluster/demo")
    wide = [s["Condition"] for s in policy["Statement"] if '"*"' in json.dumps(s)]
    assert wide == [{"StringEquals": {"cloudwatch:namespace": "teleport-eks"}}]


def test_the_account_has_what_it_asks_for(up: World) -> None:
    ec2, iam, ssm = (up.account.client(service) for service in ("ec2", "iam", "ssm"))
    (key,) = up.account.client("kms").list_keys()["Keys"]
    assert {volume["KmsKeyId"] for volume in ec2.describe_volumes()["Volumes"]} == {key["KeyArn"]}
    (secret,) = ssm.describe_parameters(Filters=[{"Key": "Type", "Values": ["SecureString"]}])["Parameters"]
    assert secret["KeyId"] == key["KeyArn"]

    roles = iam.list_roles(PathPrefix="/platform/")["Roles"]
    assert len(roles) == 2
    for role in (iam.get_role(RoleName=role["RoleName"])["Role"] for role in roles):
        assert role["PermissionsBoundary"]["PermissionsBoundaryArn"] == BOUNDARY
        assert {"Key": "team", "Value": "platform"} in role["Tags"]
    filters = [{"Name": "key", "Values": ["team"]}, {"Name": "value", "Values": ["platform"]}]
    tagged = [tag["ResourceId"].partition("-")[0] for tag in ec2.describe_tags(Filters=filters)["Tags"]]
    assert set(tagged) == {"i", "vol", "eipalloc", "sg", "sgr"}
    assert tagged.count("vol") == 2  # the root volume too


def test_the_account_has_the_alarms_and_the_log_group(up: World) -> None:
    cloudwatch, logs = up.account.client("cloudwatch"), up.account.client("logs")
    alarms = {alarm["AlarmName"]: alarm for alarm in cloudwatch.describe_alarms()["MetricAlarms"]}
    assert len(alarms) == 7
    instance = alarms["teleport-eks/dev/instance"]
    assert instance["Dimensions"] == [{"Name": "InstanceId", "Value": up.outputs["instanceId"]}]
    assert instance["AlarmActions"] == [TOPIC, "arn:aws:automate:eu-west-1:ec2:reboot"]
    assert "#alarmsV2:?search=teleport-eks/dev/" in up.outputs["readme"]
    (group,) = logs.describe_log_groups()["logGroups"]
    assert (group["logGroupName"], group["retentionInDays"]) == ("/teleport-eks/dev", 90)
    (key,) = up.account.client("kms").list_keys()["Keys"]
    assert group["kmsKeyId"] == key["KeyArn"]


def test_the_recordings_have_a_guarded_bucket_that_the_host_knows(up: World) -> None:
    s3, name = up.account.client("s3"), up.outputs["recordingsBucket"]
    assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == [name]
    assert s3.get_bucket_location(Bucket=name)["LocationConstraint"] == "eu-west-1"
    assert {"Key": "team", "Value": "platform"} in s3.get_bucket_tagging(Bucket=name)["TagSet"]
    assert s3.get_bucket_versioning(Bucket=name)["Status"] == "Enabled"
    (key,) = up.account.client("kms").list_keys()["Keys"]
    (rule,) = s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"] == key["KeyArn"]
    assert set(s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"].values()) == {True}
    assert "aws:SecureTransport" in s3.get_bucket_policy(Bucket=name)["Policy"]
    rules = s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
    assert [rule["Expiration"]["Days"] for rule in rules if "Expiration" in rule] == [365]
    lock = s3.get_object_lock_configuration(Bucket=name)["ObjectLockConfiguration"]["Rule"]["DefaultRetention"]
    assert (lock["Mode"], lock["Days"]) == ("GOVERNANCE", 90)
    assert f"s3://{name}/records?" in user_data(up.account, up.outputs["instanceId"])


def test_the_firewall_has_one_rule_per_port_and_audience(up: World) -> None:
    outputs, account = up.outputs, up.account
    ec2 = account.client("ec2")
    found = ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [outputs["securityGroupId"]]}])
    rules = sorted((r["FromPort"], r["CidrIpv4"]) for r in found["SecurityGroupRules"] if not r["IsEgress"])
    clients = [(port, "0.0.0.0/0") for port in (80, 3023, 3024, 3026, 3080)]
    assert rules == sorted([*clients, *((port, "203.0.113.7/32") for port in (22, 3022, 3025))])

    cluster = account.client("eks").describe_cluster(name="demo")["cluster"]["resourcesVpcConfig"]
    group = ec2.describe_security_groups(GroupIds=[cluster["clusterSecurityGroupId"]])["SecurityGroups"][0]
    opened = [(p["FromPort"], [g["GroupId"] for g in p["UserIdGroupPairs"]]) for p in group["IpPermissions"]]
    assert opened == [(443, [outputs["securityGroupId"]])]


def test_the_cluster_knows_the_role_and_what_it_may_be(up: World) -> None:
    outputs, core, rbac = up.outputs, up.core, up.rbac
    data = core.read_namespaced_config_map("aws-auth", "kube-system").data
    before, after = yaml.safe_load(AWS_AUTH["mapRoles"]), yaml.safe_load(data["mapRoles"])
    # The authenticator sees a role without its path.
    arn = outputs["roleArn"].replace(":role/platform/", ":role/")
    ours = {"rolearn": arn, "username": "teleport", "groups": ["teleport-group"]}
    assert after == [*before, ours]
    assert data["mapRoles"].startswith(AWS_AUTH["mapRoles"])
    assert {key: data[key] for key in ("mapUsers", "mapAccounts")} == {
        key: AWS_AUTH[key] for key in ("mapUsers", "mapAccounts")
    }

    subjects = rbac.read_cluster_role_binding("teleport-crb").subjects
    assert [(subject.kind, subject.name) for subject in subjects] == [("Group", "teleport-group")]
    scoped = {rule.resources[0]: rule.resource_names for rule in rbac.read_cluster_role("teleport-impersonation").rules}
    assert scoped["groups"] == ["developers", "platform", "system:authenticated"]
    assert rbac.read_namespaced_role_binding("teleport-acme-developers", "default").role_ref.name == "edit"


def test_the_outputs_are_the_contracts(up: World) -> None:
    outputs = up.outputs
    assert sorted(outputs) == sorted(OUTPUTS)
    assert all(outputs.values())
    assert f"| web page | <{outputs['webUrl']}>" in outputs["readme"]
    assert (
        "| [acme/developers](https://github.com/orgs/acme/teams/developers) | developers | edit in default |\n"
        in (outputs["readme"])
    )


def test_secrets_are_in_one_place(up: World, control_plane: ControlPlane) -> None:
    key = yaml.safe_load(control_plane.kubeconfig.read_text())["users"][0]["user"]["client-key-data"]
    places = {
        "the state": up.state,
        "the outputs": json.dumps(up.outputs),
        "the terminal and the log at -v=9": up.said,
        "the arguments of processes": up.arguments,
        "user data": user_data(up.account, up.outputs["instanceId"]),
        "the cluster": json.dumps([m.data for m in up.core.list_config_map_for_all_namespaces().items]),
        **{
            f"parameter {name}": p["Value"] for name, p in parameters(up.account).items() if p["Type"] != "SecureString"
        },
    }
    assert "teleport_eks.aws_auth add" in up.arguments
    assert "teleport-bootstrap.service" in places["user data"]
    assert "github-client-secret" in up.said
    assert "aws:ssm/parameter:Parameter" in up.state
    assert [place for place, text in places.items() if CANARY in text or key in text] == []
    secure = {name: p["Value"] for name, p in parameters(up.account).items() if p["Type"] == "SecureString"}
    assert secure == {"github-client-secret": CANARY}
    decrypted = json.dumps(up.stack.export_stack().deployment)
    assert CANARY in decrypted
    assert key in decrypted


def test_a_second_time_there_is_nothing_to_do(up: World) -> None:
    assert set(up.stack.preview().change_summary) == {automation.OpType.SAME}
    assert set(up.stack.refresh().summary.resource_changes or {}) == {automation.OpType.SAME}


def test_an_upgrade_in_place_keeps_the_instance(up: World) -> None:
    instance, ec2 = up.outputs["instanceId"], up.account.client("ec2")
    up.set(hostUpdates="in-place", teleportVersion="18.7.4")
    up.stack.up()
    assert up.outputs["instanceId"] == instance
    (found,) = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"]
    assert found["State"]["Name"] == "running"
    data = ec2.describe_instance_attribute(InstanceId=instance, Attribute="userData")["UserData"]["Value"]
    assert "TELEPORT_VERSION=18.7.4" in gzip.decompress(base64.b64decode(data)).decode()


def test_an_additional_cluster_is_mapped_and_unmapped(up: World, control_plane: ControlPlane, tmp_path: Path) -> None:
    ec2, account = up.account.client("ec2"), up.account
    cluster = account.client("eks").describe_cluster(name="staging")["cluster"]["resourcesVpcConfig"]

    def opened() -> list[list[str]]:
        group = ec2.describe_security_groups(GroupIds=[cluster["clusterSecurityGroupId"]])["SecurityGroups"][0]
        return [[g["GroupId"] for g in p["UserIdGroupPairs"]] for p in group["IpPermissions"]]

    instance, kubeconfig = up.outputs["instanceId"], tmp_path / "kubeconfig"
    before = up.core.read_namespaced_config_map("aws-auth", "kube-system").data
    with ControlPlane.start(tmp_path / "staging") as staging, aws_auth(staging) as api:
        core: Any = api
        rbac: Any = kubernetes.RbacAuthorizationV1Api(new_client_from_config(str(staging.kubeconfig)))
        demo, other = (yaml.safe_load(plane.kubeconfig.read_text()) for plane in (control_plane, staging))
        for kind in ("clusters", "users", "contexts"):
            other[kind][0]["name"] = "staging"
            demo[kind] += other[kind]
        demo["contexts"][-1]["context"] = {"cluster": "staging", "user": "staging"}
        kubeconfig.write_text(yaml.safe_dump(demo))
        teams = [{"organization": "acme", "team": "web", "kubernetesGroups": ["web"], "clusterRole": "view"}]
        up.set(kubeconfig=str(kubeconfig), additionalClusters=[{"clusterName": "staging", "teams": teams}])
        up.stack.up()
        assert up.outputs["accessModes"] == {"demo": "aws-auth", "staging": "aws-auth"}
        assert up.outputs["instanceId"] == instance
        entry = yaml.safe_load(core.read_namespaced_config_map("aws-auth", "kube-system").data["mapRoles"])[-1]
        assert entry["groups"] == ["teleport-group"]
        impersonated = rbac.read_cluster_role("teleport-impersonation").rules[0].resource_names
        assert impersonated == ["system:authenticated", "web"]
        assert rbac.read_cluster_role_binding("teleport-acme-web").role_ref.name == "view"
        assert opened() == [[up.outputs["securityGroupId"]]]
        assert {"kube_clusters/staging", "roles/kube.staging.acme-web"} <= parameters(account).keys()
        assert set(up.stack.preview().change_summary) == {automation.OpType.SAME}

        up.set(additionalClusters=[], kubeconfig=str(control_plane.kubeconfig))
        up.stack.up()
        assert core.read_namespaced_config_map("aws-auth", "kube-system").data == AWS_AUTH
        assert ours(rbac.list_cluster_role()) == ours(rbac.list_cluster_role_binding()) == []
        assert opened() == []
        assert not [name for name in parameters(account) if "staging" in name]
    assert up.core.read_namespaced_config_map("aws-auth", "kube-system").data == before
    assert up.outputs["instanceId"] == instance


def test_names_of_its_own(renamed: World) -> None:
    """For a second proxy in a cluster, and a domain; the old names are gone."""
    outputs, route53 = renamed.outputs, renamed.account.client("route53")
    assert outputs["kubernetesGroup"] == "teleport-group-dev"
    data = renamed.core.read_namespaced_config_map("aws-auth", "kube-system").data
    *before, entry = yaml.safe_load(data["mapRoles"])
    assert before == yaml.safe_load(AWS_AUTH["mapRoles"])
    assert (entry["username"], entry["groups"]) == ("teleport-dev", ["teleport-group-dev"])
    assert ours(renamed.rbac.list_cluster_role()) == ["teleport-impersonation-dev"]

    assert outputs["tshLogin"] == "tsh login --proxy=teleport.example.com:3080"
    zone = route53.list_hosted_zones()["HostedZones"][0]["Id"]
    records = route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    (record,) = [r for r in records if r["Type"] == "A"]
    assert record["Name"].rstrip(".") == "teleport.example.com"
    assert record["ResourceRecords"] == [{"Value": outputs["publicIp"]}]
    (instance,) = [i for i in instances(renamed.account) if i["State"]["Name"] != "terminated"]
    assert instance["InstanceId"] == outputs["instanceId"]


def test_a_destroy_leaves_the_cluster_as_it_was_and_the_pipelines_roles_may_do_it_all(renamed: World) -> None:
    renamed.stack.destroy()
    assert renamed.core.read_namespaced_config_map("aws-auth", "kube-system").data == AWS_AUTH
    assert ours(renamed.rbac.list_cluster_role()) == ours(renamed.rbac.list_cluster_role_binding()) == []
    assert set(made(renamed.account).values()) == {0}

    calls = renamed.called()
    scope = Scope(
        *("aws", "123456789012", "eu-west-1", "dev", ["demo", "staging"], "Z1", "teleport.example.com"),
        iam_path="/platform/",
        recordings_in_s3=True,
    )
    allowed = {action for statement in [*reading(scope), *writing(scope)] for action in statement["Action"]}
    asked = {action for action, _ in calls}
    assert {"ec2:RunInstances", "ec2:ReleaseAddress", "iam:PutRolePolicy", "ssm:PutParameter"} <= asked
    assert sorted(asked) == pipeline_roles.CALLS["single"], "other calls: write them to ci/roles/calls.json"
    assert asked - allowed == set(), "no statement of ci/roles/pipeline_roles.py takes them"

    def names(service: str, parameter: str) -> set[str]:
        return {p[parameter] for action, p in calls if action.startswith(service) and parameter in p}

    patterns = (pipeline_roles.HOST_ROLE, pipeline_roles.SNAPSHOT_ROLE)
    roles = names("iam:", "RoleName")
    assert len(roles) == 2
    assert [role for role in roles if not any(fnmatch.fnmatch(role, pattern) for pattern in patterns)] == []
    (profile,) = names("iam:", "InstanceProfileName")
    assert fnmatch.fnmatch(profile, pipeline_roles.INSTANCE_PROFILE)
    assert names("iam:", "PolicyArn") == set(scope.policies)
    assert {name.startswith("/teleport-eks/dev/") for name in names("ssm:Put", "Name")} == {True}
    (bucket,) = names("s3:", "Bucket")
    assert fnmatch.fnmatch(bucket, pipeline_roles.RECORDINGS)
    # What the volume is tagged with, its daily snapshots are too.
    created, *_ = [p for action, p in calls if action == "ec2:CreateVolume"]
    assert {"Key": pipeline_roles.SNAPSHOTS_OF, "Value": "dev"} in created["TagSpecifications"][0]["Tags"]
    # Rules have no name.
    rules = ("ec2:AuthorizeSecurityGroupIngress", "ec2:AuthorizeSecurityGroupEgress")
    tags = [tags["Tags"] for a, p in calls if a not in rules for tags in p.get("TagSpecifications", [])]
    assert len(tags) >= 4
    for tag in tags:
        assert fnmatch.fnmatch({t["Key"]: t["Value"] for t in tag}["Name"], pipeline_roles.NAMED)


def ours(found: Any) -> list[str]:
    return [item.metadata.name for item in found.items if item.metadata.name.startswith("teleport-")]
