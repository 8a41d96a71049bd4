"""A rehearsal: the program runs in the Pulumi SDK's own test runtime, and mocks do the work on the stand-ins.

It is for where there is no Pulumi CLI. It keeps no state and compares nothing:
each resource is created once, in an account that was empty before.
"""

import contextlib
import functools
import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
import yaml
from botocore.exceptions import ClientError
from kubernetes.config import new_client_from_config
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import NotFoundError
from pulumi.runtime import mocks, rpc
from pulumi.runtime.settings import get_root_resource, set_root_resource

from sandbox import rehearsal_aws
from sandbox.account import Account
from sandbox.tree import Node

ROOT = Path(__file__).parent.parent
PROJECT = "teleport-eks"
# The kubeconfig for a preview, in which nothing asks the cluster: there may be none.
# Nor is there the subnet that the stack's file names.
NO_CLUSTER = {f"{PROJECT}:kubeconfig": "kind: Config\nclusters: []", f"{PROJECT}:subnetId": ""}


def stack_config(stack: str) -> dict[str, str]:
    """The stack's configuration as the CLI hands it to a program: defaults and the stack's file, all as text."""
    declared = yaml.safe_load((ROOT / "Pulumi.yaml").read_text()).get("config", {})
    config = {f"{PROJECT}:{key}": entry["default"] for key, entry in declared.items() if "default" in entry}
    config |= yaml.safe_load((ROOT / f"Pulumi.{stack}.yaml").read_text())["config"]
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}


@dataclass(frozen=True)
class Registered:
    """A resource as the program declared it. In ``inputs``, secrets are marked as Pulumi marks them."""

    urn: str
    parent: str
    type: str
    name: str
    is_custom: bool
    inputs: dict[str, Any]


@dataclass
class Rehearsal(mocks.Mocks):
    """Mocks that create AWS resources in ``account``, Kubernetes objects in the cluster, and run commands.

    In a preview nothing is created, and nothing but ``account`` is asked anything.
    """

    account: Account
    config: dict[str, str]
    stack: str = "dev"
    secret_keys: list[str] = field(default_factory=list)
    preview: bool = False
    program: Path = ROOT / "__main__.py"
    progress: Callable[[str], Any] = lambda line: sys.stdout.write(f"{line}\n")  # several threads: a line at a time
    resources: list[Registered] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)
    # What a destroy would run, in its order: the newest first.
    undo: list[dict[str, Any]] = field(default_factory=list)

    def run(self) -> None:
        """Runs the program to its end. What the program raises is raised here."""
        pulumi.runtime.set_all_config(self.config, self.secret_keys)
        set_root_resource(None)  # type: ignore[arg-type] - of a run before this one
        mocks.set_mocks(self, PROJECT, self.stack, preview=self.preview, monitor=_Monitor(self))

        @pulumi.runtime.test
        def program() -> pulumi.Output:
            runpy.run_path(str(self.program), run_name="__main__")
            exported.update(get_root_resource().outputs)  # type: ignore[union-attr]
            return pulumi.Output.all(*(self._keep(name, value) for name, value in exported.items()))

        exported: dict[str, Any] = {}
        program()
        self.outputs = {name: self.outputs[name] for name in exported if name in self.outputs}

    def _keep(self, name: str, value: Any) -> pulumi.Output:
        # In a preview, what is not known yet is not called for.
        return pulumi.Output.from_input(value).apply(lambda known: self.outputs.update({name: known}))

    @functools.cached_property
    def _cluster(self) -> DynamicClient:
        return cluster_client(self.config)

    def nodes(self) -> list[Node]:
        """The resources that the program declared, for the tree."""
        return [Node(r.urn, r.parent, r.type, r.name) for r in self.resources]

    def call(self, args: mocks.MockCallArgs) -> Any:
        try:
            return rehearsal_aws.look_up(self.account, args.token, args.args)
        except ClientError as error:
            return {}, [("", str(error))]

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict]:
        if self.preview or not args.custom:
            return None, args.inputs
        inputs = plain(args.inputs)
        if args.typ.startswith("aws:"):
            return rehearsal_aws.create(self.account, args.typ, args.name, inputs)
        if args.typ.startswith("kubernetes:"):
            return self._apply(inputs)
        if args.typ == "command:local:Command":
            return args.name, {**args.inputs, "stdout": self._run(inputs)}
        if args.typ.startswith("pulumi:providers:"):
            return args.name, args.inputs
        raise NotImplementedError(f"the rehearsal cannot create {args.typ} ({args.name})")

    def _apply(self, manifest: dict) -> tuple[str, dict]:
        if self.config.get(f"{PROJECT}:applyToCluster") == "false":
            return manifest["metadata"]["name"], manifest  # the provider's files are the real engine's to write
        client = self._cluster
        resource = client.resources.get(api_version=manifest["apiVersion"], kind=manifest["kind"])
        name, namespace = manifest["metadata"]["name"], manifest["metadata"].get("namespace")
        applied = client.server_side_apply(resource, manifest, name, namespace, field_manager=PROJECT)
        self.undo.insert(0, {"object": [manifest["apiVersion"], manifest["kind"], name, namespace]})
        return f"{namespace}/{name}" if namespace else name, applied.to_dict()

    def _run(self, inputs: dict) -> str:
        self.undo.insert(0, {"command": inputs["delete"], "stdin": inputs["stdin"]})
        return run_command(inputs["create"], inputs["stdin"])


def plain(value: Any) -> Any:
    """A property as a provider gets it: without the marks of secrets."""
    if rpc.is_rpc_secret(value):
        return plain(value["value"])
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def run_command(line: str, stdin: str) -> str:
    """A shell command as pulumi-command runs it: in the project's directory. Raises RuntimeError with what it said."""
    done = subprocess.run(line, shell=True, cwd=ROOT, input=stdin, capture_output=True, text=True)  # noqa: S602
    if done.returncode:
        raise RuntimeError(f"{line}\nexit status {done.returncode}: {done.stderr.strip()}")
    return done.stdout.strip()


def undo(actions: list[dict[str, Any]], config: dict[str, str]) -> None:
    """Does in the cluster what a destroy would do. What is gone already is no error."""
    client = cluster_client(config) if actions else None
    for action in actions:
        if "command" in action:
            run_command(action["command"], action["stdin"])
        elif client:
            api_version, kind, name, namespace = action["object"]
            with contextlib.suppress(NotFoundError):
                client.resources.get(api_version=api_version, kind=kind).delete(name=name, namespace=namespace)


def cluster_client(config: dict[str, str]) -> DynamicClient:
    path = ROOT / config[f"{PROJECT}:kubeconfig"]
    return DynamicClient(new_client_from_config(str(path)))


class _Monitor(mocks.MockMonitor):
    """Also remembers each resource's parent, which mocks are not told."""

    mocks: Rehearsal  # pyright: ignore[reportIncompatibleVariableOverride]

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 - gRPC's name
        response = super().RegisterResource(request)
        inputs = rpc.deserialize_properties(request.object)
        resource = Registered(response.urn, request.parent, request.type, request.name, request.custom, inputs)
        self.mocks.resources.append(resource)
        if request.custom:
            self.mocks.progress(f"  + {request.type}  {request.name}")
        return response
