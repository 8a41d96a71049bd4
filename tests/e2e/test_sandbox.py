"""`make up`, `make up` again and `make down`, as a user runs them, in a copy of the project."""

import dataclasses
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pulumi.automation import OpType

from components.cluster_access import Names, aws_auth_command
from sandbox import cli
from sandbox.account import Account
from sandbox.rehearsal import ROOT
from tests.e2e.shell import Shell, copy_of_the_project, needs_the_cli
from tests.e2e.test_docs import blocks

CREATED = 25  # resources that a provider makes, the provider of Kubernetes among them


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A copy of the project; its sandbox is gone at the end, whatever happens."""
    copy = copy_of_the_project(tmp_path)
    yield copy
    sandbox(copy, "down", check=False)


def sandbox(project: Path, verb: str, *, path: str | None = None, check: bool = True) -> str:
    environment = {**os.environ, "PATH": path or os.environ["PATH"]}
    done = subprocess.run(
        [".venv/bin/python", "-m", "sandbox", verb], cwd=project, env=environment, capture_output=True, text=True
    )
    assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def without_pulumi() -> str:
    folders = os.environ["PATH"].split(os.pathsep)
    return os.pathsep.join(folder for folder in folders if not Path(folder, "pulumi").exists())


def edit(verb: str, project: Path, role_arn: str) -> str:
    line = aws_auth_command(verb, role_arn, Names(), str(project / ".sandbox/kubeconfig"))
    return subprocess.run(line, shell=True, cwd=project, capture_output=True, text=True, check=True).stdout  # noqa: S602


def running(project: Path) -> list[str]:
    """The processes that belong to the project's sandbox."""
    commands = [path.read_bytes().replace(b"\0", b" ").decode() for path in Path("/proc").glob("[0-9]*/cmdline")]
    return [command for command in commands if f"{project}/.sandbox" in command]


def test_without_the_cli_it_rehearses_each_time_anew_and_leaves_nothing(project: Path) -> None:
    first = sandbox(project, "up", path=without_pulumi())
    assert "there is no pulumi\n" in first
    assert first.count("\n  + ") == CREATED
    assert "└─ teleport-eks:index:TeleportProxy" in first
    assert "Next steps:\n  1. Create a GitHub OAuth app:" in first
    assert "not real:  AWS is moto" in first
    assert len(running(project)) == 3, "etcd, the API server and the controllers"

    _, second_stack = (block for block in blocks(ROOT / "README.md") if not block.needs_an_account)
    shell = Shell(project, {**os.environ, "PATH": without_pulumi()})
    said = shell.run(second_stack.commands)
    assert "<summary>staging</summary>" in said
    assert said.count("25 resources to create") == 2

    second = sandbox(project, "up", path=without_pulumi())
    assert second.count("\n  + ") == CREATED, "a rehearsal keeps no state"
    assert len(running(project)) == 3

    assert "aws-auth is byte for byte what it was" in sandbox(project, "down", path=without_pulumi())
    assert running(project) == []
    assert not (project / ".sandbox").exists()
    sandbox(project, "down")  # nothing to take away is no error


def test_a_preview_needs_no_cluster_and_creates_nothing(project: Path) -> None:
    shown = sandbox(project, "preview", path=without_pulumi())
    assert f"{CREATED} resources to create" in shown
    assert "aws:ec2/instance:Instance" in shown
    assert running(project) == []


def test_bad_configuration_is_one_message_without_a_traceback(project: Path) -> None:
    stack = project / "Pulumi.dev.yaml"
    stack.write_text(stack.read_text().replace("clusterName: demo", "clusterName: demo\n  teleport-eks:instanceTyp: x"))
    shown = sandbox(project, "preview", path=without_pulumi(), check=False)
    assert "1 problem in Pulumi.dev.yaml" in shown
    assert "the nearest is instanceType" in shown
    assert "Traceback" not in shown


@needs_the_cli
def test_under_the_real_engine(project: Path) -> None:
    sandbox(project, "up")
    assert "Changes: none" in sandbox(project, "up")

    account = Account(json.loads((project / ".sandbox/state.json").read_text())["endpoint"])
    engine = dataclasses.replace(cli.engine(project / ".sandbox", account.environment()), project=project)
    stack = engine.select("dev")
    instance = stack.outputs()["instanceId"].value

    config = yaml.safe_load((project / "Pulumi.dev.yaml").read_text())
    team = {"organization": "acme", "team": "web", "kubernetesGroups": ["web"], "clusterRole": "view"}
    config["config"]["teleport-eks:teams"].append(team)
    (project / "Pulumi.dev.yaml").write_text(yaml.safe_dump(config))
    added = stack.up(on_output=print).summary.resource_changes or {}
    # Its role in SSM and its binding are new; the impersonation role names its group.
    assert {kind: count for kind, count in added.items() if kind != OpType.SAME} == {OpType.CREATE: 2, OpType.UPDATE: 1}
    assert stack.outputs()["instanceId"].value == instance

    # Somebody takes our entry out of the map: a preview shows it, and one more up puts it back.
    role_arn = stack.outputs()["roleArn"].value
    assert edit("remove", project, role_arn)
    changes = stack.preview(on_output=print).change_summary
    assert {kind: count for kind, count in changes.items() if kind != OpType.SAME} == {OpType.UPDATE: 1}
    stack.up(on_output=print)
    assert "Changes: none" in sandbox(project, "up")
    assert role_arn in edit("show", project, role_arn)

    refreshed = stack.refresh(on_output=print).summary.resource_changes or {}
    assert set(refreshed) == {OpType.SAME}, refreshed
    assert "canary" not in json.dumps(stack.export_stack().deployment)

    assert "aws-auth is byte for byte what it was" in sandbox(project, "down")
    assert running(project) == []
