"""`make up`, `make up` again, `make preview` and `make down`, as a user runs them, in a copy of the project."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pulumi import automation

from sandbox import engine
from sandbox.account import Account
from sandbox.engine import ROOT
from teleport_eks.cluster_access import Names, aws_auth_command
from tests.e2e.shell import Shell, blocks, copy_of_the_project

CREATED = 34  # resources, components and the stack itself among them

pytestmark = pytest.mark.usefixtures("pulumi_cli", "control_plane")  # which are built


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A copy of the project; its sandbox is gone at the end, whatever happens."""
    copy = copy_of_the_project(tmp_path)
    yield copy
    sandbox(copy, "down", check=False)


def sandbox(project: Path, verb: str, *, check: bool = True) -> str:
    return python(project, "sandbox", verb, check=check)


def preview(project: Path, *, check: bool = True) -> str:
    return python(project, "fleet", "preview", "--stand-ins", "dev", check=check)


def python(project: Path, *arguments: str, check: bool = True) -> str:
    command = [".venv/bin/python", "-m", *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def edit(verb: str, project: Path, role_arn: str) -> str:
    line = aws_auth_command(verb, role_arn, Names(), str(project / ".sandbox/kubeconfig"))
    return subprocess.run(line, shell=True, cwd=project, capture_output=True, text=True, check=True).stdout  # noqa: S602


def running(project: Path) -> list[str]:
    """The processes that belong to the project's sandbox."""
    commands = [path.read_bytes().replace(b"\0", b" ").decode() for path in Path("/proc").glob("[0-9]*/cmdline")]
    return [command for command in commands if f"{project}/.sandbox" in command]


def test_up_change_and_down(project: Path) -> None:
    first = sandbox(project, "up")
    assert f"+ {CREATED} created" in first
    assert "└─ teleport-eks:index:TeleportProxy" in first
    assert "Next steps:\n  1. Create a GitHub OAuth app:" in first
    assert "real:      the engine, Pulumi v3." in first
    assert len(running(project)) == 3, "etcd, the API server and the controllers"
    assert "Changes: none" in sandbox(project, "up")
    assert len(running(project)) == 3

    _, second_stack = (block for block in blocks(ROOT / "README.md") if not block.needs_an_account)
    said = Shell(project, dict(os.environ)).run(second_stack.commands)
    assert f"\n    + {CREATED} to create\n" in said
    assert re.search(rf"^  staging +\d+ s  create {CREATED}$", said, re.MULTILINE)

    said = Shell(project, dict(os.environ)).run(". .sandbox/env; make who STACK=dev", code=2)
    assert "In the sandbox no instance boots." in said
    assert re.search(r"^acme/developers  .* edit .* in the file and in SSM; ", said, re.MULTILINE)

    account = Account(re.findall(r'AWS_ENDPOINT_URL="(.+)"', (project / ".sandbox/env").read_text())[0])
    stack = engine.select("dev", project / ".sandbox", account, project)
    instance = stack.outputs()["instanceId"].value

    config = yaml.safe_load((project / "Pulumi.dev.yaml").read_text())
    team = {"organization": "acme", "team": "web", "kubernetesGroups": ["web"], "clusterRole": "view"}
    config["config"]["teleport-eks:teams"].append(team)
    (project / "Pulumi.dev.yaml").write_text(yaml.safe_dump(config))
    # Its role in SSM and its binding are new; the impersonation role names its group.
    assert changes(stack.up().summary.resource_changes) == {"create": 2, "update": 1}
    assert stack.outputs()["instanceId"].value == instance

    # Somebody takes our entry out of the map: a preview shows it, and one more up puts it back.
    role_arn = stack.outputs()["roleArn"].value
    assert edit("remove", project, role_arn)
    assert changes(stack.preview().change_summary) == {"update": 1}
    stack.up()
    assert "Changes: none" in sandbox(project, "up")
    assert role_arn in edit("show", project, role_arn)

    # Somebody else's change to a rule of ours is found by a refresh.
    ec2 = account.client("ec2")
    filters = [{"Name": "group-id", "Values": [stack.outputs()["securityGroupId"].value]}]
    rules = ec2.describe_security_group_rules(Filters=filters)["SecurityGroupRules"]
    (web,) = [rule for rule in rules if rule["FromPort"] == 3080]
    ec2.revoke_security_group_ingress(GroupId=web["GroupId"], SecurityGroupRuleIds=[web["SecurityGroupRuleId"]])
    assert changes(stack.refresh().summary.resource_changes) == {"delete": 1}
    assert changes(stack.up().summary.resource_changes) == {"create": 1}

    two_hosts = Shell(project, dict(os.environ)).run("make up TOPOLOGY=ha")
    assert re.search(r"^  instanceId +i-\w+,i-\w+$", two_hosts, re.MULTILINE)
    assert "aws-auth is byte for byte what it was" in sandbox(project, "down")
    assert running(project) == []
    assert not (project / ".sandbox").exists()
    sandbox(project, "down")  # nothing to take away is no error


def changes(counted: automation.OpMap | None) -> dict[str, int]:
    return {str(kind): count for kind, count in (counted or {}).items() if kind != "same"}


def test_a_preview_needs_no_cluster_and_creates_nothing(project: Path) -> None:
    shown = preview(project)
    assert f"\n    + {CREATED} to create\n" in shown
    assert "\n +  aws:ec2:Instance teleport-host-amd64 create\n" in shown
    assert "using pulumi-" not in shown
    assert running(project) == []
    assert not (project / ".sandbox").exists()


def test_bad_configuration_is_one_message_without_a_traceback(project: Path) -> None:
    stack = project / "Pulumi.dev.yaml"
    stack.write_text(stack.read_text().replace("clusterName: demo", "clusterName: demo\n  teleport-eks:instanceTyp: x"))
    shown = preview(project, check=False)
    assert "1 problem in Pulumi.dev.yaml" in shown
    assert "the nearest is instanceType" in shown
    assert "Traceback" not in shown
    assert shown.count("the nearest is instanceType") == 1
