"""The sandbox's own plugins: what they replace, what they refuse, what is secret. tests/e2e has what they create."""

import json
from typing import Any
from urllib.error import URLError

import pytest
from google.protobuf import json_format
from pulumi.runtime import rpc
from pulumi.runtime.proto import provider_pb2 as pb

from sandbox import engine
from sandbox.providers import aws, command, kubernetes
from sandbox.providers.server import Provider, decode, encode

INSTANCE = {"ami": "ami-1", "subnetId": "subnet-1", "userDataBase64": "QQ==", "instanceType": "t3.small"}


def diff(provider: Provider, token: str, old: dict, new: dict) -> tuple[list[str], list[str]]:
    """Which paths changed, and for which of them there is a new resource."""
    request = pb.DiffRequest(type=token, old_inputs=encode(old), news=encode(new))
    found = provider.Diff(request, None)
    return list(found.diffs), list(found.replaces)


@pytest.mark.parametrize(
    ("token", "old", "change", "replaces"),
    [
        ("aws:ec2/instance:Instance", INSTANCE, {"subnetId": "subnet-2"}, ["subnetId"]),
        ("aws:ec2/instance:Instance", INSTANCE, {"ami": "ami-2"}, ["ami"]),
        ("aws:ec2/instance:Instance", INSTANCE, {"instanceType": "t3.large"}, []),
        ("aws:ec2/instance:Instance", INSTANCE, {"userDataBase64": "Qg=="}, []),
        (
            "aws:ec2/instance:Instance",
            INSTANCE | {"userDataReplaceOnChange": True},
            {"userDataBase64": "Qg=="},
            ["userDataBase64"],
        ),
        ("aws:ebs/volume:Volume", {"size": 20}, {"size": 40}, []),
        ("aws:ebs/volume:Volume", {"size": 20}, {"snapshotId": "snap-1"}, ["snapshotId"]),
        ("aws:ebs/volume:Volume", {"availabilityZone": "a"}, {"availabilityZone": "b"}, ["availabilityZone"]),
        ("aws:ec2/volumeAttachment:VolumeAttachment", {"instanceId": "i-1"}, {"instanceId": "i-2"}, ["instanceId"]),
        ("aws:ssm/parameter:Parameter", {"name": "/a", "value": "1"}, {"value": "2"}, []),
        ("aws:ssm/parameter:Parameter", {"name": "/a", "value": "1"}, {"name": "/b"}, ["name"]),
        ("aws:ec2/securityGroup:SecurityGroup", {"description": "a"}, {"description": "b"}, ["description"]),
        ("aws:cloudwatch/metricAlarm:MetricAlarm", {"name": "a", "period": 60}, {"period": 300}, []),
        ("aws:cloudwatch/logGroup:LogGroup", {"name": "/a", "retentionInDays": 1}, {"name": "/b"}, ["name"]),
        ("aws:iam/rolePolicyAttachment:RolePolicyAttachment", {"policyArn": "a"}, {"policyArn": "b"}, ["policyArn"]),
    ],
)
def test_some_changes_replace_an_aws_resource(token: str, old: dict, change: dict, replaces: list[str]) -> None:
    assert diff(aws.Provider(), token, old, old | change) == (list(change), replaces)


def test_what_the_others_replace() -> None:
    old = {"metadata": {"name": "a"}, "roleRef": {"name": "view"}, "subjects": [{"name": "x"}]}
    new = {"metadata": {"name": "a"}, "roleRef": {"name": "edit"}, "subjects": [{"name": "y"}]}
    binding = "kubernetes:rbac.authorization.k8s.io/v1:ClusterRoleBinding"
    assert diff(kubernetes.Provider(), binding, old, new) == (["roleRef.name", "subjects"], ["roleRef.name"])
    old, new = {"create": "true", "triggers": ["a"]}, {"create": "false", "triggers": ["b"]}
    assert diff(command.Provider(), "command:local:Command", old, new) == (["create", "triggers"], ["triggers"])


def test_json_with_the_same_meaning_is_no_change_and_a_tag_has_a_path() -> None:
    policy = json.dumps({"b": [1], "a": 2})
    role = "aws:iam/role:Role"
    assert diff(aws.Provider(), role, {"assumeRolePolicy": policy}, {"assumeRolePolicy": '{"a":2,"b":[1]}'}) == ([], [])
    old, new = {"tags": {"a/b": "1"}}, {"tags": {"a/b": "2"}}
    assert diff(aws.Provider(), "aws:ec2/eip:Eip", old, new) == (['tags["a/b"]'], [])


def test_an_unknown_type_or_function_is_an_error_that_names_it() -> None:
    with pytest.raises(LookupError, match=r"does not know aws:s3/inventory:Inventory; it knows aws:autoscaling"):
        aws.Provider().Check(pb.CheckRequest(type="aws:s3/inventory:Inventory"), None)
    with pytest.raises(LookupError, match=r"does not know aws:s3/getBucket:getBucket; it knows aws:ebs"):
        aws.Provider().Invoke(pb.InvokeRequest(tok="aws:s3/getBucket:getBucket"), None)


def test_a_parameters_value_is_a_secret_whatever_its_type() -> None:
    struct = encode({"name": "/a", "value": "x"}, aws.KINDS["aws:ssm/parameter:Parameter"].secret)
    assert rpc.is_rpc_secret(json_format.MessageToDict(struct)["value"])
    assert struct["name"] == "/a"
    assert decode(struct) == {"name": "/a", "value": "x"}


def test_a_command_has_its_input_environment_and_last_output(tmp_path: Any) -> None:
    done = tmp_path / "done"
    props = {"create": "cat; echo $NAME", "update": "echo $PULUMI_COMMAND_STDOUT again", "stdin": "in ", "triggers": []}
    provider = command.Provider()
    request = pb.CreateRequest(type="command:local:Command", properties=encode(props | {"environment": {"NAME": "x"}}))
    created = decode(provider.Create(request, None).properties)
    assert created["stdout"] == "in x"
    news = encode(props | {"delete": f"echo $PULUMI_COMMAND_STDOUT > {done}"})
    request = pb.UpdateRequest(type="command:local:Command", olds=encode(created), news=news, old_inputs=encode(props))
    updated = provider.Update(request, None).properties
    assert decode(updated)["stdout"] == "in x again"
    provider.Delete(pb.DeleteRequest(type="command:local:Command", properties=updated), None)
    assert done.read_text() == "in x again\n"
    failing = pb.CreateRequest(type="command:local:Command", properties=encode({"create": "echo because >&2; exit 3"}))
    with pytest.raises(RuntimeError, match="exit status 3: because"):
        provider.Create(failing, None)


def test_the_cli_comes_from_path_or_the_installer_or_a_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    said = []
    for folder in ("path", "installed", "built"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "pulumi").write_text(f"#!/bin/sh\necho {folder}\n")
        (tmp_path / folder / "pulumi").chmod(0o755)

    class Installed:
        command = str(tmp_path / "installed/pulumi")

    def blocked() -> None:
        raise URLError("blocked")

    monkeypatch.setattr(engine, "OURS", tmp_path / "ours")
    monkeypatch.setattr(engine, "binaries", lambda name: {name: tmp_path / "built" / name})
    for path, online, installer in (
        ("path", False, None),
        ("", True, Installed),
        ("", True, blocked),
        ("", False, None),
    ):
        monkeypatch.setattr(engine.automation.PulumiCommand, "install", installer)
        monkeypatch.setenv("PATH", f"{tmp_path / path}:/nowhere" if path else "/nowhere")
        monkeypatch.setenv("PULUMI_HOME", str(tmp_path))
        monkeypatch.setattr(engine, "_is_online", lambda online=online: online)
        said.append(engine.install())
    names = ["language", "aws", "command", "kubernetes"]
    assert said == [("path", names), ("installed", ["language"]), ("built", ["language"]), ("built", names)]
    assert sorted(file.name for file in (tmp_path / "ours").iterdir()) == sorted(engine.PLUGINS.values())
