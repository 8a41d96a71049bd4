"""The proxy in another program: the example, and what such a program installs."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

from sandbox.account import Account, made_up
from sandbox.rehearsal import ROOT, Rehearsal

PROGRAM = ROOT / "examples/two-clusters/__main__.py"


def test_the_examples_two_proxies_keep_out_of_each_others_way() -> None:
    secrets = {"teleport-eks:productionClientSecret": "hush", "teleport-eks:stagingClientSecret": "hush"}
    ids = {"teleport-eks:productionClientId": "Iv1.1", "teleport-eks:stagingClientId": "Iv1.2"}
    with made_up(["production", "staging"]) as account:
        keys = [*secrets]
        rehearsal = Rehearsal(account, ids | secrets, secret_keys=keys, preview=True, program=PROGRAM, progress=len)
        rehearsal.run()

    urns = [resource.urn for resource in rehearsal.resources]
    assert sorted(urns) == sorted(set(urns))
    proxies = [r.name for r in rehearsal.resources if r.type == "teleport-eks:index:TeleportProxy"]
    assert proxies == ["production", "staging"]
    roles = [r.inputs["roleRef"]["name"] for r in rehearsal.resources if r.name.endswith("-cluster-access-acme-shop")]
    assert roles == ["view", "edit"]
    paths = {r.inputs["name"].split("/")[2] for r in rehearsal.resources if r.type == "aws:ssm/parameter:Parameter"}
    assert paths == {"two-clusters-production", "two-clusters-staging"}


def test_the_documents_example_runs(account: Account, tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/library.md").read_text(), re.DOTALL)
    (tmp_path / "__main__.py").write_text(program)
    rehearsal = Rehearsal(account, {}, preview=True, program=tmp_path / "__main__.py", progress=len)
    rehearsal.run()
    assert [r.name for r in rehearsal.resources if r.type == "teleport-eks:index:TeleportProxy"] == ["staging"]


def test_what_another_program_installs_is_complete(tmp_path: Path) -> None:
    build = [f"{sys.prefix}/bin/uv", "build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = zipfile.ZipFile(wheel)
    wanted = {
        str(path.relative_to(ROOT))
        for folder in ("components", "userdata")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert len(wanted) > 25
    assert wanted <= set(packed.namelist())

    packed.extractall(tmp_path / "installed")
    command = [sys.executable, "-m", "components.aws_auth", "--help"]
    done = subprocess.run(
        command, cwd=tmp_path / "installed", env={"PYTHONPATH": "."}, capture_output=True, text=True, check=True
    )
    assert "--role-arn" in done.stdout
