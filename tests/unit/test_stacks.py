"""Which stacks a change touches."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.stacks import all_stacks, touched
from sandbox.engine import ROOT

STACKS = ["europe", "us.east"]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (["Pulumi.europe.yaml"], ["europe"]),
        (["Pulumi.us.east.yaml", "README.md"], ["us.east"]),
        (["teleport_eks/host.py"], STACKS),
        (["Pulumi.europe.yaml", "teleport_eks/userdata/files/bootstrap"], STACKS),
        (["Pulumi.yaml"], STACKS),
        (["uv.lock"], STACKS),
        (["a-new-folder/file"], STACKS),
        (["Pulumi.dev.yaml"], []),
        (["Pulumi.gone.yaml"], []),
        (
            [
                "docs/security.md",
                "tests/unit/test_host.py",
                "sandbox/engine.py",
                "fleet/run.py",
                ".github/workflows/up.yaml",
            ],
            [],
        ),
        (["ci/roles/Pulumi.europe.yaml"], []),
        ([], []),
    ],
)
def test_a_change_touches_its_stack_and_code_all_of_them(changed: list[str], expected: list[str]) -> None:
    assert touched(changed, STACKS) == expected


def test_the_command_prints_the_matrix_for_the_workflow(tmp_path: Path) -> None:
    for name in ("Pulumi.yaml", "Pulumi.dev.yaml", "Pulumi.europe.yaml", "Pulumi.us.east.yaml", "Pulumi.$(id).yaml"):
        (tmp_path / name).touch()
    assert all_stacks(tmp_path) == STACKS

    def run(*arguments: str, changed: str = "") -> subprocess.CompletedProcess:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "fleet.stacks", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, input=changed, capture_output=True, text=True)

    assert run(changed="Pulumi.europe.yaml\0README.md\0").stdout == '["europe"]\n'
    assert run(changed="").stdout == "[]\n"
    assert json.loads(run("--all").stdout) == STACKS
    assert run("--only", "us.east").stdout == '["us.east"]\n'
    assert "there are: europe, us.east" in run("--only", "asia").stderr
