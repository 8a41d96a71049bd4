"""The workflows, the scripts that they call, and the AWS roles that they take."""

import fnmatch
import http.server
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml
from pulumi.runtime import mocks

from ci import previews
from ci.comment import LIMIT, MARKER, Preview, block, comment, read
from ci.drift import marker, report
from ci.github import Repository
from ci.redact import redact
from ci.roles import pipeline_roles
from ci.roles.pipeline_roles import PipelineRoles, PipelineRolesArgs, Scope, policy, reading, trust, writing
from ci.stacks import all_stacks, touched
from tests.recorder import record

ROOT = Path(__file__).parents[2]
WORKFLOWS = {path.stem: path.read_text() for path in (ROOT / ".github/workflows").glob("*.yaml")}
ACTION = (ROOT / ".github/actions/stack/action.yaml").read_text()
JOBS = [(file, name, job) for file, text in WORKFLOWS.items() for name, job in yaml.safe_load(text)["jobs"].items()]


# which stacks

STACKS = ["europe", "us.east"]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (["Pulumi.europe.yaml"], ["europe"]),
        (["Pulumi.us.east.yaml", "README.md"], ["us.east"]),
        (["components/host.py"], STACKS),
        (["Pulumi.europe.yaml", "userdata/files/bootstrap"], STACKS),
        (["Pulumi.yaml"], STACKS),
        (["uv.lock"], STACKS),
        (["a-new-folder/file"], STACKS),
        (["Pulumi.dev.yaml"], []),
        (["Pulumi.gone.yaml"], []),
        (["docs/security.md", "tests/unit/test_host.py", "sandbox/engine.py", ".github/workflows/up.yaml"], []),
        (["ci/roles/Pulumi.europe.yaml"], []),
        ([], []),
    ],
)
def test_a_change_touches_its_stack_and_code_all_of_them(changed: list[str], expected: list[str]) -> None:
    assert touched(changed, STACKS) == expected


def test_from_git_to_the_matrix(tmp_path: Path) -> None:
    for name in ("Pulumi.yaml", "Pulumi.dev.yaml", "Pulumi.europe.yaml", "Pulumi.us.east.yaml", "Pulumi.$(id).yaml"):
        (tmp_path / name).touch()
    assert all_stacks(tmp_path) == STACKS, "without the sandbox's, and without names that are none"

    def run(*arguments: str, changed: str = "") -> subprocess.CompletedProcess:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "ci.stacks", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, input=changed, capture_output=True, text=True)

    assert run(changed="Pulumi.europe.yaml\0README.md\0").stdout == '["europe"]\n'
    assert run(changed="").stdout == "[]\n"
    assert json.loads(run("--all").stdout) == STACKS
    assert run("--only", "us.east").stdout == '["us.east"]\n'
    assert "there are: europe, us.east" in run("--only", "asia").stderr


# the comment

CHANGED = """Previewing update (europe):
    +-aws:ec2/instance:Instance: (replace)
      ~ aws:ec2/securityGroup:SecurityGroup: (update)
Resources:
    + 2 to create
    ~ 1 to update
    +-3 to replace
    6 changes. 30 unchanged
"""


def test_one_table_for_all_stacks_and_a_text_for_those_that_change() -> None:
    shown = comment(
        [
            Preview("europe", "changes", CHANGED),
            Preview("asia", "same", "Resources:\n    36 unchanged"),
            Preview("africa", "failed", "error: no such cluster"),
        ],
        commit="0123456789abcdef",
        details="https://example.com/run",
    )
    assert shown.startswith(MARKER + "\n### Preview of 0123456789\n")
    assert "| europe | changes | 2 | 1 | 3 |  |" in shown
    assert "| asia | no change |  |  |  |  |" in shown
    assert "| africa | **failed** |" in shown
    assert re.findall("<summary>(.*)</summary>", shown) == ["europe", "africa"]
    assert "\n!       aws:ec2/securityGroup:SecurityGroup: (update)\n" in shown, "where GitHub colours it"
    assert shown.rstrip().endswith("[All of it](https://example.com/run)")


def test_a_change_without_a_stack_says_so() -> None:
    assert "touches no stack" in comment([])


def test_a_job_that_ended_early_is_not_taken_for_no_change(tmp_path: Path) -> None:
    (tmp_path / "europe.status").write_text("same")
    (tmp_path / "europe.txt").write_text("Resources:\n    36 unchanged")
    (tmp_path / "asia.txt").write_text("half of")
    assert [p.status for p in read(tmp_path, ["europe", "asia", "africa"])] == ["same", "missing", "missing"]
    assert "| asia | **no preview** |" in comment(read(tmp_path, ["asia"]))


@pytest.mark.parametrize("stacks", [1, 50, 300])
def test_however_much_there_is_it_fits_and_every_stack_is_in_the_table(stacks: int) -> None:
    long = "\n".join(f"line {number} {'x' * (number % 700)}" for number in range(1_000)) + "\nerror: the end"
    many = [Preview(f"stack-{number}", "changes", long) for number in range(stacks)]
    shown = comment([*many, Preview("short", "failed", "error: short")], details="https://example.com/run")
    assert len(shown) <= LIMIT < 65_536
    assert shown.count("| changes |") == stacks
    assert shown.count("<details>") == shown.count("</details>") > 0
    assert "error: short" in shown, "a long one takes the room from no other"
    assert "[All of it](https://example.com/run)" in shown
    if stacks == 1:
        assert "line 0 " in shown
        assert "lines are left out" in shown
        assert "error: the end" in shown, "what went wrong is at the end"


def test_a_text_stays_in_its_block() -> None:
    shown = block("a\n````\n</details>\n@everybody\n", 1000)
    assert shown.splitlines()[0] == "`````diff"
    assert shown.splitlines()[-1] == "`````"
    assert len(block("y" * 100_000, 1000)) < 600, "a line of user data is cut"


# secrets


def test_credentials_never_reach_the_text() -> None:
    environment = {"AWS_SESSION_TOKEN": "FwoGZXIvYXdzEJr", "PULUMI_CONFIG_PASSPHRASE": "", "PATH": "/usr/bin:/bin"}
    secrets = [
        "FwoGZXIvYXdzEJr",
        "ASIA" + "ABCDEFGHIJKLMNOP",
        "ghs_" + "a" * 36,
        "github_pat_" + "a" * 60,
        "pul-" + "0a" * 20,
        "k8s-aws-v1." + "aHR0cHM6Ly9zdHMu" * 3,
        "eyJhbGciOiJS.eyJzdWIiOiJy.c2ln",
        "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----",
    ]
    said = redact("\n".join(f"before {secret} after" for secret in secrets) + "\n/usr/bin:/bin", environment)
    assert said.splitlines() == ["before [secret] after"] * len(secrets) + ["/usr/bin:/bin"]


# a preview


@pytest.fixture
def fake_pulumi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `pulumi` that says what its file ``says`` has, and its arguments, and ends with the first line's status."""
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin/pulumi"
    script.write_text(f'#!/bin/sh\necho "$@"\ntail -n +2 {tmp_path}/says\nexit "$(head -n 1 {tmp_path}/says)"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=os.pathsep)
    return tmp_path


UNEXPECTED = "Resources:\n    ~ 1 to update\nerror: no changes were expected for preview but changes were proposed"


@pytest.mark.parametrize(
    ("says", "arguments", "status", "code"),
    [
        ("0\nResources:\n    36 unchanged", [], "same", 0),
        (f"0\n{CHANGED}", [], "changes", 0),
        ("255\nerror: no cluster", [], "failed", 1),
        (f"255\n{UNEXPECTED}", ["--drift"], "changes", 0),
        ("0\nResources:\n    36 unchanged", ["--drift"], "same", 0),
        ("255\nerror: no cluster", ["--drift"], "failed", 1),
    ],
)
def test_a_preview_is_written_down_with_its_status(
    fake_pulumi: Path, says: str, arguments: list[str], status: str, code: int
) -> None:
    (fake_pulumi / "says").write_text(says)
    output = fake_pulumi / "out"
    assert previews.main([*arguments, "--output", str(output), "europe"]) == code
    assert (output / "europe.status").read_text() == status
    line, *rest = (output / "europe.txt").read_text().splitlines()
    assert rest == says.splitlines()[1:]
    assert line.startswith("preview --stack europe --non-interactive")
    assert ("--refresh --expect-no-changes" in line) == ("--drift" in arguments)
    assert "--show-secrets" not in line


def test_a_preview_ends_with_the_comment_and_takes_out_credentials(
    fake_pulumi: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("PULUMI_ACCESS_TOKEN", "canary-1234")
    (fake_pulumi / "says").write_text(f"0\n{CHANGED}the token is canary-1234\n")
    assert previews.main(["europe"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(MARKER)
    assert "the token is [secret]" in shown
    assert "canary" not in shown


def test_the_script_of_the_workflow_previews_the_sandbox_here() -> None:
    done = subprocess.run([ROOT / "ci/preview", "dev"], cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\| dev \| changes \| [1-9]\d+ \|", done.stdout)
    assert "aws:ec2/instance:Instance" in done.stdout


# GitHub


class FakeGitHub(http.server.BaseHTTPRequestHandler):
    """The comments of pull request 7, and the issues, of one repository."""

    comments: list[dict]
    issues: list[dict]

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        sent = json.loads(self.rfile.read(length)) if length else {}
        assert self.headers["Authorization"] == "Bearer token"
        path, _, query = self.path.removeprefix("/repos/acme/teleport-eks/").partition("?")
        if path.startswith("issues/comments/") or re.fullmatch(r"issues/7/comments", path):
            things = self.comments
        else:
            things = self.issues
        if self.command == "GET":
            page = int(re.search(r"[^_]page=(\d+)", query)[1])  # type: ignore[index]
            found: Any = [t for t in things if t.get("state") != "closed"][(page - 1) * 100 : page * 100]
        elif self.command == "POST":
            found = {"id": len(things) + 1, "number": len(things) + 1, "user": {"type": "Bot"}, **sent}
            things.append(found)
        else:
            found = next(t for t in things if str(t["id"]) == path.rpartition("/")[2])
            found.update(sent)
        data = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PATCH = answer  # noqa: N815 - http.server's names

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeGitHub]]:
    handler = type("Handler", (FakeGitHub,), {"comments": [], "issues": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("GITHUB_API_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("GITHUB_REPOSITORY", "acme/teleport-eks")
    monkeypatch.setenv("GITHUB_TOKEN", "token")
    yield handler
    server.shutdown()
    server.server_close()


def test_there_is_one_comment_however_often_it_is_written(github: type[FakeGitHub]) -> None:
    github.comments += [{"id": n, "body": "nice", "user": {"type": "User"}} for n in range(1, 151)]
    quoted = {"id": 151, "body": comment([]), "user": {"type": "User"}}
    github.comments.append(quoted)
    Repository().keep_comment(7, comment([]))
    Repository().keep_comment(7, comment([Preview("europe", "failed", "error: x")]))
    assert len(github.comments) == 152
    assert "error: x" in github.comments[-1]["body"]
    assert "error: x" not in quoted["body"], "somebody's own words are not written over"


def test_one_issue_for_each_stack_as_long_as_it_drifts(github: type[FakeGitHub]) -> None:
    drifted, clean = Preview("europe", "changes", "~ a rule"), Preview("europe", "same", "")
    other = Preview("asia", "changes", "~ a tag")
    assert report([drifted, other], Repository()) == [
        "europe: has drifted, opened #1",
        "asia: has drifted, opened #2",
    ]
    assert github.issues[0]["title"] == "Drift: europe"
    assert github.issues[0]["labels"] == ["drift"]
    assert github.issues[0]["body"].startswith(marker("europe"))
    report([Preview("europe", "changes", "~ another rule"), other], Repository())
    assert len(github.issues) == 2
    assert "~ another rule".replace("~", "!") in github.issues[0]["body"].replace("~", "!")

    assert report([Preview("europe", "failed", "error"), Preview("asia", "missing", "")], Repository()) == []
    assert report([clean, other], Repository())[0] == "europe: is clean, closed #1"
    assert [issue.get("state") for issue in github.issues] == ["closed", None]
    assert report([drifted], Repository()) == ["europe: has drifted, opened #3"], "a new drift is a new issue"


# the workflows


@pytest.mark.parametrize("text", [*WORKFLOWS.values(), ACTION], ids=[*WORKFLOWS, "action"])
def test_every_action_is_pinned_by_digest_with_its_release(text: str) -> None:
    used = [line.strip() for line in text.splitlines() if re.match(r"\s*(- )?uses:", line)]
    assert used
    for line in used:
        assert re.search(r"uses: (\./|[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$)", line), line


def test_an_action_has_one_digest_everywhere() -> None:
    used = re.findall(r"([\w/-]+)@([0-9a-f]{40}) # (v\S+)", "\n".join([*WORKFLOWS.values(), ACTION]))
    assert len(set(used)) == len({name for name, _, _ in used})


def test_the_cli_is_the_release_that_the_sdk_is_of() -> None:
    locked = re.search(r'name = "pulumi"\nversion = "(.*)"', (ROOT / "uv.lock").read_text())
    assert locked
    assert f"pulumi-version: {locked[1]}\n" in ACTION


@pytest.mark.parametrize("file", WORKFLOWS)
def test_nothing_is_permitted_but_to_a_job_that_needs_it(file: str) -> None:
    assert yaml.safe_load(WORKFLOWS[file])["permissions"] == {}
    assert "pull_request_target" not in WORKFLOWS[file]


def test_each_jobs_permissions() -> None:
    beyond = {f"{file}/{name}": set(job["permissions"]) - {"contents"} for file, name, job in JOBS}
    assert {job: permissions for job, permissions in beyond.items() if permissions} == {
        "preview/preview": {"id-token"},
        "preview/comment": {"pull-requests"},
        "up/up": {"id-token"},
        "drift/look": {"id-token"},
        "drift/report": {"issues"},
    }
    assert {job["permissions"]["contents"] for _, _, job in JOBS} == {"read"}


@pytest.mark.parametrize(("file", "name", "job"), JOBS, ids=[f"{file}/{name}" for file, name, _ in JOBS])
def test_a_job_ends_keeps_no_token_and_takes_words_only_as_variables(file: str, name: str, job: dict) -> None:
    assert job["timeout-minutes"] <= 60
    for step in job["steps"]:
        assert "${{" not in step.get("run", ""), "an expression in a script is code"
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False
    if "id-token" in job["permissions"]:
        # What the role's trust names.
        stack = "${{ matrix.stack }}"
        assert job["environment"] == (stack if file == "up" else f"{stack}-preview"), name
        assert job["strategy"]["fail-fast"] is False


def test_a_fork_is_skipped_and_an_up_is_never_stopped() -> None:
    preview, up = yaml.safe_load(WORKFLOWS["preview"])["jobs"], yaml.safe_load(WORKFLOWS["up"])["jobs"]
    assert preview["stacks"]["if"] == "github.event.pull_request.head.repo.full_name == github.repository"
    assert preview["preview"]["needs"] == "stacks"
    assert preview["preview"]["concurrency"]["cancel-in-progress"] is True
    assert "matrix.stack" in preview["preview"]["concurrency"]["group"]
    assert up["up"]["concurrency"] == {"group": "up-${{ matrix.stack }}", "cancel-in-progress": False}


def test_the_previews_of_a_pull_request_are_of_its_own_changes(tmp_path: Path) -> None:
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


# the roles

SCOPE = Scope(
    partition="aws",
    account_id="123456789012",
    region="eu-west-1",
    stack="production",
    cluster="demo",
    zone_id="Z1",
    domain_name="teleport.example.com",
    state_bucket="state",
    secrets_key_arn="arn:aws:kms:eu-west-1:123456789012:key/1",
)


def actions(statements: list[dict]) -> set[str]:
    return {action for statement in statements for action in statement["Action"]}


READS = re.compile(r"\w+:(Describe|Get|List|Decrypt)\w*")
# Which IAM limits to no resource: their statements say "*".
UNLIMITED = re.compile(r"ec2:Describe\w+|eks:ListClusters|ssm:DescribeParameters|route53:ListHostedZones")


def test_the_preview_role_only_reads() -> None:
    assert [action for action in actions(reading(SCOPE)) if not READS.fullmatch(action)] == []


def test_no_statement_is_wider_than_iam_makes_it() -> None:
    for statement in [*reading(SCOPE), *writing(SCOPE)]:
        assert statement["Effect"] == "Allow"
        assert not [action for action in statement["Action"] if "*" in action]
        if statement["Resource"] == "*" and statement["Action"] != ["dlm:CreateLifecyclePolicy"]:
            assert [action for action in statement["Action"] if not UNLIMITED.fullmatch(action)] == []


def test_a_role_is_passed_only_to_the_service_that_it_is_for() -> None:
    passed = [s for s in writing(SCOPE) if "iam:PassRole" in s["Action"]]
    assert [s["Condition"]["StringEquals"]["iam:PassedToService"] for s in passed] == [
        "ec2.amazonaws.com",
        "dlm.amazonaws.com",
    ]


def test_the_up_role_restores_the_stacks_own_snapshots_and_no_others() -> None:
    snapshot = "arn:aws:ec2:eu-west-1::snapshot/snap-0123456789abcdef0"
    allowed = [s for s in writing(SCOPE) if "ec2:CreateVolume" in s["Action"]]
    (restore,) = [s for s in allowed if isinstance(s["Resource"], str) and fnmatch.fnmatch(snapshot, s["Resource"])]
    assert restore["Condition"] == {"StringEquals": {f"aws:ResourceTag/{pipeline_roles.SNAPSHOTS_OF}": "production"}}


def test_without_zone_bucket_and_key_there_is_nothing_about_them() -> None:
    bare = Scope("aws", "123456789012", "eu-west-1", "production", "demo")
    assert not {a.partition(":")[0] for a in actions(reading(bare)) | actions(writing(bare))} & {"route53", "s3", "kms"}


def test_a_policy_fits_into_a_role() -> None:
    assert len(policy(reading(SCOPE))) + len(policy(writing(SCOPE))) < 10_240, "the limit of all inline policies"


@pytest.mark.parametrize("repository", ["acme/teleport-eks", "acme@12/teleport-eks@345"])
def test_only_the_environment_of_the_stack_is_trusted(repository: str) -> None:
    (statement,) = json.loads(trust("arn:provider", repository, "production-preview"))["Statement"]
    assert statement["Condition"] == {
        "StringEquals": {
            "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
            "token.actions.githubusercontent.com:sub": f"repo:{repository}:environment:production-preview",
        }
    }


@pytest.mark.parametrize("repository", ["acme", "acme/*", "acme/a:environment:x", "", "a/b/c"])
def test_a_repository_that_would_widen_the_trust_is_refused(repository: str) -> None:
    with pytest.raises(ValueError, match="owner/name"):
        trust("arn:provider", repository, "production")


def test_two_roles_and_only_one_can_write() -> None:
    declared = record(lambda: PipelineRoles("ci", PipelineRolesArgs("acme/teleport-eks", "arn:provider", SCOPE)))
    subjects = {
        json.loads(role["assumeRolePolicy"])["Statement"][0]["Condition"]["StringEquals"][
            "token.actions.githubusercontent.com:sub"
        ]
        for role in declared.of("aws:iam/role:Role")
    }
    base = "repo:acme/teleport-eks:environment:production"
    assert subjects == {base, f"{base}-preview"}
    policies = {(p["role"], p["policy"]) for p in declared.of("aws:iam/rolePolicy:RolePolicy")}
    read, write = policy(reading(SCOPE)), policy(writing(SCOPE))
    assert policies == {("ci-preview", read), ("ci", read), ("ci", write)}


@pytest.mark.parametrize("create_provider", ["true", "false"])
def test_the_program_of_the_roles_takes_the_stacks_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, create_provider: str
) -> None:
    class Engine(mocks.Mocks):
        def __init__(self) -> None:
            self.types: list[str] = []
            self.policies: list[str] = []

        def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict]:
            self.types.append(args.typ)
            self.policies.append(args.inputs.get("policy", ""))
            return args.name, {"arn": f"arn:{args.name}", "name": args.name, **args.inputs}

        def call(self, args: mocks.MockCallArgs) -> Any:
            found = {"partition": "aws", "accountId": "123456789012", "zoneId": "Z1", "arn": "arn:provider"}
            return {"id": "x", **args.args, **found}

    folder = tmp_path / "ci/roles"
    shutil.copytree(ROOT / "ci/roles", folder)
    (tmp_path / "Pulumi.production.yaml").write_text(
        "config: {aws:region: eu-west-1, teleport-eks:clusterName: demo, teleport-eks:hostedZone: example.com,"
        " teleport-eks:domainName: teleport.example.com}"
    )
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    engine = Engine()
    pulumi.runtime.set_all_config(
        {"teleport-eks-ci:repository": "acme/teleport-eks", "teleport-eks-ci:createProvider": create_provider}
    )
    mocks.set_mocks(engine, "teleport-eks-ci", "production", preview=False)

    @pulumi.runtime.test
    def run() -> None:
        runpy.run_path(str(folder / "__main__.py"), run_name="__main__")

    run()
    assert engine.types.count("aws:iam/role:Role") == 2
    assert ("aws:iam/openIdConnectProvider:OpenIdConnectProvider" in engine.types) == (create_provider == "true")
    assert any("hostedzone/Z1" in text and "teleport.example.com" in text for text in engine.policies)


def test_in_the_cluster_the_preview_only_reads() -> None:
    documents = list(yaml.safe_load_all((ROOT / "ci/roles/cluster.yaml").read_text()))
    rules = {d["metadata"]["name"]: d["rules"] for d in documents if d["kind"] == "ClusterRole"}
    assert {verb for rule in rules["teleport-eks-preview"] for verb in rule["verbs"]} == {"get"}
    for rule in rules["teleport-eks-up"]:
        assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]
        if "bind" in rule["verbs"]:
            assert "cluster-admin" not in rule["resourceNames"]
