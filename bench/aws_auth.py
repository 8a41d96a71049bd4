"""Compares this project's aws-auth editor with other tools: many writers at once, on a real API server.

The other tools are the pipeline of the 2019 guide, and keikoproj/aws-auth if the command ``aws-auth`` is on PATH.

    python -m bench.aws_auth [--writers 30]

It measures how many of the writers' entries are in the map at the end, how long that took, and which content of others
was lost. Each writer is a process of its own, as if each ran on another machine. Much of its time is the start of that
process; the row "in one process" leaves that out.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import yaml

from sandbox.binaries import binaries
from sandbox.control_plane import ControlPlane
from teleport_eks.aws_auth.configmap import NAME, NAMESPACE, connect, edit, read, with_entry
from teleport_eks.aws_auth.text import Entry

ACCOUNT = "arn:aws:iam::111122223333:role"
ROLES = f"""\
# the nodes: do not touch
- rolearn: {ACCOUNT}/nodes
  username: system:node:{{{{EC2PrivateDNSName}}}}
  userid: AROA1234
  groups:
  - system:bootstrappers
  - system:nodes
"""
DATA = {
    "mapRoles": ROLES,
    "mapUsers": "# people\n- userarn: arn:aws:iam::111122223333:user/ann\n  username: ann\n",
    "mapAccounts": "- '012345670123'\n",
}
MARKS = {"comment": "# the nodes: do not touch", "userid": "userid: AROA1234", "nodes": f"{ACCOUNT}/nodes"}

# As in guides of 2019, but the entry's ARN and the file are variables. It prints the entry below the line `mapRoles`.
PIPELINE = r"""
ROLE="    - rolearn: $ARN\n      username: teleport\n      groups:\n        - teleport-group"
"$KUBECTL" -n kube-system get configmap/aws-auth -o yaml | awk "/mapRoles: \|/{print;print \"$ROLE\";next}1" > "$FILE"
"$KUBECTL" -n kube-system patch configmap/aws-auth --patch "$(cat "$FILE")"
"""


Writer = Callable[[str], object]


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares ways to edit aws-auth when many writers run at once.")
    parser.add_argument("--writers", type=int, default=30)
    writers = parser.parse_args().writers
    kubectl = binaries("kubectl")["kubectl"]
    with tempfile.TemporaryDirectory() as folder, ControlPlane.start(Path(folder, "control-plane")) as plane:
        api = connect(str(plane.kubeconfig))

        def guide(arn: str) -> None:
            variables = {"ARN": arn, "FILE": f"{folder}/{arn.rpartition('/')[2]}.yaml", "KUBECTL": str(kubectl)}
            environment = {"PATH": os.defpath, "HOME": folder, "KUBECONFIG": str(plane.kubeconfig), **variables}
            subprocess.run(["bash", "-c", PIPELINE], env=environment, capture_output=True, check=False)

        def keiko(arn: str, *more: str) -> None:
            entry = ["--maproles", "--rolearn", arn, "--username", "teleport", "--groups", "teleport-group"]
            program = ["aws-auth", "upsert", "--kubeconfig", str(plane.kubeconfig)]
            subprocess.run([*program, *entry, *more], capture_output=True, check=False)

        def keiko_retrying(arn: str) -> None:
            keiko(arn, "--retry")

        def command(arn: str, action: str = "add") -> None:
            options = ["--role-arn", arn, "--username", "teleport", "--group", "teleport-group"]
            program = [sys.executable, "-m", "teleport_eks.aws_auth", action, "--kubeconfig", str(plane.kubeconfig)]
            subprocess.run([*program, *options], capture_output=True, check=False)

        def call(arn: str) -> None:
            entry = Entry(arn, "teleport", ("teleport-group",))
            edit(connect(str(plane.kubeconfig)), partial(with_entry, entry=entry))

        def data() -> dict[str, str]:
            return (read(api) or {})["data"]

        def storm(writer: Writer, count: int) -> tuple[int, float]:
            """How many entries are in the map when the last writer has ended, and after how many seconds."""
            arns = [f"{ACCOUNT}/team-{n}" for n in range(count)]
            began = time.monotonic()
            with ThreadPoolExecutor(count) as pool:
                list(pool.map(writer, arns))
            took = time.monotonic() - began
            return len({item.get("rolearn") for item in yaml.safe_load(data()["mapRoles"])} & set(arns)), took

        def reset() -> None:
            if read(api):
                api.delete_namespaced_config_map(NAME, NAMESPACE)
            body: dict = {"metadata": {"name": NAME}, "data": DATA}
            api.create_namespaced_config_map(NAMESPACE, body)  # pyright: ignore[reportArgumentType]

        def lost() -> str:
            now = data()
            gone = [key for key in DATA if key != "mapRoles" and now.get(key) != DATA[key]]
            return ", ".join(gone + [name for name, mark in MARKS.items() if mark not in now["mapRoles"]]) or "nothing"

        print(f"{'':26}{'one writer':>12}{f'{writers} at once':>14}{'in the map':>12}   lost")
        landed = {}
        rows: list[tuple[str, Writer]] = [("get | awk | patch", guide)]
        if shutil.which("aws-auth"):
            rows += [("keikoproj/aws-auth", keiko), ("the same with --retry", keiko_retrying)]
        else:
            print("keikoproj/aws-auth is not measured, because aws-auth is not on PATH")
        rows += [("ours, as a command", command), ("ours, in one process", call)]
        for name, writer in rows:
            reset()
            _, alone = storm(writer, 1)
            reset()
            landed[writer], took = storm(writer, writers)
            count = f"{landed[writer]} of {writers}"
            print(f"{name:26}{alone:>10.2f} s{took:>12.2f} s{count:>12}   {lost()}", flush=True)
        reset()
        storm(command, writers)
        left, took = storm(partial(command, action="remove"), writers)
        same = "nothing; byte for byte as before" if data() == DATA else "the map CHANGED"
        print(f"{'ours, removing entries':26}{'':12}{took:>12.2f} s{f'{left} left':>12}   {same}")
        print(f"entries in the map, ours : get | awk | patch = {landed[command] / max(landed[guide], 1):.0f} : 1")


if __name__ == "__main__":
    main()
