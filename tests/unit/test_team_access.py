"""Teleport's roles and its GitHub connector, and how they are kept in SSM."""

import pytest

from teleport_eks.settings import Bot, Team
from teleport_eks.team_access import SHARED_USER, TeamAccess, TeamAccessArgs, bot, connector, join_token, role
from tests.boot import strict
from tests.examples import PLATFORM, settings
from tests.recorder import record


def test_a_team_is_a_role_with_its_groups() -> None:
    document = role(PLATFORM, "dev", "shared", "12h")
    assert document["metadata"] == {"name": "kube-acme-platform", "labels": {"teleport-eks": "dev"}}
    allow, options = document["spec"]["allow"], document["spec"]["options"]
    assert allow["kubernetes_groups"] == ["platform", "oncall"]
    assert allow["kubernetes_users"] == [SHARED_USER]
    assert allow["logins"] == ["deploy"]
    assert "rules" not in allow
    assert options == {
        "max_session_ttl": "12h",
        "record_session": {"default": "strict"},
        "port_forwarding": False,
    }
    assert "kubernetes_users" not in role(PLATFORM, "dev", "person", "12h")["spec"]["allow"]


def test_an_auditor_may_only_see_recordings_and_the_audit_log() -> None:
    auditors = Team.model_validate({"organization": "acme", "team": "audit", "auditor": True})
    assert role(auditors, "dev", "shared", "12h")["spec"]["allow"] == {
        "rules": [{"resources": ["session", "event"], "verbs": ["list", "read"]}]
    }


SHOP = {"repository": "Acme/shop.io", "kubernetesGroups": ["deployer"]}


@pytest.mark.parametrize(
    ("which", "name", "claims"),
    [
        ({"environment": "Live EU"}, "acme-shop.io-live-eu", {"environment": "Live EU"}),
        ({"branch": "release/1"}, "acme-shop.io-release-1", {"ref": "refs/heads/release/1", "ref_type": "branch"}),
    ],
)
def test_a_bot_is_a_role_a_bot_and_which_jobs_it_is(which: dict, name: str, claims: dict) -> None:
    listed = Bot.model_validate(SHOP | which)
    document = role(listed, "dev", "shared", "12h")
    assert document["metadata"]["name"] == f"kube-bot-{name}"
    assert document["spec"]["allow"].keys() == {
        "kubernetes_labels",
        "kubernetes_groups",
        "kubernetes_resources",
        "kubernetes_users",
    }
    assert document["spec"]["allow"]["kubernetes_groups"] == ["deployer"]
    assert document["spec"]["options"]["max_session_ttl"] == "1h"
    assert bot(listed, "dev")["spec"] == {"roles": [f"kube-bot-{name}"]}
    token = join_token(listed, "dev")
    assert token["spec"]["github"] == {"allow": [{"repository": "Acme/shop.io", **claims}]}
    assert (token["spec"]["bot_name"], token["spec"]["join_method"], token["spec"]["roles"]) == (
        name,
        "github",
        ["Bot"],
    )
    for made in (document, bot(listed, "dev"), token):
        assert made["metadata"]["labels"] == {"teleport-eks": "dev"}
        assert not strict.check_resource(made)


def test_the_connector_maps_teams_to_roles_and_holds_no_secret() -> None:
    spec = connector([PLATFORM], "Iv1.1", "https://x/callback")["spec"]
    assert spec["teams_to_roles"] == [{"organization": "Acme", "team": "platform", "roles": ["kube-acme-platform"]}]
    assert "client_secret" not in spec


def test_bots_are_in_ssm_without_github_sign_in() -> None:
    listed = Bot.model_validate(SHOP | {"branch": "main"})
    args = TeamAccessArgs(settings().model_copy(update={"bots": (listed,)}), "dev", "/p", "https://x/callback")
    declared = record(lambda: TeamAccess("proxy", args)).of("aws:ssm/parameter:Parameter")
    assert sorted(p["name"] for p in declared) == [
        "/p/bots/acme-shop.io-main",
        "/p/roles/kube-bot-acme-shop.io-main",
        "/p/tokens/acme-shop.io-main",
    ]


@pytest.mark.parametrize(
    ("github", "teams", "expected"),
    [
        (False, (), []),
        (False, (PLATFORM,), ["roles/kube-acme-platform"]),
        (True, (), ["github-client-secret"]),
        (True, (PLATFORM,), ["github-client-secret", "github-connector", "roles/kube-acme-platform"]),
    ],
)
def test_ssm_holds_roles_connector_and_secret(github: bool, teams: tuple, expected: list) -> None:
    app = {"githubClientId": "Iv1.1", "githubClientSecret": "canary"} if github else {}
    configured = settings(**app).model_copy(update={"teams": teams})
    args = TeamAccessArgs(configured, "dev", "/teleport-eks/dev", "https://x/callback")
    declared = record(lambda: TeamAccess("proxy", args))
    parameter = "aws:ssm/parameter:Parameter"
    parameters = declared.of(parameter) if declared.has(parameter) else []
    assert sorted(p["name"].removeprefix("/teleport-eks/dev/") for p in parameters) == expected
    # Only ``value`` is a secret: what a role or the connector says is shown in a preview.
    assert {p["type"] for p in parameters if "insecureValue" in p} <= {"String"}
    assert [(p["type"], p["value"]) for p in parameters if "value" in p] == [("SecureString", "canary")] * github
