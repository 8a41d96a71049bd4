"""The Pulumi engine: the real CLI, its plugins or ours, and a stack under it through the Automation API."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pulumi import automation

from sandbox.account import Account
from sandbox.binaries import binaries, cached
from sandbox.providers.__main__ import PLUGINS

ROOT = Path(__file__).parent.parent
# Where the plugins of ours are: those of this checkout and its Python.
OURS = cached("plugins", f"{ROOT} {sys.executable}".encode())
PROJECT = "teleport-eks"
OFFLINE = "SANDBOX_OFFLINE"  # set: nothing is downloaded, as in the tests, which are the same everywhere
# The stack's secrets are the sandbox's own; Pulumi.dev.yaml holds the salt that goes with it.
PASSPHRASE = "sandbox"  # noqa: S105
# The kubeconfig for a preview, in which nothing asks the cluster: there may be none.
# Nor is there the subnet that the stack's file names.
NO_CLUSTER = {f"{PROJECT}:kubeconfig": "kind: Config\nclusters: []", f"{PROJECT}:subnetId": ""}
NOT_DECRYPTED = "not-decrypted"


# Pulumi shows a message line by line as the stack's progress, and then once more as a whole.
PROGRESS = re.compile(r"\bpulumi:pulumi:Stack \S+ \w+( \(\d+s\))? +(?!\()\S")


def is_noise(line: str) -> bool:
    """Whether a line of Pulumi's output tells a person nothing: where a plugin is, or half a message."""
    return "using pulumi-" in line or bool(PROGRESS.search(line))


def install() -> tuple[str, list[str]]:
    """Puts the CLI on this process's PATH, and plugins of ours for those that it does not have and cannot get.

    Returns the CLI's version, and which plugins are ours.
    """
    online = _is_online()
    if not shutil.which("pulumi"):
        _add_to_path((online and _installed()) or binaries("pulumi")["pulumi"].parent)
    ours = [name for name, plugin in PLUGINS.items() if not _is_there(plugin, online)]
    for name, plugin in PLUGINS.items():
        file = OURS / plugin
        start = f"import sys; sys.path.insert(0, '{ROOT}'); from sandbox.providers.__main__ import main; main('{name}')"
        text = f'#!/bin/sh\nexec "{sys.executable}" -c "{start}"\n'
        if name not in ours:
            file.unlink(missing_ok=True)
        elif not file.exists() or file.read_text() != text:
            OURS.mkdir(parents=True, exist_ok=True)
            unfinished = file.with_name(f".{plugin}-{os.getpid()}")
            unfinished.write_text(text)
            unfinished.chmod(0o755)
            unfinished.replace(file)  # another process may start it at any time
    _add_to_path(OURS)
    version = subprocess.run(["pulumi", "version"], capture_output=True, text=True, check=True).stdout.strip()
    return version, ours


def _installed() -> Path | None:
    """Where Pulumi's own installer has put the CLI; None if a proxy or a full disk was in its way."""
    try:
        return Path(automation.PulumiCommand.install().command).parent
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"sandbox: Pulumi's installer failed ({error})", file=sys.stderr)
        return None


def _is_there(plugin: str, online: bool) -> bool:
    """Whether the engine has the real plugin or downloads it. A language host is never downloaded: the CLI has it."""
    on_path = [folder for folder in os.environ["PATH"].split(os.pathsep) if folder != str(OURS)]
    home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    return bool(
        (online and "language" not in plugin)
        or shutil.which(plugin, path=os.pathsep.join(on_path))
        or list(home.glob(f"plugins/{plugin.removeprefix('pulumi-')}-v*"))
    )


def _is_online() -> bool:
    if os.environ.get(OFFLINE):
        return False
    try:
        socket.create_connection(("get.pulumi.com", 443), timeout=3).close()
    except OSError:
        return False
    return True


def _add_to_path(folder: Path) -> None:
    if str(folder) not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"


def configuration(name: str, project: Path = ROOT) -> dict[str, Any]:
    """What a stack's file says."""
    return (yaml.safe_load((project / f"Pulumi.{name}.yaml").read_text()) or {}).get("config", {})


def environment(directory: Path) -> dict[str, str]:
    """What has the CLI keep its state in ``directory``."""
    (directory / "pulumi").mkdir(parents=True, exist_ok=True)
    return {
        "PULUMI_BACKEND_URL": f"file://{directory / 'pulumi'}",
        "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
        "PULUMI_SKIP_UPDATE_CHECK": "true",
    }


def select(
    name: str, directory: Path, account: Account, project: Path = ROOT, extra: dict[str, str] | None = None
) -> automation.Stack:
    """A stack of ``project`` in ``account``; its state is kept in ``directory``."""
    variables = {**account.environment(), **environment(directory)}
    options = automation.LocalWorkspaceOptions(env_vars=variables | (extra or {}))
    return automation.create_or_select_stack(name, work_dir=str(project), opts=options)


class Node(NamedTuple):
    urn: str
    parent: str
    type: str

    @property
    def name(self) -> str:
        return self.urn.rpartition("::")[2]

    @property
    def is_implicit(self) -> bool:
        """A provider that nobody declared."""
        return "pulumi:providers:" in self.type and self.name.startswith("default")


def nodes(stack: automation.Stack) -> list[Node]:
    """The resources of a stack, for the tree."""
    resources = (stack.export_stack().deployment or {}).get("resources", [])
    return [Node(r["urn"], r.get("parent", ""), r["type"]) for r in resources]


def tree(nodes: Iterable[Node], parent: str = "", indent: str = "") -> Iterator[str]:
    """One line per resource, parents before children, as the Pulumi CLI shows them."""
    siblings = sorted((n for n in nodes if n.parent == parent and not n.is_implicit), key=lambda n: (n.type, n.name))
    for node in siblings:
        last = node is siblings[-1]
        branch, below = ("", "") if not parent else ("└─ ", "   ") if last else ("├─ ", "│  ")
        yield f"{indent + branch + node.type:<76} {node.name}"
        yield from tree(nodes, node.urn, indent + below)


@dataclass
class Preview:
    """What a stack would be: its resources, by the engine's events."""

    resources: list[Any] = field(default_factory=list)

    def nodes(self) -> list[Node]:
        return [Node(r.urn, r.parent, r.type) for r in self.resources]

    def take(self, event: automation.EngineEvent) -> None:
        if (pre := event.resource_pre_event) and pre.metadata.new:
            self.resources.append(pre.metadata.new)


def preview(name: str, account: Account, config: Mapping[str, Any], project: Path = ROOT) -> Preview:
    """Previews a stack as if for the first time."""
    found = Preview()
    with throwaway(name, account, config, project) as stack:
        stack.preview(on_event=found.take)
    return found


@contextmanager
def throwaway(
    name: str,
    account: Account,
    config: Mapping[str, Any],
    project: Path = ROOT,
    extra: dict[str, str] | None = None,
) -> Iterator[automation.Stack]:
    """A stack of ``project`` with another configuration, which leaves no file behind.

    Secrets are not decrypted, since nobody needs the key for that: each is only known to be one.
    """
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        (directory / "program").symlink_to(project)
        settings = yaml.safe_load((project / "Pulumi.yaml").read_text())
        runtime = {"name": "python", "options": {"virtualenv": sys.prefix}}
        settings |= {"main": "program", "runtime": runtime}
        (directory / "Pulumi.yaml").write_text(yaml.safe_dump(settings))
        secrets = [key for key, value in config.items() if isinstance(value, dict) and "secure" in value]
        plain = {key: value for key, value in config.items() if key not in secrets}
        (directory / f"Pulumi.{name}.yaml").write_text(yaml.safe_dump({"config": plain}))
        stack = select(name, directory / "state", account, directory, extra)
        if secrets:
            stack.set_all_config({key: automation.ConfigValue(NOT_DECRYPTED, secret=True) for key in secrets})
        yield stack
