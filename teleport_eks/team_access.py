"""What the host reads from SSM: Teleport's roles of the GitHub teams and bots, the GitHub connector, how bots join,
the additional clusters, and the stack's secrets.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi
import pulumi_aws as aws

from teleport_eks.access import Bot, Grant, Team
from teleport_eks.errors import NAMESPACE
from teleport_eks.settings import Settings

# The Kubernetes user of all people, unless kubernetesIdentity is person. Teleport's audit log names the person.
SHARED_USER = "teleport-user"
BOT_TTL = "1h"  # a job that takes longer asks again


def _clusters(clusters: Sequence[str], first: str) -> dict:
    """By which labels a role finds ``clusters``. Only additional ones have the label ``cluster`` (``kube_cluster``).

    A label of the first cluster would be one of Teleport's Kubernetes service, and those replace the labels of each
    other cluster.
    """
    if not clusters:
        return {"kubernetes_labels": {"*": "*"}}
    labels = ["" if name == first else name for name in clusters]
    return {"kubernetes_labels_expression": " || ".join(f'labels["cluster"] == "{label}"' for label in labels)}


def role(grant: Grant, settings: Settings, stack: str) -> dict:
    """The Teleport role of a team or a bot. Version 7 is the newest that Teleport 17 and 18 both accept."""
    access = grant.access
    allow: dict = {}
    options: dict = {
        "max_session_ttl": settings.session_ttl if isinstance(access, Team) else BOT_TTL,
        # No session without a recording, even if the disk is full.
        "record_session": {"default": "strict"},
    }
    if access.kubernetes_groups:
        allow |= {
            **_clusters(grant.clusters, settings.cluster_name),
            "kubernetes_groups": list(access.kubernetes_groups),
            # The cluster's RBAC decides what members may do, so Teleport allows everything.
            "kubernetes_resources": [{"kind": "*", "namespace": "*", "name": "*", "verbs": ["*"]}],
        }
        if settings.kubernetes_identity == "shared":
            allow["kubernetes_users"] = [SHARED_USER]
    if isinstance(access, Team) and access.logins:
        allow |= {"logins": list(access.logins), "node_labels": {"*": "*"}}
        options["port_forwarding"] = False  # members must not reach the VPC and the cluster's API through the host
    if isinstance(access, Team) and access.auditor:
        allow["rules"] = [{"resources": ["session", "event"], "verbs": ["list", "read"]}]
    return {
        "kind": "role",
        "version": "v7",
        # By this label the host (teleport_eks/userdata/files/access) knows which roles it may remove.
        "metadata": {"name": grant.role, "labels": {NAMESPACE: stack}},
        "spec": {"allow": allow, "options": options},
    }


def bot(name: str, roles: Sequence[str], stack: str) -> dict:
    """Teleport's bot: who the jobs are in the audit log (``bot-`` and its name), and which roles they may ask for."""
    return {
        "kind": "bot",
        "version": "v1",
        "metadata": {"name": name, "labels": {NAMESPACE: stack}},
        "spec": {"roles": list(roles)},
    }


def join_token(listed: Bot, stack: str) -> dict:
    """Which jobs are the bot. It is no secret: GitHub signs who a job is, and Teleport compares that with this."""
    rule = {"repository": listed.repository}
    if listed.environment:
        rule["environment"] = listed.environment
    else:
        rule |= {"ref": f"refs/heads/{listed.branch}", "ref_type": "branch"}
    return {
        "kind": "token",
        "version": "v2",
        "metadata": {"name": listed.bot, "labels": {NAMESPACE: stack}},
        "spec": {"roles": ["Bot"], "bot_name": listed.bot, "join_method": "github", "github": {"allow": [rule]}},
    }


def kube_cluster(name: str, kubeconfig: str, stack: str) -> dict:
    """An additional cluster. ``kubeconfig`` has no secret: Teleport asks the host's AWS CLI for a token."""
    labels = {NAMESPACE: stack, "cluster": name}
    return {
        "kind": "kube_cluster",
        "version": "v3",
        "metadata": {"name": name, "labels": labels},
        "spec": {"kubeconfig": base64.b64encode(kubeconfig.encode()).decode()},
    }


def connector(teams: Sequence[tuple[Team, list[str]]], client_id: str, callback_url: str) -> dict:
    """The GitHub connector, without the client secret, which the host adds. ``teams``: each with its roles."""
    return {
        "kind": "github",
        "version": "v3",
        "metadata": {"name": "github"},
        "spec": {
            "display": "GitHub",
            "client_id": client_id,
            "redirect_url": callback_url,
            "teams_to_roles": [
                {"organization": team.organization, "team": team.team, "roles": roles} for team, roles in teams
            ],
        },
    }


def documents(settings: Settings, stack: str, kubeconfigs: Mapping[str, str]) -> list[dict]:
    """All resources of Teleport but the connector. ``kubeconfigs``: those of the additional clusters, by name."""
    bots = settings.roles_of(Bot)
    return [
        *(role(grant, settings, stack) for grant in settings.grants),
        *(bot(listed.bot, roles, stack) for listed, roles in bots),
        *(join_token(listed, stack) for listed, _ in bots),
        *(kube_cluster(name, kubeconfig, stack) for name, kubeconfig in kubeconfigs.items()),
    ]


@dataclass(frozen=True)
class TeamAccessArgs:
    """``parameters_path`` is the path in SSM, for example ``/teleport-eks/production``; ``kubeconfigs`` are those with
    which the host reaches the additional clusters, by the cluster's name.
    """

    settings: Settings
    stack: str
    parameters_path: str
    callback_url: pulumi.Input[str]
    kubeconfigs: Mapping[str, str] = field(default_factory=dict)


class TeamAccess(pulumi.ComponentResource):
    """Owns the SSM parameters below ``parameters_path``.

    They are not in the host's user data, so a new team or a new secret needs no new instance.
    """

    def __init__(self, name: str, args: TeamAccessArgs, *, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("teleport-eks:index:TeamAccess", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        settings = args.settings

        def parameter(
            path: str, *, text: pulumi.Input[str] | None = None, secret: pulumi.Input[str] | None = None
        ) -> None:
            aws.ssm.Parameter(
                f"{name}-{path.replace('/', '-')}",
                name=f"{args.parameters_path}/{path}",
                type="String" if secret is None else "SecureString",
                # The provider treats every ``value`` as a secret, and a preview would not show the change.
                insecure_value=text,
                value=secret,
                # A connector with many teams has more than the 4 KiB of the standard tier.
                tier="Intelligent-Tiering",
                opts=child,
            )

        if settings.acme_eab_key:
            parameter("acme/eab-key", secret=pulumi.Output.secret(settings.acme_eab_key.get_secret_value()))
        for document in documents(settings, args.stack, args.kubeconfigs):
            path = f"{document['kind']}s/{document['metadata']['name']}"
            parameter(path, text=json.dumps(document, sort_keys=True))
        if settings.github_client_id and settings.github_client_secret:
            secret = pulumi.Output.secret(settings.github_client_secret.get_secret_value())
            parameter("github-client-secret", secret=secret)
            if settings.organizations:  # Teleport refuses a connector that maps no team
                client_id = settings.github_client_id
                document = pulumi.Output.from_input(args.callback_url).apply(
                    lambda url: json.dumps(connector(settings.roles_of(Team), client_id, url), sort_keys=True)
                )
                parameter("github-connector", text=document)

        self.register_outputs({})
