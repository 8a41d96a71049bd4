"""``python -m sandbox up|down``: the dev stack on stand-ins, on this machine only."""

import json
import os
import shutil
import sys
import time
import urllib.request
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from kubernetes import client as kubernetes
from kubernetes.config import new_client_from_config
from pulumi import automation

from sandbox import daemons, engine, strict_account
from sandbox.account import AWS_AUTH, Account, fill
from sandbox.binaries import ServersMissingError
from sandbox.control_plane import ControlPlane
from sandbox.engine import ROOT
from sandbox.tree import Node, tree

STACK = "dev"
DIRECTORY = ROOT / ".sandbox"
STATE = DIRECTORY / "state.json"
ENVIRONMENT = DIRECTORY / "env"

STAND_INS = """\
real:      the engine, Pulumi {version}; etcd, kube-apiserver and kube-controller-manager; every Kubernetes object;
           the edit of aws-auth
not real:  AWS is moto, an emulator, made to refuse what AWS refuses: no instance boots, so there is no Teleport,
           certificate or DNS name behind the outputs
plugins:   {plugins}"""


def up() -> None:
    """Brings the stand-ins and the stack up. A second time it changes nothing."""
    began = time.monotonic()
    _say("starting the AWS account (moto) and the cluster (etcd, kube-apiserver, kube-controller-manager)")
    DIRECTORY.mkdir(mode=0o700, exist_ok=True)
    plane = ControlPlane.start(DIRECTORY / "cluster")
    shutil.copy(plane.kubeconfig, DIRECTORY / "kubeconfig")
    version, ours = engine.install()
    account = _account(plane)
    _write_environment(account)
    _say(f"bringing up the stack {STACK} with Pulumi {version}")
    stack = engine.select(STACK, DIRECTORY, account)
    result = stack.up(on_output=_progress, suppress_outputs=True, suppress_progress=True, color="never")
    _show(engine.nodes(stack), {name: output.value for name, output in result.outputs.items()})
    changed = {str(kind): n for kind, n in (result.summary.resource_changes or {}).items() if kind != "same"}
    print(f"\nChanges: {changed or 'none; the stack is as it should be'}")
    plugins = f"the sandbox's own, for what this program uses: {', '.join(ours)}" if ours else "the real ones"
    print("\n" + STAND_INS.format(version=version, plugins=plugins))
    print(f"\nUp in {time.monotonic() - began:.0f} s. Look around with\n")
    print("  . .sandbox/env    # this shell's aws, kubectl and pulumi are the sandbox's")
    print("  aws ec2 describe-instances")
    print("  kubectl -n kube-system get configmap aws-auth -o yaml\n")
    print("and take it all away with `make down`.")


def down() -> None:
    """Destroys the stack, checks that aws-auth is what it was, and stops the stand-ins."""
    plane = ControlPlane(DIRECTORY / "cluster")
    try:
        if plane.is_healthy():
            if (DIRECTORY / "pulumi").exists():
                engine.install()
                engine.select(STACK, DIRECTORY, _account(plane)).destroy(
                    on_output=_progress, suppress_progress=True, color="never"
                )
            same = _config_maps(plane).read_namespaced_config_map("aws-auth", "kube-system").data == AWS_AUTH
            _say("aws-auth is byte for byte what it was" if same else "aws-auth IS NOT WHAT IT WAS")
            if not same:
                sys.exit(1)
    finally:
        plane.stop()
        if STATE.exists():
            moto = json.loads(STATE.read_text())
            daemons.end(moto["pid"], moto["command"])
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    _say("stopped; nothing is left")


def _account(plane: ControlPlane) -> Account:
    """The account of a run before this one if it is still there, else a new one, and with it the cluster's map."""
    if STATE.exists():
        moto = json.loads(STATE.read_text())
        if daemons.runs(moto["pid"], moto["command"]):
            return Account(moto["endpoint"])
    port = daemons.free_ports(1)[0]
    command = strict_account.command(port)
    environment = {**os.environ, "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"}
    account = Account(f"http://127.0.0.1:{port}")
    pid = daemons.start(command, DIRECTORY / "moto.log", environment)
    STATE.write_text(json.dumps({"pid": pid, "command": command, "endpoint": account.endpoint}))
    _wait(f"{account.endpoint}/moto-api/", pid, command)
    fill(account)
    body = kubernetes.V1ConfigMap(metadata=kubernetes.V1ObjectMeta(name="aws-auth"), data=AWS_AUTH)
    _config_maps(plane).create_namespaced_config_map("kube-system", body)
    return account


def _write_environment(account: Account) -> None:
    """What a shell sources to have its tools work on the sandbox."""
    environment = {
        **account.environment(),
        **engine.environment(DIRECTORY),
        "KUBECONFIG": str(DIRECTORY / "kubeconfig"),
        # Our plugins, Pulumi, the AWS CLI.
        "PATH": f"{engine.OURS}:{Path(shutil.which('pulumi') or '').parent}:{ROOT / '.venv/bin'}:$PATH",
    }
    ENVIRONMENT.write_text("".join(f'export {name}="{value}"\n' for name, value in environment.items()))


def _wait(url: str, pid: int, command: list[str], seconds: int = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and daemons.runs(pid, command):
        with suppress(OSError), urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own address
            return
        time.sleep(0.1)
    sys.exit(f"moto did not start; its output is in {DIRECTORY / 'moto.log'}")


def _config_maps(plane: ControlPlane) -> kubernetes.CoreV1Api:
    return kubernetes.CoreV1Api(new_client_from_config(str(plane.kubeconfig)))


def _show(nodes: Iterable[Node], outputs: dict) -> None:
    print("\nResources:")
    for line in tree(nodes):
        print(f"  {line}")
    print("\nOutputs:")
    for name, value in outputs.items():
        if name not in ("nextSteps", "readme"):
            print(f"  {name:<20}{value}")
    if "nextSteps" in outputs:
        print("\nNext steps:\n  " + outputs["nextSteps"].replace("\n", "\n  "))


def _progress(line: str) -> None:
    if "using pulumi-" not in line:  # said once, at the end
        print(line, flush=True)


def _say(line: str) -> None:
    print(f"sandbox: {line}", flush=True)


if __name__ == "__main__":
    try:
        {"up": up, "down": down}[sys.argv[1]]()
    except automation.CommandError:
        sys.exit(1)  # it has said why
    except ServersMissingError as error:
        sys.exit(f"sandbox: {error}")
