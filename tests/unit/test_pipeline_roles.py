"""The AWS roles that the workflows take, and their groups in the cluster."""

import dataclasses
import fnmatch
import json
import re
import runpy
import shutil
from pathlib import Path

import pulumi
import pytest
import yaml

from ci.roles import pipeline_roles
from ci.roles.pipeline_roles import (
    PipelineRoles,
    PipelineRolesArgs,
    Scope,
    policy,
    reading,
    trust,
    writing,
    writing_several_hosts,
)
from sandbox.engine import ROOT
from tests.recorder import record

SCOPE = Scope(
    partition="aws",
    account_id="123456789012",
    region="eu-west-1",
    stack="production",
    clusters=["demo", "tools"],
    zone_id="Z1",
    domain_name="teleport.example.com",
    state_bucket="state",
    secrets_key_arn="arn:aws:kms:eu-west-1:123456789012:key/1",
)
# All that a stack can have.
LARGE = dataclasses.replace(
    SCOPE,
    kms_key_arn="arn:aws:kms:eu-west-1:123456789012:key/2",
    permissions_boundary="arn:aws:iam::123456789012:policy/boundary",
    recordings_in_s3=True,
    several_hosts=True,
)


def actions(statements: list[dict]) -> set[str]:
    return {action for statement in statements for action in statement["Action"]}


READS = re.compile(r"\w+:(Describe|Get|List|Decrypt)\w*")
# Which IAM limits to no resource: their statements say "*".
UNLIMITED = re.compile(
    r"(autoscaling|ec2|elasticloadbalancing):Describe\w+|eks:ListClusters|ssm:DescribeParameters|route53:ListHostedZones"
)


def test_the_preview_role_only_reads() -> None:
    assert [action for action in actions(reading(LARGE)) if not READS.fullmatch(action)] == []


def test_a_statement_names_its_resources_if_iam_can_limit_them() -> None:
    for statement in [*reading(LARGE), *writing(LARGE), *writing_several_hosts(LARGE)]:
        assert statement["Effect"] == "Allow"
        assert statement["Action"]
        assert not [action for action in statement["Action"] if "*" in action]
        if statement["Resource"] == "*" and statement["Action"] != ["dlm:CreateLifecyclePolicy"]:
            assert [action for action in statement["Action"] if not UNLIMITED.fullmatch(action)] == []


def test_a_role_is_passed_only_to_the_service_that_it_is_for() -> None:
    passed = [s for s in writing(SCOPE) if "iam:PassRole" in s["Action"]]
    assert [s["Condition"]["StringEquals"]["iam:PassedToService"] for s in passed] == [
        "ec2.amazonaws.com",
        "dlm.amazonaws.com",
    ]


def test_the_up_role_restores_the_stacks_own_snapshots_and_no_others() -> None:
    snapshot = "arn:aws:ec2:eu-west-1::snapshot/snap-0123456789abcdef0"
    allowed = [s for s in writing(SCOPE) if "ec2:CreateVolume" in s["Action"]]
    (restore,) = [s for s in allowed if isinstance(s["Resource"], str) and fnmatch.fnmatch(snapshot, s["Resource"])]
    assert restore["Condition"] == {"StringEquals": {f"aws:ResourceTag/{pipeline_roles.SNAPSHOTS_OF}": "production"}}


def test_a_stack_without_zone_bucket_and_key_gets_no_permission_for_them() -> None:
    bare = Scope("aws", "123456789012", "eu-west-1", "production", ["demo"])
    assert not {a.partition(":")[0] for a in actions(reading(bare)) | actions(writing(bare))} & {"route53", "s3", "kms"}


def test_a_policy_fits_into_a_role() -> None:
    for managed in (reading(LARGE), writing_several_hosts(LARGE)):
        assert len(policy(managed)) <= 6_144, "the limit of a managed policy"
    assert len(policy(writing(LARGE))) <= 10_240, "the limit of all inline policies"


@pytest.mark.parametrize("repository", ["acme/teleport-eks", "acme@12/teleport-eks@345"])
def test_only_the_environment_of_the_stack_is_trusted(repository: str) -> None:
    (statement,) = json.loads(trust("arn:provider", repository, "production-preview"))["Statement"]
    assert statement["Condition"] == {
        "StringEquals": {
            "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
            "token.actions.githubusercontent.com:sub": f"repo:{repository}:environment:production-preview",
        }
    }


@pytest.mark.parametrize("repository", ["acme", "acme/*", "acme/a:environment:x", "", "a/b/c"])
def test_a_repository_that_would_widen_the_trust_is_refused(repository: str) -> None:
    with pytest.raises(ValueError, match="owner/name"):
        trust("arn:provider", repository, "production")


def test_only_the_role_for_up_can_write() -> None:
    declared = record(lambda: PipelineRoles("ci", PipelineRolesArgs("acme/teleport-eks", "arn:provider", SCOPE)))
    subjects = {
        json.loads(role["assumeRolePolicy"])["Statement"][0]["Condition"]["StringEquals"][
            "token.actions.githubusercontent.com:sub"
        ]
        for role in declared.of("aws:iam/role:Role")
    }
    base = "repo:acme/teleport-eks:environment:production"
    assert subjects == {base, f"{base}-preview"}
    assert declared.only("aws:iam/policy:Policy")["policy"] == policy(reading(SCOPE))
    attached = declared.of("aws:iam/rolePolicyAttachment:RolePolicyAttachment")
    assert {a["role"] for a in attached} == {"ci-preview", "ci"}
    write = declared.only("aws:iam/rolePolicy:RolePolicy")
    assert (write["role"], write["policy"]) == ("ci", policy(writing(SCOPE)))


@pytest.mark.parametrize("create_provider", ["true", "false"])
def test_the_program_reads_the_stacks_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, create_provider: str
) -> None:
    folder = tmp_path / "ci/roles"
    shutil.copytree(ROOT / "ci/roles", folder)
    (tmp_path / "Pulumi.test.yaml").write_text(
        "config: {aws:region: eu-west-1, teleport-eks:clusterName: demo, teleport-eks:hostedZone: example.com,"
        " teleport-eks:domainName: teleport.example.com, teleport-eks:topology: ha}"
    )
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    pulumi.runtime.set_all_config(
        {"teleport-eks-ci:repository": "acme/teleport-eks", "teleport-eks-ci:createProvider": create_provider}
    )
    answers = {
        "aws:index/getPartition:getPartition": {"partition": "aws"},
        "aws:index/getCallerIdentity:getCallerIdentity": {"accountId": "123456789012"},
        "aws:iam/getOpenIdConnectProvider:getOpenIdConnectProvider": {"arn": "arn:provider"},
    }
    program = str(folder / "__main__.py")
    declared = record(lambda: runpy.run_path(program, run_name="__main__"), answers, project="teleport-eks-ci")
    assert len(declared.of("aws:iam/role:Role")) == 2
    assert declared.has("aws:iam/openIdConnectProvider:OpenIdConnectProvider") == (create_provider == "true")
    write = declared.only("aws:iam/rolePolicy:RolePolicy")["policy"]
    policies = [p["policy"] for p in declared.of("aws:iam/policy:Policy")]
    assert [
        name for name in ("teleport-recordings-*", "teleport-hosts-*") if not any(name in p for p in policies)
    ] == []
    assert "hostedzone/Z1" in write
    assert "teleport.example.com" in write


def test_in_the_cluster_the_preview_only_reads() -> None:
    documents = list(yaml.safe_load_all((ROOT / "ci/roles/cluster.yaml").read_text()))
    rules = {d["metadata"]["name"]: d["rules"] for d in documents if d["kind"] == "ClusterRole"}
    assert {verb for rule in rules["teleport-eks-preview"] for verb in rule["verbs"]} == {"get"}
    for rule in rules["teleport-eks-up"]:
        assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]
        if "bind" in rule["verbs"]:
            assert "cluster-admin" not in rule["resourceNames"]
