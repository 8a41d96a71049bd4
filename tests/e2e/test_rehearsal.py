"""The whole program on the stand-ins. What is asserted is what the account and the cluster hold afterwards."""

import base64
import gzip
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from kubernetes import client as kubernetes
from kubernetes.config import new_client_from_config
from pulumi.runtime import rpc

from components.settings import ConfigurationError
from sandbox.account import AWS_AUTH, Account
from sandbox.control_plane import ControlPlane
from sandbox.rehearsal import Rehearsal, stack_config, undo

CANARY = "canary-5f1c1d7e"
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
]

Rehearse = Callable[..., Rehearsal]


@pytest.fixture
def rehearse(account: Account, control_plane: ControlPlane, core: Any) -> Iterator[Rehearse]:
    """Runs the dev stack with changes to its configuration; undone at the end."""
    del core  # only has to be there
    done: list[Rehearsal] = []

    def run(secret_keys: tuple[str, ...] = (), **changes: Any) -> Rehearsal:
        config = stack_config("dev") | {"teleport-eks:kubeconfig": str(control_plane.kubeconfig)}
        config |= {f"teleport-eks:{k}": v if isinstance(v, str) else json.dumps(v) for k, v in changes.items()}
        names = [f"teleport-eks:{key}" for key in secret_keys]
        rehearsal = Rehearsal(account, config, secret_keys=names)
        done.append(rehearsal)
        rehearsal.run()
        return rehearsal

    yield run
    for rehearsal in done:
        undo(rehearsal.undo, rehearsal.config)


def instances(account: Account) -> list[dict]:
    reservations = account.client("ec2").describe_instances()["Reservations"]
    return [instance for reservation in reservations for instance in reservation["Instances"]]


def user_data(account: Account, instance_id: str) -> str:
    attribute = account.client("ec2").describe_instance_attribute(InstanceId=instance_id, Attribute="userData")
    data = base64.b64decode(attribute["UserData"]["Value"])
    text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
    assert text.startswith("#cloud-config"), text[:100]
    return text


def parameters(account: Account) -> dict[str, dict]:
    found = account.client("ssm").get_parameters_by_path(Path="/teleport-eks/dev", Recursive=True, WithDecryption=True)
    return {p["Name"].removeprefix("/teleport-eks/dev/"): p for p in found["Parameters"]}


def test_the_account_has_what_the_guide_made_by_hand(rehearse: Rehearse, account: Account) -> None:
    outputs = rehearse(adminCidrs=["203.0.113.7/32"]).outputs
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
    assert '"*"' not in json.dumps(policy)


def test_the_firewall_has_one_rule_per_port_and_audience(rehearse: Rehearse, account: Account) -> None:
    outputs = rehearse(adminCidrs=["203.0.113.7/32"]).outputs
    ec2 = account.client("ec2")
    found = ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [outputs["securityGroupId"]]}])
    rules = sorted((r["FromPort"], r["CidrIpv4"]) for r in found["SecurityGroupRules"] if not r["IsEgress"])
    clients = [(port, "0.0.0.0/0") for port in (80, 3023, 3024, 3026, 3080)]
    assert rules == sorted([*clients, *((port, "203.0.113.7/32") for port in (22, 3022, 3025))])

    cluster = account.client("eks").describe_cluster(name="demo")["cluster"]["resourcesVpcConfig"]
    group = ec2.describe_security_groups(GroupIds=[cluster["clusterSecurityGroupId"]])["SecurityGroups"][0]
    opened = [(p["FromPort"], [g["GroupId"] for g in p["UserIdGroupPairs"]]) for p in group["IpPermissions"]]
    assert opened == [(443, [outputs["securityGroupId"]])]


def test_the_cluster_knows_the_role_and_what_it_may_be(
    rehearse: Rehearse, core: Any, control_plane: ControlPlane
) -> None:
    outputs = rehearse().outputs
    rbac: Any = kubernetes.RbacAuthorizationV1Api(new_client_from_config(str(control_plane.kubeconfig)))

    data = core.read_namespaced_config_map("aws-auth", "kube-system").data
    before, after = yaml.safe_load(AWS_AUTH["mapRoles"]), yaml.safe_load(data["mapRoles"])
    ours = {"rolearn": outputs["roleArn"], "username": "teleport", "groups": ["teleport-group"]}
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


def test_the_outputs_are_the_contracts(rehearse: Rehearse) -> None:
    outputs = rehearse().outputs
    assert list(outputs) == OUTPUTS
    assert all(outputs.values())
    assert f"| web page | <{outputs['webUrl']}>" in outputs["readme"]
    assert (
        "| [acme/developers](https://github.com/orgs/acme/teams/developers) | developers | edit in default |\n"
        in (outputs["readme"])
    )


def test_a_destroy_leaves_the_cluster_as_it_was(rehearse: Rehearse, core: Any, control_plane: ControlPlane) -> None:
    rehearsal = rehearse()
    assert core.read_namespaced_config_map("aws-auth", "kube-system").data != AWS_AUTH
    undo(rehearsal.undo, rehearsal.config)
    assert core.read_namespaced_config_map("aws-auth", "kube-system").data == AWS_AUTH
    rbac: Any = kubernetes.RbacAuthorizationV1Api(new_client_from_config(str(control_plane.kubeconfig)))
    assert not [role for role in rbac.list_cluster_role().items if role.metadata.name.startswith("teleport-")]
    assert not [b for b in rbac.list_cluster_role_binding().items if b.metadata.name.startswith("teleport-")]


def without_secrets(value: Any) -> Any:
    """What lies in plain sight of a property: what Pulumi marks as secret is left out."""
    if rpc.is_rpc_secret(value):
        return "[secret]"
    if isinstance(value, dict):
        return {key: without_secrets(item) for key, item in value.items()}
    return [without_secrets(item) for item in value] if isinstance(value, list) else value


def test_the_client_secret_is_in_one_place(
    rehearse: Rehearse, account: Account, core: Any, capfd: pytest.CaptureFixture, caplog: Any
) -> None:
    caplog.set_level("INFO")  # the AWS client of the rehearsal itself logs what it sends, at DEBUG
    secrets = ("githubClientSecret",)
    rehearsal = rehearse(secrets, githubClientId="Iv1.0123456789abcdef", githubClientSecret=CANARY)

    places = {
        "the resources' inputs": json.dumps([without_secrets(r.inputs) for r in rehearsal.resources]),
        "the outputs": json.dumps(rehearsal.outputs),
        "what a destroy runs": json.dumps(rehearsal.undo),
        "the terminal": "".join(capfd.readouterr()),
        "the log": caplog.text,
        "user data": user_data(account, rehearsal.outputs["instanceId"]),
        "the cluster": json.dumps([m.data for m in core.list_config_map_for_all_namespaces().items]),
        **{f"parameter {name}": p["Value"] for name, p in parameters(account).items() if p["Type"] != "SecureString"},
    }
    assert all(places.values()), "a place where nothing was looked at"
    assert [place for place, text in places.items() if CANARY in text] == []
    secure = {name: p["Value"] for name, p in parameters(account).items() if p["Type"] == "SecureString"}
    assert secure == {"github-client-secret": CANARY}


def made(account: Account) -> dict[str, int]:
    """How many of the things that the program makes are in the account."""
    ec2 = account.client("ec2")
    return {
        "instances": len(instances(account)),
        "addresses": len(ec2.describe_addresses()["Addresses"]),
        "volumes": len(ec2.describe_volumes()["Volumes"]),
        "roles": len(account.client("iam").list_roles()["Roles"]),
        "parameters": len(parameters(account)),
    }


def test_bad_input_creates_nothing(rehearse: Rehearse, account: Account, core: Any) -> None:
    with pytest.raises(ConfigurationError, match="2 problems"):
        rehearse(acmeEmail="", adminCidrs=["0.0.0.0/0"])
    assert set(made(account).values()) == {0}
    assert core.read_namespaced_config_map("aws-auth", "kube-system").data == AWS_AUTH


def test_a_cluster_that_is_not_there_is_answered_with_those_that_are(rehearse: Rehearse, account: Account) -> None:
    with pytest.raises(ConfigurationError, match="there are demo, staging") as refused:
        rehearse(clusterName="dmeo")
    assert "teleport-eks:clusterName\n    value: dmeo" in str(refused.value)
    assert set(made(account).values()) == {0}


def test_without_a_public_subnet_all_that_was_looked_at_is_named(rehearse: Rehearse, account: Account) -> None:
    ec2 = account.client("ec2")
    for table in ec2.describe_route_tables()["RouteTables"]:
        if any(route.get("GatewayId", "").startswith("igw-") for route in table["Routes"]):
            ec2.delete_route(RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0")
    with pytest.raises(ConfigurationError, match=r"demo-private-a 10\.0\.0\.0/24.*demo-public-b 10\.0\.3\.0/24"):
        rehearse()
    assert set(made(account).values()) == {0}


def test_a_second_proxy_in_a_cluster_has_names_of_its_own(rehearse: Rehearse, core: Any) -> None:
    outputs = rehearse(suffixNames=True).outputs
    assert outputs["kubernetesGroup"] == "teleport-group-dev"
    entry = yaml.safe_load(core.read_namespaced_config_map("aws-auth", "kube-system").data["mapRoles"])[-1]
    assert (entry["username"], entry["groups"]) == ("teleport-dev", ["teleport-group-dev"])


def test_a_name_of_ones_own_gets_a_record(rehearse: Rehearse, account: Account) -> None:
    outputs = rehearse(domainName="teleport.example.com", hostedZone="example.com").outputs
    assert outputs["tshLogin"] == "tsh login --proxy=teleport.example.com:3080"
    zone = account.client("route53").list_hosted_zones()["HostedZones"][0]["Id"]
    records = account.client("route53").list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    (record,) = [r for r in records if r["Type"] == "A"]
    assert record["Name"].rstrip(".") == "teleport.example.com"
    assert record["ResourceRecords"] == [{"Value": outputs["publicIp"]}]
