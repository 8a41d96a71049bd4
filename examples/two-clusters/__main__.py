"""A proxy for each of two EKS clusters, from one program: the same teams, with different roles."""

import pulumi
from pydantic import SecretStr

from teleport_eks import Settings, Team, TeleportProxy, TeleportProxyArgs, look_up

ROLES = {"production": "view", "staging": "edit"}


def team(cluster_role: str) -> Team:
    return Team(organization="acme", team="shop", kubernetes_groups=("shop",), cluster_role=cluster_role)


config = pulumi.Config()
for cluster, cluster_role in ROLES.items():
    settings = Settings(
        cluster_name=cluster,
        acme_email="platform@example.com",
        teams=(team(cluster_role),),
        github_client_id=config.require(f"{cluster}ClientId"),
        github_client_secret=SecretStr(config.require(f"{cluster}ClientSecret")),
    )
    name = f"two-clusters-{cluster}"
    proxy = TeleportProxy(cluster, TeleportProxyArgs(name, settings, look_up(settings, name)))
    pulumi.export(f"{cluster}Login", proxy.outputs["tshLogin"])
