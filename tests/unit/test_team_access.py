"""Teleport's roles and its GitHub connector, and how they are kept in SSM."""

import json

import pytest

from teleport_eks.access import Bot, Grant, Team
from teleport_eks.team_access import (
    SHARED_USER,
    TeamAccess,
    TeamAccessArgs,
    bot,
    connector,
    documents,
    join_token,
    role,
)
from tests.boot import strict
from tests.examples import PLATFORM, settings
from tests.recorder import record


def test_a_team_is_a_role_with_its_groups() -> None:
    document = role(Grant(PLATFORM), settings(), "dev")
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
    assert (
        "kubernetes_users" not in role(Grant(PLATFORM), settings(kubernetesIdentity="person"), "dev")["spec"]["allow"]
    )


def test_an_auditor_may_only_see_recordings_and_the_audit_log() -> None:
    auditors = Team.model_validate({"organization": "acme", "team": "audit", "auditor": True})
    assert role(Grant(auditors), settings(), "dev")["spec"]["allow"] == {
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
    document = role(Grant(listed), settings(), "dev")
    assert document["metadata"]["name"] == f"kube-bot-{name}"
    assert document["spec"]["allow"].keys() == {
        "kubernetes_labels",
        "kubernetes_groups",
        "kubernetes_resources",
        "kubernetes_users",
    }
    assert document["spec"]["allow"]["kubernetes_groups"] == ["deployer"]
    assert document["spec"]["options"]["max_session_ttl"] == "1h"
    assert listed.bot == name
    token = join_token(listed, "dev")
    assert token["spec"]["github"] == {"allow": [{"repository": "Acme/shop.io", **claims}]}
    assert (token["spec"]["bot_name"], token["spec"]["join_method"], token["spec"]["roles"]) == (
        name,
        "github",
        ["Bot"],
    )
    for made in (document, bot(name, [f"kube-bot-{name}"], "dev"), token):
        assert made["metadata"]["labels"] == {"teleport-eks": "dev"}
        assert not strict.check_resource(made)


def test_the_connector_maps_teams_to_roles_and_holds_no_secret() -> None:
    spec = connector(
        settings().model_copy(update={"teams": (PLATFORM,)}).roles_of(Team), "Iv1.1", "https://x/callback"
    )["spec"]
    assert spec["teams_to_roles"] == [{"organization": "Acme", "team": "platform", "roles": ["kube-acme-platform"]}]
    assert "client_secret" not in spec


def test_teams_and_bots_of_an_additional_cluster() -> None:
    web = {"organization": "acme", "team": "web", "kubernetesGroups": ["web"]}
    only_there = {"organization": "Acme", "team": "tools", "kubernetesGroups": ["tools"]}
    configured = settings(
        teams=json.dumps([web | {"organization": "Acme"}]),
        bots=json.dumps([SHOP | {"branch": "main"}]),
        additionalClusters=json.dumps(
            [{"clusterName": "same"}, {"clusterName": "tools", "teams": [only_there, web | {"organization": "Acme"}]}]
        ),
    )
    made = documents(configured, "dev", {"same": "kind: Config", "tools": "kind: Config"})
    assert [strict.check_resource(document) for document in made] == [[]] * len(made)
    allowed = {d["metadata"]["name"]: d["spec"]["allow"] for d in made if d["kind"] == "role"}
    assert allowed["kube-bot-acme-shop.io-main"]["kubernetes_labels"] == {"*": "*"}  # no cluster has bots of its own
    assert {name: allow.get("kubernetes_labels_expression") for name, allow in allowed.items()} == {
        "kube-acme-web": 'labels["cluster"] == "" || labels["cluster"] == "same"',
        "kube.tools.acme-tools": 'labels["cluster"] == "tools"',
        "kube.tools.acme-web": 'labels["cluster"] == "tools"',
        "kube-bot-acme-shop.io-main": None,
    }
    mapped = connector(configured.roles_of(Team), "Iv1.1", "https://x/callback")["spec"]["teams_to_roles"]
    assert {team["team"]: team["roles"] for team in mapped} == {
        "web": ["kube-acme-web", "kube.tools.acme-web"],
        "tools": ["kube.tools.acme-tools"],
    }
    # As the label that a role names, and the label by which Teleport takes only this stack's.
    labels = [d["metadata"]["labels"] for d in made if d["kind"] == "kube_cluster"]
    assert [(each["cluster"], each["teleport-eks"]) for each in labels] == [("same", "dev"), ("tools", "dev")]
    groups = {name: [access.kubernetes_groups for access in configured.granted_in(name)] for name in ("same", "tools")}
    assert groups == {"same": [("web",), ("deployer",)], "tools": [("tools",), ("web",), ("deployer",)]}


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
