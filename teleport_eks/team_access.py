"""What the host reads from SSM: one Teleport role per GitHub team and per bot, the GitHub connector, how bots join, and
the stack's secrets.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from teleport_eks.settings import NAMESPACE, Access, Bot, Settings, Team

# The Kubernetes user of all people, unless kubernetesIdentity is person. Teleport's audit log names the person.
SHARED_USER = "teleport-user"
BOT_TTL = "1h"  # a job that takes longer asks again


def role_name(access: Access) -> str:
    return f"kube-{access.name}"


def role(access: Access, stack: str, kubernetes_identity: str, session_ttl: str) -> dict:
    """The Teleport role of a team or a bot. Version 7 is the newest that Teleport 17 and 18 both accept."""
    allow: dict = {}
    options: dict = {
        "max_session_ttl": session_ttl if isinstance(access, Team) else BOT_TTL,
        # No session without a recording, even if the disk is full.
        "record_session": {"default": "strict"},
    }
    if access.kubernetes_groups:
        allow |= {
            "kubernetes_labels": {"*": "*"},
            "kubernetes_groups": list(access.kubernetes_groups),
            # The cluster's RBAC decides what members may do, so Teleport allows everything.
            "kubernetes_resources": [{"kind": "*", "namespace": "*", "name": "*", "verbs": ["*"]}],
        }
        if kubernetes_identity == "shared":
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
        "metadata": {"name": role_name(access), "labels": {NAMESPACE: stack}},
        "spec": {"allow": allow, "options": options},
    }


def bot(listed: Bot, stack: str) -> dict:
    """Teleport's bot: who the jobs are in the audit log (``bot-`` and its name), and which role they may ask for."""
    return {
        "kind": "bot",
        "version": "v1",
        "metadata": {"name": listed.bot, "labels": {NAMESPACE: stack}},
        "spec": {"roles": [role_name(listed)]},
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


def connector(teams: Sequence[Team], client_id: str, callback_url: str) -> dict:
    """The GitHub connector, without the client secret, which the host adds."""
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
    """``parameters_path`` is the path in SSM, for example ``/teleport-eks/production``."""

    settings: Settings
    stack: str
    parameters_path: str
    callback_url: pulumi.Input[str]


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
        documents = [
            *(role(one, args.stack, settings.kubernetes_identity, settings.session_ttl) for one in settings.granted),
            *(made(listed, args.stack) for listed in settings.bots for made in (bot, join_token)),
        ]
        for document in documents:
            path = f"{document['kind']}s/{document['metadata']['name']}"
            parameter(path, text=json.dumps(document, sort_keys=True))
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
