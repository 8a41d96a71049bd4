"""What the proxy's identity can do in a real cluster, tried as an attacker who has it would."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import urllib3
from kubernetes import client as kubernetes
from kubernetes.config import new_client_from_config
from urllib3 import HTTPHeaderDict

from sandbox.control_plane import ControlPlane
from teleport_eks.access import Team
from teleport_eks.cluster_access import Names, impersonation_rules, impersonators
from teleport_eks.team_access import SHARED_USER
from tests.waiting import wait_for

TEAMS = [
    Team.model_validate({"organization": "acme", "team": "platform", "kubernetesGroups": ["platform"]}),
    Team.model_validate({"organization": "acme", "team": "web", "kubernetesGroups": ["web", "oncall"]}),
]
NAMES = Names()
SECRETS = ("GET", "/api/v1/namespaces/kube-system/secrets")
RBAC = "/apis/rbac.authorization.k8s.io/v1"
CONTROLLER = "system:kube-controller-manager"


@dataclass(frozen=True)
class Api:
    """The API server, as one identity sees it."""

    pool: urllib3.PoolManager
    server: str

    def status(self, method: str, path: str, body: Any = None, headers: Sequence[tuple[str, str]] = ()) -> int:
        sent = HTTPHeaderDict([("Content-Type", "application/json"), *headers])
        data = json.dumps(body) if body else None
        return self.pool.request(method, self.server + path, body=data, headers=sent, retries=False).status


def identity(plane: ControlPlane, user: str, groups: Sequence[str] = ()) -> Api:
    """Somebody with a certificate of the cluster's authority."""
    client = new_client_from_config(str(plane.kubeconfig_for(user, groups)))
    return Api(client.rest_client.pool_manager, plane.server)


def acting(user: str, *groups: str, **more: str) -> list[tuple[str, str]]:
    """The headers of an impersonation."""
    headers = [("Impersonate-User", user), *(("Impersonate-Group", group) for group in groups)]
    return headers + [(f"Impersonate-{name.replace('_', '-')}", value) for name, value in more.items()]


@pytest.fixture(scope="module")
def proxy(control_plane: ControlPlane) -> Api:
    return identity(control_plane, NAMES.username, [NAMES.group])


@pytest.fixture(scope="module")
def nobody(control_plane: ControlPlane) -> Api:
    """A client without credentials."""
    settings = new_client_from_config(str(control_plane.kubeconfig)).configuration
    settings.cert_file = settings.key_file = None
    return Api(kubernetes.ApiClient(settings).rest_client.pool_manager, control_plane.server)


def wait_until_decided(review: Any, subject: dict, rule: dict, *, allowed: bool) -> None:
    """Until the API server decides by a role that was just made or removed: it reads roles from a cache, which lags."""
    attributes = {"verb": rule["verbs"][0], "group": rule["apiGroups"][0], "resource": rule["resources"][0]}
    if "resourceNames" in rule:
        attributes["name"] = rule["resourceNames"][0]
    who = {"user": subject["name"]} if subject["kind"] == "User" else {"user": "x", "groups": [subject["name"]]}
    question = {"spec": who | {"resourceAttributes": attributes}}
    wait_for(lambda: review(question).status.allowed == allowed, f"{subject['name']} {rule}: never {allowed=}")


@pytest.fixture
def rbac(control_plane: ControlPlane) -> Iterator[Any]:
    client = new_client_from_config(str(control_plane.kubeconfig))
    api: Any = kubernetes.RbacAuthorizationV1Api(client)
    review = kubernetes.AuthorizationV1Api(client).create_subject_access_review
    made: list[tuple[str, dict, dict]] = []

    def grant(name: str, subjects: list, rules: list) -> None:
        api.create_cluster_role({"metadata": {"name": name}, "rules": rules})
        role_ref = {"kind": "ClusterRole", "name": name, "apiGroup": "rbac.authorization.k8s.io"}
        api.create_cluster_role_binding({"metadata": {"name": name}, "roleRef": role_ref, "subjects": subjects})
        made.append((name, subjects[0], rules[0]))
        wait_until_decided(review, subjects[0], rules[0], allowed=True)

    # The team's own role: whoever is the team, and nobody else, may list secrets.
    group = {"kind": "Group", "name": "platform", "apiGroup": "rbac.authorization.k8s.io"}
    grant("test-team", [group], [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}])
    yield grant
    for name, subject, rule in made:
        api.delete_cluster_role_binding(name)
        api.delete_cluster_role(name)
        wait_until_decided(review, subject, rule, allowed=False)


@pytest.fixture
def default(rbac: Any) -> None:
    rbac("test-impersonation", impersonators(NAMES.group, False), impersonation_rules(TEAMS, "shared"))


USERS = [
    CONTROLLER,
    "system:node:ip-10-0-0-1",
    "system:anonymous",
    "system:serviceaccount:kube-system:clusterrole-aggregation-controller",
    "kubernetes-admin",
    NAMES.username,
    "alice",
    "*",
]
GROUPS = [
    "system:masters",
    "system:nodes",
    "system:serviceaccounts:kube-system",
    "Platform",
    "platform,system:masters",
    "another-team",
    NAMES.group,
    "*",
]
IMPERSONATIONS = {
    **{f"user {user}": acting(user, "platform") for user in USERS},
    **{f"group {group}": acting(SHARED_USER, group) for group in GROUPS},
    "masters beside a team": acting(SHARED_USER, "platform", "system:masters"),
    "masters behind a team": acting(SHARED_USER, "system:masters", "platform"),
    "a uid": acting(SHARED_USER, "platform", Uid="0"),
    "an extra": acting(SHARED_USER, "platform", **{"Extra-scopes": "all"}),
}
BINDING = {
    "metadata": {"name": "mine"},
    "roleRef": {"kind": "ClusterRole", "name": "cluster-admin", "apiGroup": "rbac.authorization.k8s.io"},
    "subjects": [{"kind": "User", "name": NAMES.username, "apiGroup": "rbac.authorization.k8s.io"}],
}
POD = {"metadata": {"name": "x"}, "spec": {"containers": [{"name": "x", "image": "x"}]}}
ITSELF = {
    "reads secrets": SECRETS,
    "reads aws-auth": ("GET", "/api/v1/namespaces/kube-system/configmaps/aws-auth"),
    "binds itself to cluster-admin": ("POST", f"{RBAC}/clusterrolebindings", BINDING),
    "widens its role": ("PATCH", f"{RBAC}/clusterroles/test-impersonation", {"rules": []}),
    "makes a service account's token": ("POST", "/api/v1/namespaces/kube-system/serviceaccounts/default/token", {}),
    "runs a pod": ("POST", "/api/v1/namespaces/default/pods", POD),
    "enters a pod": ("POST", "/api/v1/namespaces/default/pods/x/exec?command=sh"),
    "changes admission": ("GET", "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"),
}


@pytest.mark.usefixtures("default")
@pytest.mark.parametrize("headers", IMPERSONATIONS.values(), ids=IMPERSONATIONS.keys())
def test_the_proxy_can_impersonate_only_the_teams(proxy: Api, headers: list) -> None:
    assert proxy.status(*SECRETS, headers=headers) == 403


@pytest.mark.usefixtures("default")
@pytest.mark.parametrize("request_", ITSELF.values(), ids=ITSELF.keys())
def test_by_itself_the_proxy_can_do_nothing(proxy: Api, request_: tuple) -> None:
    assert proxy.status(*request_) == 403


@pytest.mark.usefixtures("default")
@pytest.mark.parametrize("headers", [acting("system:admin", "system:masters"), acting(SHARED_USER, "platform"), []])
def test_a_client_without_credentials_can_impersonate_nobody(nobody: Api, headers: list) -> None:
    assert nobody.status(*SECRETS, headers=headers) == 403


@pytest.mark.usefixtures("default")
def test_the_teams_can_be_impersonated(proxy: Api) -> None:
    assert proxy.status(*SECRETS, headers=acting(SHARED_USER, "platform", "system:authenticated")) == 200
    # Another team is itself, so without a role of its own it is told no, not that it cannot be impersonated.
    assert proxy.status("GET", "/version", headers=acting(SHARED_USER, "web", "oncall", "system:authenticated")) == 200
    assert proxy.status(*SECRETS, headers=acting(SHARED_USER, "web", "oncall", "system:authenticated")) == 403


@pytest.mark.usefixtures("default")
@pytest.mark.parametrize("kind", ["SelfSubjectAccessReview", "SelfSubjectRulesReview"])
def test_the_proxy_can_make_teleports_own_requests(proxy: Api, kind: str) -> None:
    spec = {"namespace": "default"} if "Rules" in kind else {"resourceAttributes": {"verb": "get", "resource": "pods"}}
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
    assert proxy.status("POST", f"/apis/authorization.k8s.io/v1/{kind.lower()}s", body) == 201
    assert proxy.status("GET", "/api/v1/namespaces/default/pods/none") == 404  # allowed, but it does not exist


def test_person_lifts_the_limit_on_users_and_only_that(proxy: Api, rbac: Any) -> None:
    rbac("test-impersonation", impersonators(NAMES.group, False), impersonation_rules(TEAMS, "person"))
    assert proxy.status(*SECRETS, headers=acting("alice", "platform")) == 200
    assert proxy.status(*SECRETS, headers=acting("alice", "system:masters")) == 403
    # This is what it costs, as the documentation says.
    assert proxy.status(*SECRETS, headers=acting(CONTROLLER)) == 200


def test_anonymous_impersonation_is_still_only_the_teams(nobody: Api, rbac: Any) -> None:
    rbac("test-impersonation", impersonators(NAMES.group, True), impersonation_rules(TEAMS, "shared"))
    assert nobody.status(*SECRETS, headers=acting(SHARED_USER, "platform")) == 200
    assert nobody.status(*SECRETS, headers=acting("system:admin", "system:masters")) == 403
