"""``python -m sandbox up [single|ha]`` and ``down``: the dev stack on stand-ins, on this machine only."""

import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

import requests
import yaml
from kubernetes import client as kubernetes
from kubernetes.config import new_client_from_config
from pulumi import automation

from sandbox import daemons, engine, strict_account
from sandbox.account import AWS_AUTH, Account, fill
from sandbox.binaries import ServersMissingError
from sandbox.control_plane import ControlPlane
from sandbox.engine import PROJECT, ROOT

STACK = "dev"
DIRECTORY = ROOT / ".sandbox"
PLANE = ControlPlane(DIRECTORY / "cluster")
MOTO = daemons.Daemon(DIRECTORY, "moto")

SUMMARY = """
Changes: {changes}

real:      the engine, Pulumi {version}; etcd, kube-apiserver and kube-controller-manager; every Kubernetes object;
           the edit of aws-auth
not real:  AWS is moto, an emulator, made to refuse what AWS refuses: no instance boots, so there is no Teleport,
           certificate or DNS name behind the outputs
plugins:   {plugins}

Up in {seconds:.0f} s. Look around with

  . .sandbox/env    # this shell's aws, kubectl and pulumi are the sandbox's
  aws ec2 describe-instances
  kubectl -n kube-system get configmap aws-auth -o yaml

and take it all away with `make down`."""


def up(topology: str = "") -> None:
    """Brings the stand-ins and the stack up. A second time it changes nothing."""
    if topology not in ("", "single", "ha"):
        sys.exit(f"sandbox: TOPOLOGY={topology}: it must be single or ha")
    began = time.monotonic()
    _say("starting the AWS account (moto) and the cluster (etcd, kube-apiserver, kube-controller-manager)")
    DIRECTORY.mkdir(mode=0o700, exist_ok=True)
    ControlPlane.start(PLANE.directory)
    shutil.copy(PLANE.kubeconfig, DIRECTORY / "kubeconfig")
    version, ours = engine.install()
    account = _account()
    _write_environment(account)
    config_file = _configured(topology)
    _say(f"bringing up the stack {STACK} with Pulumi {version}")
    stack = engine.select(STACK, DIRECTORY, account)
    result = stack.up(
        on_output=_progress, suppress_outputs=True, suppress_progress=True, color="never", config_file=config_file
    )
    _show(engine.nodes(stack), {name: output.value for name, output in result.outputs.items()})
    changes = {str(kind): n for kind, n in (result.summary.resource_changes or {}).items() if kind != "same"}
    plugins = f"the sandbox's own, for what this program uses: {', '.join(ours)}" if ours else "the real ones"
    seconds = time.monotonic() - began
    changed = ", ".join(f"{kind} {n}" for kind, n in changes.items()) or "none; the stack is as it should be"
    print(SUMMARY.format(changes=changed, version=version, plugins=plugins, seconds=seconds))


def down() -> None:
    """Destroys the stack, checks that aws-auth is what it was, and stops the stand-ins."""
    try:
        if PLANE.is_healthy():
            if (DIRECTORY / "pulumi").exists():
                engine.install()
                stack = engine.select(STACK, DIRECTORY, _account())
                stack.destroy(on_output=_progress, suppress_progress=True, color="never")
            if _config_maps().read_namespaced_config_map("aws-auth", "kube-system").data != AWS_AUTH:
                sys.exit("sandbox: aws-auth IS NOT WHAT IT WAS")
            _say("aws-auth is byte for byte what it was")
    finally:
        PLANE.stop()
        MOTO.end()
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    _say("stopped; nothing is left")


def _configured(topology: str) -> str | None:
    """The stack's file with another topology. None for the stack's own file."""
    if not topology:
        return None
    file = yaml.safe_load((ROOT / f"Pulumi.{STACK}.yaml").read_text())
    values = {"topology": topology, "domainName": "teleport.example.com", "hostedZone": "example.com"}
    file["config"] |= {f"{PROJECT}:{key}": value for key, value in values.items()}
    path = DIRECTORY / f"Pulumi.{STACK}.yaml"
    path.write_text(yaml.safe_dump(file, sort_keys=False))
    return str(path)


def _account() -> Account:
    """The account of a run before this one if it is still there, else a new one, and with it the cluster's map."""
    if MOTO.process():
        return Account(f"http://127.0.0.1:{MOTO.known['command'][-1]}")
    port = daemons.free_ports(1)[0]
    account = Account(f"http://127.0.0.1:{port}")
    MOTO.start(strict_account.command(port), {**os.environ, "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"})
    while MOTO.process():
        with suppress(OSError):
            requests.get(f"{account.endpoint}/moto-api/", timeout=5)
            break
        time.sleep(0.1)
    else:
        sys.exit(f"moto did not start; its output is in {MOTO.log}")
    fill(account)
    body = kubernetes.V1ConfigMap(metadata=kubernetes.V1ObjectMeta(name="aws-auth"), data=AWS_AUTH)
    _config_maps().create_namespaced_config_map("kube-system", body)
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
    lines = [f'export {name}="{value}"\n' for name, value in environment.items()]
    (DIRECTORY / "env").write_text("".join(lines))


def _config_maps() -> kubernetes.CoreV1Api:
    return kubernetes.CoreV1Api(new_client_from_config(str(PLANE.kubeconfig)))


def _show(nodes: list[engine.Node], outputs: dict) -> None:
    print("\nThe stack:")
    for line in engine.tree(nodes):
        print(f"  {line}")
    print("\nOutputs:")
    for name, value in outputs.items():
        if name not in ("nextSteps", "readme"):
            print(f"  {name:<20}{value}")
    if "nextSteps" in outputs:
        print("\nNext steps:\n  " + outputs["nextSteps"].replace("\n", "\n  "))


def _progress(line: str) -> None:
    if not engine.is_noise(line):
        print(line, flush=True)


def _say(line: str) -> None:
    print(f"sandbox: {line}", flush=True)


if __name__ == "__main__":
    try:
        {"up": up, "down": down}[sys.argv[1]](*filter(None, sys.argv[2:]))
    except automation.CommandError:
        sys.exit(1)  # it has said why
    except ServersMissingError as error:
        sys.exit(f"sandbox: {error}")
