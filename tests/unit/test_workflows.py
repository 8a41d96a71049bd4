"""The workflows: their permissions, and their scripts, which run here as they are there.

zizmor, in `make lint`, finds an action without a digest, a token that a checkout leaves behind, a dangerous trigger,
and a workflow that does not set permissions.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from sandbox.engine import ROOT

WORKFLOWS = {path.stem: path.read_text() for path in (ROOT / ".github/workflows").glob("*.yaml")}
ACTION = (ROOT / ".github/actions/stack/action.yaml").read_text()
JOBS = [(file, name, job) for file, text in WORKFLOWS.items() for name, job in yaml.safe_load(text)["jobs"].items()]


def test_an_action_has_one_digest_everywhere() -> None:
    used = re.findall(r"([\w/-]+)@([0-9a-f]{40}) # (v\S+)", "\n".join([*WORKFLOWS.values(), ACTION]))
    assert len(set(used)) == len({name for name, _, _ in used})


def test_the_cli_and_the_sdk_are_the_same_release() -> None:
    locked = re.search(r'name = "pulumi"\nversion = "(.*)"', (ROOT / "uv.lock").read_text())
    assert locked
    assert f"pulumi-version: {locked[1]}\n" in ACTION


def test_each_job_has_only_the_permissions_that_it_needs() -> None:
    beyond = {f"{file}/{name}": set(job["permissions"]) - {"contents"} for file, name, job in JOBS}
    assert {job: permissions for job, permissions in beyond.items() if permissions} == {
        "preview/preview": {"id-token", "pull-requests"},
        "up/up": {"id-token"},
        "drift/drift": {"id-token", "issues"},
    }
    assert {job["permissions"]["contents"] for _, _, job in JOBS} == {"read"}


@pytest.mark.parametrize(("file", "name", "job"), JOBS, ids=[f"{file}/{name}" for file, name, _ in JOBS])
def test_a_job_has_a_time_limit_its_environment_and_no_expression_in_a_script(file: str, name: str, job: dict) -> None:
    assert job["timeout-minutes"] <= 60
    for step in job["steps"]:
        assert "${{" not in step.get("run", ""), "an expression in a script is code"
    if "id-token" in job["permissions"]:
        # What the role's trust names.
        stack = "${{ matrix.stack }}"
        assert job["environment"] == (stack if file == "up" else f"{stack}-preview"), name
        assert job["strategy"]["fail-fast"] is False


def test_a_fork_gets_no_preview_and_an_up_is_never_cancelled() -> None:
    preview, up = yaml.safe_load(WORKFLOWS["preview"])["jobs"], yaml.safe_load(WORKFLOWS["up"])["jobs"]
    assert preview["stacks"]["if"] == "github.event.pull_request.head.repo.full_name == github.repository"
    assert preview["preview"]["needs"] == "stacks"
    assert preview["preview"]["concurrency"]["cancel-in-progress"] is True
    assert "matrix.stack" in preview["preview"]["concurrency"]["group"]
    assert up["up"]["concurrency"] == {"group": "up-${{ matrix.stack }}", "cancel-in-progress": False}


def test_a_pull_request_previews_only_the_stacks_that_it_changes(tmp_path: Path) -> None:
    """The step as it is in the workflow, on a merge as GitHub makes it."""
    step = next(s for s in yaml.safe_load(WORKFLOWS["preview"])["jobs"]["stacks"]["steps"] if "run" in s)

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    def commit(name: str) -> None:
        (tmp_path / name).write_text(name)
        git("add", ".")
        git("commit", "-m", name)

    git("init", "-b", "main")
    for name in ("Pulumi.europe.yaml", "Pulumi.asia.yaml"):
        commit(name)
    git("checkout", "-b", "change")
    (tmp_path / "Pulumi.europe.yaml").write_text("changed")
    git("commit", "-am", "change")
    git("checkout", "main")
    commit("code-that-main-got-meanwhile.py")
    git("merge", "--no-ff", "change")

    environment = {**os.environ, "GITHUB_OUTPUT": str(tmp_path / "output"), "PYTHONPATH": str(ROOT)}
    subprocess.run(["bash", "-eo", "pipefail", "-c", step["run"]], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "output").read_text() == 'stacks=["europe"]\n'


def test_a_preview_comments_with_the_policies_and_without_outputs() -> None:
    (step,) = [s for s in yaml.safe_load(WORKFLOWS["preview"])["jobs"]["preview"]["steps"] if "with" in s][-1:]
    assert step["uses"].startswith("pulumi/actions@")
    asked = {"command": "preview", "comment-on-pr": True, "suppress-outputs": True, "policyPacks": "policy"}
    assert asked.items() <= step["with"].items()
    assert "edit-pr-comment" not in step["with"], "by default it edits its comment"


@pytest.mark.parametrize(
    ("code", "number", "expected"),
    [
        (0, "", []),
        (0, "7", ["issue close 7"]),
        (3, "", ["label create drift", "issue create --title Drift: europe --label drift --body-file body.md"]),
        (3, "7", ["issue edit 7 --body-file body.md"]),
        (1, "7", None),
    ],
)
def test_an_issue_is_open_while_a_stack_drifts(
    tmp_path: Path, code: int, number: str, expected: list[str] | None
) -> None:
    """The job's two scripts, with a runner that exits with ``code``, and a `gh` that knows the issue ``number``."""
    drift, report = [s for s in yaml.safe_load(WORKFLOWS["drift"])["jobs"]["drift"]["steps"] if "run" in s]
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".fleet").mkdir()
    (tmp_path / ".fleet/europe.log").write_text("~ a rule </pre> & more\n")
    for name, script in {
        ".venv/bin/python": f'[ "$*" = "-m fleet drift europe" ] && exit {code}',
        "gh": f'echo "$*" >> calls; case "$*" in "issue list "*) echo "{number}";; esac',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    def run(step: dict, **variables: str) -> int:
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "STACK": "europe", **variables}
        return subprocess.run(["bash", "-e", "-c", step["run"]], cwd=tmp_path, env=environment).returncode

    failed = run(drift, GITHUB_OUTPUT=str(tmp_path / "output"))
    assert bool(failed) == (expected is None), "a preview that fails changes no issue"
    if expected is None:
        return
    assert (tmp_path / "output").read_text() == f"status={code}\n"
    assert run(report, STATUS=str(code), RUN="https://example.com/run") == 0
    listed, *called = (tmp_path / "calls").read_text().splitlines()
    assert 'select(.title == "Drift: europe")' in listed
    assert len(called) == len(expected)
    assert all(call.startswith(start) for call, start in zip(called, expected, strict=True))
    if code:
        assert "\n~ a rule &lt;/pre> &amp; more\n" in (tmp_path / "body.md").read_text(), "the text stays in its block"
