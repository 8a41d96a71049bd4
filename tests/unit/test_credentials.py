"""The credentials of the AWS provider also sign in to the cluster."""

import json

import pulumi
import pytest
import yaml

from teleport_eks.cluster import kubeconfig, look_up
from teleport_eks.credentials import Credentials, credentials
from teleport_eks.errors import ConfigurationError
from tests.examples import CLUSTER, ROLE, settings


def test_the_kubeconfig_signs_in_with_the_stacks_profile_and_role() -> None:
    found, problems = credentials({"profile": "ops", "assumeRoles": json.dumps([{"roleArn": ROLE}]), "region": "x"})
    assert (found, problems) == (Credentials("ops", ROLE), [])
    user = yaml.safe_load(kubeconfig(CLUSTER, found))["users"][0]["user"]["exec"]
    assert " ".join(user["args"]) == (
        f"--region eu-west-1 --profile ops eks get-token --cluster-name demo --output json --role-arn {ROLE}"
    )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"assumeRoles": [{"roleArn": ROLE}, {"roleArn": ROLE}]}, "has more than one role"),
        ({"assumeRoles": [{"roleArn": ROLE, "externalId": "x"}]}, "has externalId"),
        ({"accessKey": "AKIA", "secretKey": "canary"}, "works in the AWS provider only"),
    ],
)
def test_credentials_that_only_the_provider_can_use_are_refused(config: dict, expected: str) -> None:
    given = {f"aws:{key}": value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}
    pulumi.runtime.set_all_config(given)
    try:
        with pytest.raises(ConfigurationError, match=expected) as refused:
            look_up(settings(), "dev")
    finally:
        pulumi.runtime.set_all_config({})
    assert "write: aws:profile: NAME" in str(refused.value)
    assert "canary" not in str(refused.value)
