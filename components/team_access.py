"""GitHub teams: one Teleport role each and the connector, kept in SSM, from where the host applies them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components.settings import Settings, Team

# The one Kubernetes user that people are, unless kubernetesIdentity is person; Teleport's audit log has the person.
SHARED_USER = "teleport-user"


def role_name(team: Team) -> str:
    return f"kube-{team.name}"


def role(team: Team, stack: str, kubernetes_identity: str, session_ttl: str) -> dict:
    """The team's Teleport role, version 7: the newest that Teleport 17 and 18 both take."""
    allow: dict = {}
    options: dict = {
        "max_session_ttl": session_ttl,
        # No session without a recording, not even when the disk is full.
        "record_session": {"default": "strict"},
    }
    if team.kubernetes_groups:
        allow |= {
            "kubernetes_labels": {"*": "*"},
            "kubernetes_groups": list(team.kubernetes_groups),
            # What members may do is the cluster's RBAC to say; Teleport lets all through.
            "kubernetes_resources": [{"kind": "*", "namespace": "*", "name": "*", "verbs": ["*"]}],
        }
        if kubernetes_identity == "shared":
            allow["kubernetes_users"] = [SHARED_USER]
    if team.logins:
        allow |= {"logins": list(team.logins), "node_labels": {"*": "*"}}
        options["port_forwarding"] = False  # the host reaches what members should not: the VPC, the cluster's API
    if team.auditor:
        allow["rules"] = [{"resources": ["session", "event"], "verbs": ["list", "read"]}]
    return {
        "kind": "role",
        "version": "v7",
        # The label is how the host knows which roles are this stack's to remove.
        "metadata": {"name": role_name(team), "labels": {"teleport-eks": stack}},
        "spec": {"allow": allow, "options": options},
    }


def connector(teams: Sequence[Team], client_id: str, callback_url: str) -> dict:
    """The GitHub connector, without the client secret: the host puts that in."""
    return {
        "kind": "github",
        "version": "v3",
        "metadata": {"name": "github"},
        "spec": {
            "display": "GitHub",
            "client_id": client_id,
            "redirect_url": callback_url,
            "teams_to_roles": [
                {"organization": team.organization, "team": team.team, "roles": [role_name(team)]} for team in teams
            ],
        },
    }


@dataclass(frozen=True)
class TeamAccessArgs:
    """``parameters_path``: where in SSM, for example ``/teleport-eks/production``."""

    settings: Settings
    stack: str
    parameters_path: str
    callback_url: pulumi.Input[str]


class TeamAccess(pulumi.ComponentResource):
    """Owns the SSM parameters below ``parameters_path``.

    Nothing here is part of the host's user data, so a new team or a new secret needs no new instance.
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
                # The provider makes a secret of every ``value``, which would keep a preview from showing what changes.
                insecure_value=text,
                value=secret,
                # A connector with many teams is over the standard tier's 4 KiB.
                tier="Intelligent-Tiering",
                opts=child,
            )

        for team in settings.teams:
            document = role(team, args.stack, settings.kubernetes_identity, settings.session_ttl)
            parameter(f"roles/{role_name(team)}", text=json.dumps(document, sort_keys=True))
        if settings.github_client_id and settings.github_client_secret:
            secret = pulumi.Output.secret(settings.github_client_secret.get_secret_value())
            parameter("github-client-secret", secret=secret)
            if settings.teams:  # Teleport refuses a connector that maps no team
                client_id = settings.github_client_id
                document = pulumi.Output.from_input(args.callback_url).apply(
                    lambda url: json.dumps(connector(settings.teams, client_id, url), sort_keys=True)
                )
                parameter("github-connector", text=document)

        self.register_outputs({})
