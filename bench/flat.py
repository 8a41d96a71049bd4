"""Makes a flat program of a stack's state: one statement for each resource.

Of look-ups it has the two that every such program needs, the cluster's and the image's. All else are values.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from teleport_eks.host import AMI_ARCHITECTURE, AMI_PARAMETER

HEAD = """\
import pulumi
import pulumi_aws as aws
import pulumi_command as command
import pulumi_kubernetes as kubernetes

aws.eks.get_cluster(name="demo")
aws.ssm.get_parameter_output(name="{image}")


def after(value, *resources):
    return pulumi.Output.all(*(resource.id for resource in resources)).apply(lambda _: value)


"""
OURS = re.compile(r"teleport-eks:index:\w+\$")
# Options that this program does not have.
OPTIONS = ("additionalSecretOutputs", "ignoreChanges", "replaceOnChanges", "replacementTrigger")
# Inputs that the SDK's classes have already.
SET_BY_CLASS = {"kubernetes": ("apiVersion", "kind"), "pulumi": ("version",)}


def flat(state: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The program, and the state in which it has nothing to change."""
    state = json.loads(OURS.sub("", json.dumps(state)))
    (stack,) = (r for r in state["resources"] if r["type"] == "pulumi:pulumi:Stack")
    del stack["outputs"]
    custom = [
        {key: value for key, value in {**r, "parent": stack["urn"]}.items() if key not in OPTIONS}
        for r in state["resources"]
        if r["custom"]
    ]
    names = {r["urn"]: f"r{number}" for number, r in enumerate(custom)}
    lines = []
    for r in custom:
        if r["urn"].rpartition("::")[2].startswith("default"):  # a provider that nobody declares
            del r["parent"]
            continue
        arguments = []
        for key, value in r["inputs"].items():
            if key.startswith("__") or key in SET_BY_CLASS.get(r["type"].partition(":")[0], ()):
                continue
            value = _plain(value)
            if r["type"].startswith("pulumi:") and value in ("true", "false"):
                value = value == "true"  # a provider's inputs are text
            text = repr(value)
            if first := r.get("propertyDependencies", {}).get(key):
                text = f"after({text}, {', '.join(names[urn] for urn in first)})"
            arguments.append(f"{re.sub('(?=[A-Z])', '_', key).lower()}={text}")
        provider = r.get("provider", "").rpartition("::")[0]
        if provider and "::default" not in provider:
            arguments.append(f"opts=pulumi.ResourceOptions(provider={names[provider]})")
        name = r["urn"].rpartition("::")[2]
        lines.append(f"{names[r['urn']]} = {_class(r['type'])}({name!r}, {', '.join(arguments)})\n")
    head = HEAD.format(image=AMI_PARAMETER.format(AMI_ARCHITECTURE["amd64"]))
    return head + "".join(lines), {**state, "resources": [stack, *custom]}


def _class(kind: str) -> str:
    """``aws:ec2/eip:Eip`` is aws.ec2.Eip; ``kubernetes:rbac.authorization.k8s.io/v1:Role``, kubernetes.rbac.v1.Role."""
    package, module, name = kind.split(":")
    if package == "pulumi":
        return f"{name}.Provider"
    module = module.partition("/")[0] if package == "aws" else re.sub(r"\.authorization\.k8s\.io|/", ".", module)
    return f"{package}.{re.sub(r'[.]+', '.', module)}.{name}"


def _plain(value: Any) -> Any:
    """A value of the state. What is secret there is in plain text, because the stack is thrown away."""
    if isinstance(value, dict):
        return json.loads(value["plaintext"]) if "plaintext" in value else {k: _plain(v) for k, v in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
