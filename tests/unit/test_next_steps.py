"""What the outputs tell an operator to do next."""

import json

from teleport_eks.next_steps import next_steps
from tests.examples import PLATFORM, ROLE, SITE, settings


def steps(**config: str) -> str:
    return next_steps(settings(**config), SITE, "dev", "a.nip.io", ROLE)


def test_without_an_app_the_steps_say_how_to_create_one() -> None:
    told = steps()
    assert "callback: https://a.nip.io:3080/v1/webapi/github/callback" in told
    assert "pulumi config set -s dev --secret teleport-eks:githubClientSecret" in told
    assert "Add a team to Pulumi.dev.yaml" in told


def test_with_an_app_and_a_team_only_approval_and_login_are_left() -> None:
    teams = json.dumps([PLATFORM.model_dump(by_alias=True)])
    told = steps(githubClientId="Iv1.1", githubClientSecret="x", teams=teams)
    assert "OAuth app:" not in told
    assert "https://github.com/organizations/Acme/settings/oauth_application_policy" in told
    assert "tsh login --proxy=a.nip.io:3080" in told


def test_a_cluster_out_of_reach_gets_the_commands_to_apply_its_objects() -> None:
    told = steps(applyToCluster="false")
    assert "kubectl apply --recursive -f cluster-objects/dev" in told
    assert f"teleport_eks.aws_auth add --kubeconfig KUBECONFIG-FILE --role-arn {ROLE}" in told
