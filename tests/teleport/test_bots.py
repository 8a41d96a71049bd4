"""docs/machines.md: jobs of GitHub Actions that are bots of the stack, and jobs that are not."""

import json
from typing import Any

import pexpect
import pytest
import yaml

from sandbox.engine import ROOT
from tests.boot.rig import Run
from tests.teleport.github import ISSUER, GitHub
from tests.teleport.people import Person
from tests.teleport.stage import NAME, Site
from tests.waiting import wait_for

BOTS, WORKFLOW = (
    yaml.safe_load(block.partition("```")[0])
    for block in (ROOT / "docs/machines.md").read_text().split("```yaml\n")[1:]
)
(BOT,) = BOTS["teleport-eks:bots"]
(JOB,) = WORKFLOW["jobs"].values()
AUTHORIZE, KUBECTL = JOB["steps"][1]["with"], JOB["steps"][2]["run"].split()
GROUPS = {*BOT["kubernetesGroups"], "system:authenticated"}
ON_MAIN = {"ref": "refs/heads/main", "ref_type": "branch"}


def up(site: Site, *bots: dict[str, Any]) -> Run:
    return site.up(bots=json.dumps(bots))


class Job(Person):
    """A job on a runner. ``claims`` is what GitHub says of it."""

    def __init__(self, site: Site, name: str, **claims: str) -> None:
        super().__init__(site.laptop, name, "", site._tools)
        GitHub.jobs[name] = claims

    def authorize(self, **inputs: str) -> str:
        """What teleport-actions/auth-k8s@v2 (v2.0.4) does: tbot with this configuration. Returns what tbot says."""
        given = {**AUTHORIZE, "proxy": f"{NAME}:3080", "kubernetes-cluster": "demo", **inputs}
        output = {
            "type": "kubernetes",
            "destination": {"type": "directory", "symlinks": "try-secure", "path": f"{self.home}/output"},
            "roles": [],
            "kubernetes_cluster": given["kubernetes-cluster"],
        }
        config = {
            "version": "v2",
            "auth_server": given["proxy"],
            "oneshot": True,
            "onboarding": {"join_method": "github", "token": given["token"]},
            "storage": {"type": "memory"},
            "outputs": [output],
        }
        self.laptop.write(f"{self.home}/tbot.yaml", json.dumps(config))
        self.laptop.sh(f"ln -sf {self.home}/output/kubeconfig.yaml {self.home}/kubeconfig")
        of_the_runner = {
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{ISSUER}/token?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": self.login,
        }
        environment = [f"{key}={value}" for key, value in of_the_runner.items()]
        return self.run("env", *environment, "tbot", "start", "-c", f"{self.home}/tbot.yaml").stdout

    def groups(self) -> set[str]:
        """Its groups in the cluster; none if it is not the bot."""
        who = self.run("kubectl", "auth", "whoami", "--output=json")
        return set(json.loads(who.stdout)["status"]["userInfo"]["groups"]) if who.returncode == 0 else set()


def deploy(site: Site, name: str) -> Job:
    """A job of the workflow in docs/machines.md, after its step with auth-k8s."""
    job = Job(site, name, repository=BOT["repository"], environment=JOB["environment"], **ON_MAIN)
    # If it was removed a moment ago, Teleport still believes in the lock for a moment.
    wait_for(lambda: job.authorize() and job.groups(), "the job is not the bot")
    return job


def test_the_job_of_the_right_repository_and_environment(site: Site) -> None:
    up(site, BOT)
    job = deploy(site, "deployer")
    assert job.groups() == GROUPS
    assert "web" in job.can(*KUBECTL)
    assert "forbidden" in job.cannot("kubectl", "get", "pods", "-n", "bank")
    assert "impersonat" in job.cannot(*KUBECTL, "--as=teleport-user", "--as-group=ops")
    events = [json.loads(line) for line in site.host.sh("cat /var/lib/teleport/log/events.log").splitlines()]
    mine = {event["event"] for event in events if event.get("user") == f"bot-{AUTHORIZE['token']}"}
    assert "kube.request" in mine
    bot = site.look(bots=json.dumps([BOT]))["bots"][AUTHORIZE["token"]]
    assert (bot["state"], bot["jobs"]) == ("applied", "acme/shop, environment production")
    assert (bot["kubernetesGroups"], bot["namespaces"]) == (["shop-deployer"], ["shop"])


OF_A_BRANCH = {key: value for key, value in BOT.items() if key != "environment"} | {"branch": "main"}
PRODUCTION = {"environment": "production", **ON_MAIN}


@pytest.mark.parametrize(
    ("token", "claims"),
    [
        ("acme-shop-production", {"repository": "acme/blog", **PRODUCTION}),
        ("acme-shop-production", {"repository": "eve/shop", **PRODUCTION}),
        ("acme-shop-production", {"repository": "acme/shop", **ON_MAIN}),
        ("acme-shop-production", {"repository": "acme/shop", **PRODUCTION, "environment": "test"}),
        ("acme-shop-main", {"repository": "acme/blog", **ON_MAIN}),
        ("acme-shop-main", {"repository": "acme/shop", "ref": "refs/heads/topic", "ref_type": "branch"}),
        ("acme-shop-main", {"repository": "acme/shop", "ref": "refs/tags/main", "ref_type": "tag"}),
        ("acme-shop-main", {"repository": "acme/shop", "ref": "refs/pull/1/merge", "ref_type": "branch"}),
    ],
)
def test_another_job_is_refused(site: Site, token: str, claims: dict) -> None:
    up(site, BOT, OF_A_BRANCH)
    job = Job(site, "stranger", **claims)
    assert "did not match any allow rules" in job.authorize(token=token)
    assert not job.groups()


def test_the_job_of_the_right_branch(site: Site) -> None:
    up(site, OF_A_BRANCH)
    job = Job(site, "on-main", repository="acme/shop", **ON_MAIN)
    said = job.authorize(token="acme-shop-main")  # noqa: S106  it is no secret
    assert job.groups() == GROUPS, said


def test_a_bot_that_is_removed_and_comes_back(site: Site) -> None:
    up(site, BOT)
    job = deploy(site, "removed")
    session = job.open_shell()
    run = up(site)
    removed = "bot/acme-shop-production", "token/acme-shop-production", "role/kube-bot-acme-shop-production"
    assert [name for name in removed if f"removed {name}" in run.console] == [*removed], run
    session.expect(pexpect.EOF)
    assert "access denied" in job.cannot(*KUBECTL)
    late = Job(site, "late", **GitHub.jobs["removed"])
    said = late.authorize()
    assert not late.groups(), said
    wait_for(lambda: json.loads(site.tctl("get", "bot", "--format=json")) == [], "the bot is still there")
    assert "kube-bot" not in site.tctl("get", "roles")
    assert up(site).console == "", "nothing is done again each minute"
    up(site, BOT)
    deploy(site, "back").can(*KUBECTL)
    assert up(site, BOT).console == "", "nothing is done again each minute"


def test_what_somebody_adds_to_a_bot_is_taken_away(site: Site) -> None:
    up(site, BOT)
    site.tctl("bots", "update", AUTHORIZE["token"], "--add-roles=kube-acme-ops")
    widened = deploy(site, "widened")
    wait_for(lambda: widened.authorize() and "ops" in widened.groups(), "then this test shows nothing")
    assert "applied bot/acme-shop-production" in up(site, BOT).console
    wait_for(lambda: widened.authorize() and widened.groups() == GROUPS, "it keeps what it was given")
