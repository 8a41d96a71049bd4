"""The stack under the real Pulumi engine, where its CLI and the plugins of the program are installed."""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulumi import automation

from sandbox.tree import Node

ROOT = Path(__file__).parent.parent
PLUGINS = ("aws", "kubernetes", "command")
# The stack's secrets are the sandbox's own; Pulumi.dev.yaml holds the salt that goes with it.
PASSPHRASE = "sandbox"  # noqa: S105


@dataclass(frozen=True)
class Engine:
    """The Pulumi CLI, driven through the Automation API with a backend in the sandbox's directory."""

    version: str
    directory: Path
    variables: dict[str, str]
    project: Path = ROOT

    def up(self, stack: str, say: Callable[[str], Any]) -> tuple[list[Node], dict[str, Any], dict[str, int]]:
        """Brings the stack up; returns its resources, its outputs, and how many resources were created, same, ..."""
        selected = self.select(stack)
        result = selected.up(on_output=say)
        resources = (selected.export_stack().deployment or {})["resources"]
        nodes = [Node(r["urn"], r.get("parent", ""), r["type"], r["urn"].rpartition("::")[2]) for r in resources]
        outputs = {name: output.value for name, output in result.outputs.items()}
        return nodes, outputs, {str(k): n for k, n in (result.summary.resource_changes or {}).items()}

    def destroy(self, stack: str, say: Callable[[str], Any]) -> None:
        self.select(stack).destroy(on_output=say)

    def select(self, stack: str) -> automation.Stack:
        (self.directory / "pulumi").mkdir(parents=True, exist_ok=True)
        options = automation.LocalWorkspaceOptions(env_vars={**self.variables, **environment(self.directory)})
        return automation.create_or_select_stack(stack, work_dir=str(self.project), opts=options)


def environment(directory: Path) -> dict[str, str]:
    """What has the CLI keep its state in ``directory``."""
    return {
        "PULUMI_BACKEND_URL": f"file://{directory / 'pulumi'}",
        "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
        "PULUMI_SKIP_UPDATE_CHECK": "true",
    }


def missing() -> list[str]:
    """The programs that a run with the real engine needs and that are not installed; nothing else without the CLI."""
    if not shutil.which("pulumi"):
        return ["pulumi"]
    home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    wanted = ["pulumi-language-python", *(f"pulumi-resource-{plugin}" for plugin in PLUGINS)]
    return [
        program
        for program in wanted
        if not shutil.which(program) and not list((home / "plugins").glob(f"{program.removeprefix('pulumi-')}-v*"))
    ]


def engine(directory: Path, variables: dict[str, str]) -> Engine:
    """The engine, for a stack whose state is kept in ``directory``."""
    version = subprocess.run(["pulumi", "version"], capture_output=True, text=True, check=True)
    return Engine(f"Pulumi {version.stdout.strip()}", directory, variables)
