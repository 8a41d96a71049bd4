"""The proxy in another program: the example, and what such a program installs."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from sandbox import engine
from sandbox.account import Account, made_up
from sandbox.engine import ROOT

SECRET = {"secure": "of another key"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Another program's folder, with the environment that it must have."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


@pytest.mark.usefixtures("pulumi_cli")
def test_the_examples_two_proxies_keep_out_of_each_others_way(folder: Path) -> None:
    shutil.copytree(ROOT / "examples/two-clusters", folder, dirs_exist_ok=True)
    config = {f"two-clusters:{cluster}ClientId": "Iv1.1" for cluster in ("production", "staging")}
    config |= {f"two-clusters:{cluster}ClientSecret": SECRET for cluster in ("production", "staging")}
    with made_up(["production", "staging"]) as account:
        previewed = engine.preview("all", account, config, folder)

    resources = {(r.type, r.urn.rpartition("::")[2]): r.inputs for r in previewed.resources}
    assert len(resources) == len(previewed.resources)
    proxies = [name for kind, name in resources if kind == "teleport-eks:index:TeleportProxy"]
    assert sorted(proxies) == ["production", "staging"]
    bound = {name: i["roleRef"]["name"] for (_, name), i in resources.items() if name.endswith("-access-acme-shop")}
    assert bound == {"production-cluster-access-acme-shop": "view", "staging-cluster-access-acme-shop": "edit"}
    paths = {i["name"].split("/")[2] for (kind, _), i in resources.items() if kind == "aws:ssm/parameter:Parameter"}
    assert paths == {"two-clusters-production", "two-clusters-staging"}


def test_the_documents_example_runs(account: Account, folder: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/library.md").read_text(), re.DOTALL)
    (folder / "__main__.py").write_text(program)
    (folder / "Pulumi.yaml").write_text("name: documented\nruntime: python\n")
    nodes = engine.preview("test", account, {}, folder).nodes()
    assert [node.name for node in nodes if node.type == "teleport-eks:index:TeleportProxy"] == ["staging"]


def test_what_another_program_installs_is_complete(tmp_path: Path) -> None:
    build = [f"{sys.prefix}/bin/uv", "build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = zipfile.ZipFile(wheel)
    wanted = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "teleport_eks").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert len(wanted) > 25
    assert wanted <= set(packed.namelist())

    packed.extractall(tmp_path / "installed")
    command = [sys.executable, "-m", "teleport_eks.aws_auth", "--help"]
    done = subprocess.run(
        command, cwd=tmp_path / "installed", env={"PYTHONPATH": "."}, capture_output=True, text=True, check=True
    )
    assert "--role-arn" in done.stdout
