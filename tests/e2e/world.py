"""The dev stack in an emulated account and a real cluster, for a file of tests."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client as kubernetes
from kubernetes.config import new_client_from_config
from pulumi import automation

from sandbox import engine
from sandbox.account import Account, made_up
from sandbox.control_plane import ControlPlane
from sandbox.providers.aws import CALLS
from tests.e2e.conftest import aws_auth


@dataclass
class World:
    """The stack, where it is, and what was seen while it was brought up."""

    stack: automation.Stack
    account: Account
    core: Any
    rbac: Any
    calls: Path
    said: str = field(default="", repr=False)
    arguments: str = field(default="", repr=False)

    @property
    def outputs(self) -> dict[str, Any]:
        return {name: output.value for name, output in self.stack.outputs().items()}

    @property
    def state(self) -> str:
        """The state as it is kept."""
        (backend,) = Path(self.stack.workspace.env_vars["PULUMI_BACKEND_URL"].removeprefix("file://")).rglob("dev.json")
        return backend.read_text()

    def set(self, **config: Any) -> None:
        file = Path(self.stack.workspace.work_dir) / "Pulumi.dev.yaml"
        settings = yaml.safe_load(file.read_text())
        settings["config"] |= {f"teleport-eks:{key}": value for key, value in config.items()}
        file.write_text(yaml.safe_dump(settings))

    def called(self) -> list[tuple[str, dict]]:
        """The calls to AWS so far: the IAM action of each, and its parameters."""
        return [tuple(json.loads(line)) for line in self.calls.read_text().splitlines()]


@contextmanager
def new_world(control_plane: ControlPlane, calls: Path, **config: Any) -> Iterator[World]:
    """The dev stack with another configuration, not yet up. At the end it is destroyed."""
    file = engine.configuration("dev") | {"teleport-eks:kubeconfig": str(control_plane.kubeconfig)}
    file |= {f"teleport-eks:{key}": value for key, value in config.items()}
    api = new_client_from_config(str(control_plane.kubeconfig))
    with (
        made_up() as account,
        aws_auth(control_plane) as core,
        engine.throwaway("dev", account, file, extra={CALLS: str(calls)}) as stack,
    ):
        yield World(stack, account, core, kubernetes.RbacAuthorizationV1Api(api), calls)
        stack.destroy()
