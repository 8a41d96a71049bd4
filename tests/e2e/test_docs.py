"""The documentation's commands, run in a copy of the project as they stand there.

A section that says "real account" is left out: its commands cannot run here.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import ApiException, RbacAuthorizationV1Api
from kubernetes.config import new_client_from_config

from sandbox import engine
from sandbox.account import AWS_AUTH, Account
from sandbox.control_plane import ControlPlane
from sandbox.engine import ROOT
from tests.e2e.inventory import instances
from tests.e2e.shell import Shell, blocks

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN_HERE = {
    *("docs/high-availability.md", "docs/moving.md", "docs/operations.md", "docs/pull-requests.md", "docs/upgrading.md")
}
RUN_ELSEWHERE = {"README.md"}  # by test_sandbox.py, but `make test`, which is this


def test_every_command_is_run_or_marked_as_needing_a_real_account() -> None:
    found = [block for document in DOCUMENTS for block in blocks(document)]
    assert len(found) > 20
    loose = [b for b in found if not b.needs_an_account and b.document not in RUN_HERE | RUN_ELSEWHERE]
    assert not loose, [f"{block.document}:{block.line}" for block in loose]
    readme = [b.commands.split() for b in found if b.document == "README.md" and not b.needs_an_account]
    assert [words[:2] for words in readme] == [["make", "up"], [".", ".sandbox/env"]]


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives the document's headings."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_links_lead_somewhere() -> None:
    documents = [*DOCUMENTS, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
    links = [(d, link) for d in documents for link in re.findall(r"\]\((?!https?:)([^)]+)\)", d.read_text())]
    assert len(links) > 20
    for document, link in links:
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{document.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{document.name}: {link}"


# ------------------------------------------------------------------------------------------------------- docs/moving.md


def test_what_moving_takes_over_is_what_the_program_declares(account: Account) -> None:
    nodes = engine.preview("dev", account, engine.configuration("dev") | engine.NO_CLUSTER).nodes()
    names = {node.urn: node.name for node in nodes if node.type != "pulumi:pulumi:Stack"}
    declared = {(node.type, node.name, names.get(node.parent)) for node in nodes}

    imported = json.loads((ROOT / "docs/import-2019.json").read_text())["resources"]
    assert len(imported) == 6
    for resource in imported:
        assert (resource["type"], resource["name"], resource.get("parent")) in declared
        assert resource.get("component", False) == resource["type"].startswith("teleport-eks:")


@dataclass(frozen=True)
class ByHand:
    """What somebody has who followed the guide."""

    address: str
    instance: str
    group: str
    cluster_group: str


@pytest.fixture
def by_hand(account: Account, control_plane: ControlPlane, core: Any) -> Iterator[ByHand]:
    ec2, iam = account.client("ec2"), account.client("iam")
    vpc = ec2.describe_vpcs(Filters=[{"Name": "tag:Name", "Values": ["demo"]}])["Vpcs"][0]["VpcId"]
    group = ec2.create_security_group(GroupName="teleport", Description="Teleport", VpcId=vpc)["GroupId"]
    cluster = account.client("eks").describe_cluster(name="demo")["cluster"]["resourcesVpcConfig"]
    permission = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "UserIdGroupPairs": [{"GroupId": group}]}
    ec2.authorize_security_group_ingress(GroupId=cluster["clusterSecurityGroupId"], IpPermissions=[permission])
    iam.create_role(RoleName="teleport-role", AssumeRolePolicyDocument="{}")
    statement = {"Effect": "Allow", "Action": ["eks:DescribeCluster", "eks:ListClusters"], "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_role_policy(RoleName="teleport-role", PolicyName="teleport-policy", PolicyDocument=policy)
    iam.create_instance_profile(InstanceProfileName="teleport-role")
    iam.add_role_to_instance_profile(InstanceProfileName="teleport-role", RoleName="teleport-role")
    subnet = ec2.describe_subnets(Filters=[{"Name": "tag:Name", "Values": ["demo-public-a"]}])["Subnets"][0]["SubnetId"]
    instance = ec2.run_instances(
        MinCount=1,
        MaxCount=1,
        ImageId=ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"],
        SubnetId=subnet,
        SecurityGroupIds=[group],
        IamInstanceProfile={"Name": "teleport-role"},
    )["Instances"][0]["InstanceId"]
    address = ec2.allocate_address(Domain="vpc")
    ec2.associate_address(AllocationId=address["AllocationId"], InstanceId=instance)

    entry = (
        "- userarn: arn:aws:iam::123456789012:role/teleport-role\n  username: teleport\n  groups:\n  - teleport-group\n"
    )
    core.patch_namespaced_config_map("aws-auth", "kube-system", {"data": {"mapRoles": entry + AWS_AUTH["mapRoles"]}})
    rbac = RbacAuthorizationV1Api(new_client_from_config(str(control_plane.kubeconfig)))
    role: Any = {
        "metadata": {"name": "teleport-impersonation"},
        "rules": [
            {"apiGroups": [""], "resources": ["users", "groups", "serviceaccounts"], "verbs": ["impersonate"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
            {"apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews"], "verbs": ["create"]},
        ],
    }
    api_group = "rbac.authorization.k8s.io"
    binding: Any = {
        "metadata": {"name": "teleport-crb"},
        "roleRef": {"kind": "ClusterRole", "name": "teleport-impersonation", "apiGroup": api_group},
        "subjects": [
            {"kind": "Group", "name": "teleport-group", "apiGroup": api_group},
            {"kind": "User", "name": "system:anonymous", "apiGroup": api_group},
        ],
    }
    rbac.create_cluster_role(role, field_manager="kubectl-client-side-apply")
    rbac.create_cluster_role_binding(binding, field_manager="kubectl-client-side-apply")
    yield ByHand(address["PublicIp"], instance, group, cluster["clusterSecurityGroupId"])
    for delete, name in (
        (rbac.delete_cluster_role_binding, "teleport-crb"),
        (rbac.delete_cluster_role, "teleport-impersonation"),
    ):
        with suppress(ApiException):  # where all went well, they are gone
            delete(name)


def test_moving_from_the_setup_of_2019(
    shell: Shell, by_hand: ByHand, account: Account, control_plane: ControlPlane, core: Any
) -> None:
    instead = {
        "production": "demo",
        # moto's cluster has no API behind its endpoint; ~/.kube/config is the sandbox's here.
        "aws eks update-kubeconfig --name demo": "",
        "198.51.100.7": by_hand.address,
        "i-0123456789abcdef0": by_hand.instance,
        "sg-0123456789abcdef0": by_hand.group,
        "sg-0fedcba9876543210": by_hand.cluster_group,
    }
    stack, *steps = blocks(ROOT / "docs/moving.md")
    shell.run(stack.commands, instead, stdin="the-client-secret")
    shell.run("pulumi config set teleport-eks:kubeconfig ~/.kube/config; pulumi config set teleport-eks:waitMinutes 0")
    for step in steps:
        shell.run(step.commands, instead)

    outputs = json.loads(shell.run("pulumi stack output --json"))
    (address,) = account.client("ec2").describe_addresses()["Addresses"]
    assert (address["PublicIp"], address["InstanceId"]) == (by_hand.address, outputs["instanceId"])
    rbac: Any = RbacAuthorizationV1Api(new_client_from_config(str(control_plane.kubeconfig)))
    assert [subject.name for subject in rbac.read_cluster_role_binding("teleport-crb").subjects] == ["teleport-group"]
    assert all(
        r.resource_names for r in rbac.read_cluster_role("teleport-impersonation").rules if "impersonate" in r.verbs
    )
    data = core.read_namespaced_config_map("aws-auth", "kube-system").data
    assert data["mapRoles"].startswith(AWS_AUTH["mapRoles"])
    assert "teleport-role" not in data["mapRoles"]
    assert outputs["roleArn"] in data["mapRoles"]
    assert not [r for r in account.client("iam").list_roles()["Roles"] if r["RoleName"] == "teleport-role"]

    shell.run("pulumi config set teleport-eks:protect false; pulumi up; pulumi destroy")
    assert core.read_namespaced_config_map("aws-auth", "kube-system").data == AWS_AUTH


# ------------------------------------------------------------------------------------------------- the other documents


def test_the_days_of_a_stack(shell: Shell, account: Account, core: Any) -> None:
    """Upgrades and operations in the order of their documents, on one stack, from its creation to its end."""
    shell.run(
        "pulumi stack init dev; pulumi config set teleport-eks:kubeconfig ~/.kube/config;"
        "pulumi config set teleport-eks:githubClientId Iv1.0123456789abcdef;"
        "pulumi config set teleport-eks:githubClientSecret --secret;"
        "pulumi config set teleport-eks:protect true; pulumi up",
        stdin="the-first-secret",
    )
    outputs = [json.loads(shell.run("pulumi stack output --json"))]
    ec2 = account.client("ec2")
    (volume,) = ec2.describe_volumes(Filters=[{"Name": "tag:Name", "Values": ["teleport-storage-data"]}])["Volumes"]
    snapshot = ec2.create_snapshot(VolumeId=volume["VolumeId"])["SnapshotId"]
    instead = {"18.10.1": "18.10.0", "snap-0123456789abcdef0": snapshot}

    said = []
    for block in [*blocks(ROOT / "docs/upgrading.md"), *blocks(ROOT / "docs/operations.md")]:
        if not block.needs_an_account:
            said.append(shell.run(block.commands, instead, stdin="the-second-secret"))
            if "destroy" not in block.commands:
                outputs.append(json.loads(shell.run("pulumi stack output --json")))
    ids = list(dict.fromkeys(output["instanceId"] for output in outputs))
    assert len(ids) == 6, "by a new Teleport, --replace, one port, another authority and the snapshot"
    assert len({output["hostname"] for output in outputs}) == 1
    assert any(line.startswith("present: ") for line in "".join(said).splitlines())
    assert "the-second-secret" not in "".join(said)

    states = [i["State"]["Name"] for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]
    assert set(states) == {"terminated"}
    assert ec2.describe_addresses()["Addresses"] == []
    assert core.read_namespaced_config_map("aws-auth", "kube-system").data == AWS_AUTH


def test_from_one_host_to_two_and_back(shell: Shell, account: Account, core: Any) -> None:
    """Teleport's own part, the copy of its state, is in tests/teleport/test_two_nodes.py."""

    def running() -> list[str]:
        return sorted(i["InstanceId"] for i in instances(account) if i["State"]["Name"] == "running")

    def tables() -> int:
        return len(account.client("dynamodb").list_tables()["TableNames"])

    shell.run("pulumi stack init dev; pulumi config set teleport-eks:kubeconfig ~/.kube/config")
    shell.run("pulumi config set teleport-eks:protect true; pulumi up")
    prepare, begin, switch, back, end = [block.commands for block in blocks(ROOT / "docs/high-availability.md")]
    shell.run(prepare)
    before = running()
    shell.run(begin)
    assert running() == before, "it goes on"
    assert tables() == 2
    shell.run(switch)
    hosts = running()
    assert len(hosts) == 2
    assert not set(before) & set(hosts)
    shell.run(back)
    (host,) = set(running()) - {*hosts}
    assert set(running()) == {host, *hosts}, "they go on"
    shell.run(end)
    assert running() == [host]
    assert tables() == 0
    assert shell.run("pulumi stack output hostname").strip() == "teleport.example.com"
    shell.run("pulumi config set teleport-eks:protect false; pulumi up; pulumi destroy")
    assert core.read_namespaced_config_map("aws-auth", "kube-system").data == AWS_AUTH


def test_a_pull_requests_preview_runs_here(shell: Shell) -> None:
    identity = "-c user.name=x -c user.email=x@example.com"
    shell.run(f"git init -qb main; git {identity} commit -q --allow-empty -m x; touch Pulumi.staging.yaml; git add .")
    (preview,) = [block for block in blocks(ROOT / "docs/pull-requests.md") if not block.needs_an_account]
    said = shell.run(preview.commands)
    assert "+ 34 to create" in said
    assert said.splitlines()[-1] == '["staging"]'


def test_messages_in_the_troubleshooting_are_the_programs_own() -> None:
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    ours = [
        message
        for row in rows
        for message in re.findall(r"`([^`]+)`", row)
        if not message.startswith(("tsh ", "teleport-"))
    ]
    assert len(ours) > 15
    sources = [p for p in (ROOT / "teleport_eks").rglob("*") if p.is_file()]
    # Adjacent strings, as Python joins them.
    text = re.sub(r'"\s*f?"', "", "\n".join(p.read_text() for p in sources if "__pycache__" not in p.parts))
    assert [message for message in ours if message not in text] == []
