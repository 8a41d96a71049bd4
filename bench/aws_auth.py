"""The aws-auth editor: large maps, many writers at once on a real API server, and other tools.

The other tools are the pipeline of the 2019 guide, and keikoproj/aws-auth if the command ``aws-auth`` is on PATH. A
writer of another tool, and of ours as a command, is a process of its own, as if each ran on another machine.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import yaml
from kubernetes.client import ApiException, CoreV1Api

from bench.measure import Curve, Results, cost
from sandbox.binaries import binaries
from sandbox.control_plane import ControlPlane
from teleport_eks.aws_auth import text
from teleport_eks.aws_auth.configmap import NAME, NAMESPACE, connect, edit, with_entry
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


WRITERS, STORMS = 30, (1, 3, 10, 30, 100, 300)
ENTRIES = (0, 100, 1000, 5000)  # the last are close to the 1 MiB that a ConfigMap holds
ITEM = """\
- rolearn: {0}/some-team-with-a-name-{1:04}
  username: 'some:{{{{SessionName}}}}'
  groups:
    - some:{1:04}
    - all:developers:of:the:company
"""
TIMES = 3

Writer = Callable[[str], object]


def measure(results: Results) -> None:
    _large_maps(results)
    kubectl = binaries("kubectl")["kubectl"]
    with tempfile.TemporaryDirectory() as folder, ControlPlane.start(Path(folder, "control-plane")) as plane:
        api = CoreV1Api(connect(str(plane.kubeconfig)))

        def guide(arn: str) -> None:
            variables = {"ARN": arn, "FILE": f"{folder}/{arn.rpartition('/')[2]}.yaml", "KUBECTL": str(kubectl)}
            environment = {"PATH": os.defpath, "HOME": folder, "KUBECONFIG": str(plane.kubeconfig), **variables}
            subprocess.run(["bash", "-c", PIPELINE], env=environment, capture_output=True, check=False)

        def keiko(arn: str) -> None:
            entry = ["--maproles", "--rolearn", arn, "--username", "teleport", "--groups", "teleport-group"]
            program = ["aws-auth", "upsert", "--retry", "--kubeconfig", str(plane.kubeconfig)]
            subprocess.run([*program, *entry], capture_output=True, check=False)

        def command(arn: str, action: str = "add") -> None:
            options = ["--role-arn", arn, "--username", "teleport", "--group", "teleport-group"]
            program = [sys.executable, "-m", "teleport_eks.aws_auth", action, "--kubeconfig", str(plane.kubeconfig)]
            subprocess.run([*program, *options], capture_output=True, check=False)

        def call(arn: str) -> None:
            entry = Entry(arn, "teleport", ("teleport-group",))
            edit(connect(str(plane.kubeconfig)), partial(with_entry, entry=entry))

        def data() -> dict[str, str]:
            found = api.read_namespaced_config_map(NAME, NAMESPACE).data
            return found or {}

        def reset() -> None:
            with suppress(ApiException):
                api.delete_namespaced_config_map(NAME, NAMESPACE)
            body: dict = {"metadata": {"name": NAME}, "data": DATA}
            api.create_namespaced_config_map(NAMESPACE, body)  # pyright: ignore[reportArgumentType]

        def storm(writer: Writer, count: int) -> tuple[float, int]:
            """After how many seconds the last writer has ended, and how many entries are in the map then."""
            reset()
            arns = [f"{ACCOUNT}/team-{n}" for n in range(count)]
            began = time.monotonic()
            with ThreadPoolExecutor(count) as pool:
                list(pool.map(writer, arns))
            took = time.monotonic() - began
            return took, len({item.get("rolearn") for item in yaml.safe_load(data()["mapRoles"])} & set(arns))

        def lost() -> int:
            """How many things of others that writers of this storm have lost."""
            now = data()
            gone = [key for key in DATA if key != "mapRoles" and now.get(key) != DATA[key]]
            return len(gone) + sum(mark not in now["mapRoles"] for mark in MARKS.values())

        starts = [cost(lambda: command(f"{ACCOUNT}/one")).wall for _ in range(TIMES)]
        results.median("aws-auth.command", starts, "s", most=0.3)
        tools = {"command": command, "in-process": call, "guide": guide}
        if shutil.which("aws-auth"):
            tools["keiko-retrying"] = keiko
        else:
            print("# keikoproj/aws-auth is not measured, because aws-auth is not on PATH")
        for name, writer in tools.items():
            runs = [storm(writer, WRITERS) for _ in range(1 if writer is command else TIMES)]  # that one is slow
            most = {"most": 1.0} if writer is call else {}
            results.median(f"aws-auth.{WRITERS}-writers.{name}", [took for took, _ in runs], "s", **most)
            ours = {"least": WRITERS} if writer in (command, call) else {}
            results.add(f"aws-auth.{WRITERS}-writers.{name}.landed", min(n for _, n in runs), "entries", **ours)
            ours = {"most": 0} if writer in (command, call) else {}
            results.add(f"aws-auth.{WRITERS}-writers.{name}.lost-of-others", lost(), "things", **ours)
        with ThreadPoolExecutor(WRITERS) as pool:
            storm(command, WRITERS)
            list(pool.map(partial(command, action="remove"), [f"{ACCOUNT}/team-{n}" for n in range(WRITERS)]))
        results.add(
            "aws-auth.removed-again.changed-keys", sum(data().get(k) != v for k, v in DATA.items()), "keys", most=0
        )
        storms = {count: storm(call, count) for count in STORMS}
        points = [(float(count), took) for count, (took, _) in storms.items()]
        results.curve(Curve("writers", "Writers of aws-auth at once, in one process", "writers", "s", {"ours": points}))
        for count, (took, landed) in [*storms.items()][-2:]:
            results.add(f"aws-auth.{count}-writers.in-process", took, "s")
            results.add(f"aws-auth.{count}-writers.in-process.landed", landed, "entries", least=count)


def _large_maps(results: Results) -> None:
    entry = Entry(f"{ACCOUNT}/teleport", "teleport", ("teleport-group",))
    points = []
    for count in ENTRIES:
        data = {"mapRoles": "".join(ITEM.format(ACCOUNT, n) for n in range(count))}

        def add(data: dict[str, str] = data) -> float:
            text.parse.cache_clear()
            began = time.process_time()
            with_entry(data, entry)
            return time.process_time() - began

        results.median(f"aws-auth.edit-{count}-entries.cpu", [add() for _ in range(TIMES)], "s", most=0.1)
        points.append((len(data["mapRoles"]) / 1024, results.figures[-1].value))
    results.curve(Curve("map", "CPU of one edit, by the size of the map", "KiB", "s", {"ours": points}))
