"""``python -m sandbox up|preview [STACK]|down``: the dev stack on stand-ins, on this machine only.

A preview takes any stack. What is made of its file is real, but the account is made up, with a cluster of the name that
the file says in it.
"""

import json
import logging
import os
import shutil
import sys
import time
import urllib.request
from collections.abc import Iterable
from contextlib import suppress

from kubernetes import client as kubernetes
from kubernetes.config import new_client_from_config

from components.settings import ConfigurationError
from sandbox import cli, daemons, strict_account
from sandbox.account import AWS_AUTH, Account, fill, made_up
from sandbox.control_plane import ControlPlane
from sandbox.rehearsal import NO_CLUSTER, ROOT, Rehearsal, stack_config, undo
from sandbox.tree import Node, tree

STACK = "dev"
DIRECTORY = ROOT / ".sandbox"
STATE = DIRECTORY / "state.json"
UNDO = DIRECTORY / "undo.json"
ENVIRONMENT = DIRECTORY / "env"

STAND_INS = """\
real:      etcd, kube-apiserver and kube-controller-manager; every Kubernetes object; the edit of aws-auth{engine}
not real:  AWS is moto, an emulator, made to refuse what AWS refuses: no instance boots, so there is no Teleport,
           certificate or DNS name behind the outputs{mocks}"""
MOCKS = ";\n           the engine is the SDK's test runtime with mocks, which keeps no state"


def up() -> None:
    """Brings the stand-ins and the stack up. With the Pulumi CLI a second time changes nothing; else it starts anew."""
    began = time.monotonic()
    missing = cli.missing()
    if missing:
        down(quiet=True)
    _say("starting the AWS account (moto) and the cluster (etcd, kube-apiserver, kube-controller-manager)")
    DIRECTORY.mkdir(mode=0o700, exist_ok=True)
    plane = ControlPlane.start(DIRECTORY / "cluster")
    shutil.copy(plane.kubeconfig, DIRECTORY / "kubeconfig")
    account = _account(plane)
    _write_environment(account)
    if missing:
        plugins = " (`pulumi install` gets the plugins)" if "pulumi" not in missing else ""
        _say(f"rehearsing the stack {STACK}, for there is no {', '.join(missing)}{plugins}")
        rehearsal = Rehearsal(account, stack_config(STACK), STACK)
        try:
            rehearsal.run()
        finally:
            UNDO.write_text(json.dumps(rehearsal.undo))
        _show(rehearsal.nodes(), rehearsal.outputs)
        print("\n" + STAND_INS.format(engine="", mocks=MOCKS))
    else:
        engine = cli.engine(DIRECTORY, account.environment())
        _say(f"bringing up the stack {STACK} with {engine.version}")
        nodes, outputs, changes = engine.up(STACK, print)
        _show(nodes, outputs)
        changed = {kind: count for kind, count in changes.items() if kind != "same"}
        print(f"\nChanges: {changed or 'none; the stack is as it should be'}")
        print("\n" + STAND_INS.format(engine=f"; the engine, {engine.version}", mocks=""))
    print(f"\nUp in {time.monotonic() - began:.0f} s. Look around with\n")
    print("  . .sandbox/env    # this shell's aws, kubectl and pulumi are the sandbox's")
    print("  aws ec2 describe-instances")
    print("  kubectl -n kube-system get configmap aws-auth -o yaml\n")
    print("and take it all away with `make down`.")


def preview(stack: str = STACK) -> None:
    """Shows what ``stack`` would create in an account that is made up for the moment; starts no server but moto."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    # There is no cluster here, and so no aws-auth to look at.
    logging.getLogger().addFilter(lambda record: not record.getMessage().startswith("aws-auth could not be looked at"))
    config = stack_config(stack) | NO_CLUSTER
    with made_up([config["teleport-eks:clusterName"] or "demo"]) as account:
        rehearsal = Rehearsal(account, config, stack, preview=True, progress=len)
        rehearsal.run()
    _show(rehearsal.nodes(), rehearsal.outputs)
    count = sum(resource.is_custom for resource in rehearsal.resources)
    print(f"\n{count} resources to create. {'`make up` creates them on stand-ins.' if stack == STACK else ''}".rstrip())


def down(*, quiet: bool = False) -> None:
    """Does to the cluster what a destroy would do, checks that aws-auth is what it was, and stops the stand-ins."""
    plane = ControlPlane(DIRECTORY / "cluster")
    try:
        if plane.is_healthy():
            if (DIRECTORY / "pulumi").exists():
                cli.engine(DIRECTORY, _account(plane).environment()).destroy(STACK, print)
            elif UNDO.exists():
                undo(json.loads(UNDO.read_text()), stack_config(STACK))
            same = _config_maps(plane).read_namespaced_config_map("aws-auth", "kube-system").data == AWS_AUTH
            if not quiet or not same:
                _say("aws-auth is byte for byte what it was" if same else "aws-auth IS NOT WHAT IT WAS")
            if not same:
                sys.exit(1)
    finally:
        plane.stop()
        if STATE.exists():
            moto = json.loads(STATE.read_text())
            daemons.end(moto["pid"], moto["command"])
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    if not quiet:
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
        **cli.environment(DIRECTORY),
        "KUBECONFIG": str(DIRECTORY / "kubeconfig"),
        "PATH": f"{ROOT / '.venv/bin'}:$PATH",  # the AWS CLI
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


def _say(line: str) -> None:
    print(f"sandbox: {line}", flush=True)


if __name__ == "__main__":
    try:
        {"up": up, "preview": preview, "down": down}[sys.argv[1]](*sys.argv[2:])
    except ConfigurationError as error:
        sys.exit(f"\n{error}")
    except FileNotFoundError as error:
        sys.exit(f"there is no {error.filename}")
