"""Who has access, and to what: teams, bots, and the clusters behind the proxy."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.alias_generators import to_camel

from teleport_eks import patterns
from teleport_eks.errors import NAMESPACE


def _kubernetes_group(value: str) -> str:
    if value.startswith("system:") and value != "system:masters":
        raise ValueError("must not be one of Kubernetes' own groups (system:...): bind a role to a group of yours")
    return value


AccessMode = Literal["auto", "access-entry", "aws-auth"]
KubernetesGroup = Annotated[str, Field(pattern=patterns.KUBERNETES_GROUP), AfterValidator(_kubernetes_group)]


class Model(BaseModel):
    # Programs name the fields as Python does, stack files as Pulumi does.
    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, extra="forbid", frozen=True, validate_default=True
    )


class Access(Model):
    """What a team or a bot may do in the cluster."""

    kubernetes_groups: tuple[KubernetesGroup, ...] = Field(
        default=(),
        description="The groups that they have in Kubernetes. At least one, unless it is a team of auditors.",
    )
    cluster_role: str | None = Field(
        default=None,
        pattern=patterns.CLUSTER_ROLE,
        description="A ClusterRole to bind the groups to, such as `view` or `edit`. If not set, bind them yourself.",
    )
    namespaces: tuple[Annotated[str, Field(pattern=patterns.NAMESPACE_NAME)], ...] = Field(
        default=(),
        description="The namespaces in which the groups have the clusterRole. By default, the whole cluster.",
    )

    @property
    def name(self) -> str:
        """Part of the names of the role and the bindings."""
        raise NotImplementedError

    @property
    def on_github(self) -> str:
        """Who has this access, as messages name it."""
        raise NotImplementedError

    @field_validator("kubernetes_groups")
    @classmethod
    def _has_groups(cls, groups: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if not groups and not info.data.get("auditor"):
            who = cls.__name__.lower()
            raise ValueError(f"must name at least one Kubernetes group, or the {who} can do nothing in the cluster")
        return groups

    @field_validator("cluster_role")
    @classmethod
    def _role_needs_groups(cls, role: str | None, info: ValidationInfo) -> str | None:
        if role and info.data.get("kubernetes_groups") == ():
            raise ValueError("needs kubernetesGroups: the groups to bind the role to")
        return role

    @field_validator("namespaces")
    @classmethod
    def _namespaces_need_a_role(cls, namespaces: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if namespaces and not info.data.get("cluster_role"):
            raise ValueError("needs clusterRole: which role the groups have in these namespaces")
        return namespaces


class _People(Model):
    organization: str = Field(
        pattern=patterns.ORGANIZATION,
        description="The GitHub organization's login, spelled exactly as on its page on GitHub: Teleport treats `Acme` "
        "and `acme` as two.",
    )
    team: str = Field(
        pattern=patterns.TEAM_SLUG, description="The team's slug: the last part of its address on GitHub."
    )
    logins: tuple[Annotated[str, Field(pattern=patterns.LOGIN)], ...] = Field(
        default=(),
        description="Unix logins that members may use on the proxy's host with `tsh ssh`; none by default. "
        "A login that may use sudo, such as ec2-user, can read Teleport's certificate authority.",
    )
    auditor: bool = Field(
        default=False,
        description="Lets members list and play all recordings and read the audit log. Others cannot.",
    )


class _Job(Model):
    repository: str = Field(
        pattern=patterns.REPOSITORY,
        description="The GitHub repository whose jobs these are, spelled exactly as on its page on GitHub.",
    )
    environment: str | None = Field(
        default=None,
        pattern=patterns.ENVIRONMENT,
        max_length=100,
        description="Only jobs with this `environment:`, whose protection rules on GitHub say who may start one.",
    )
    branch: str | None = Field(
        default=None,
        pattern=patterns.BRANCH,
        max_length=100,
        description="Instead of an environment: only jobs of workflows that run on this branch. Whoever can push to it "
        "has the access.",
    )

    @field_validator("branch")
    @classmethod
    def _one_of_two(cls, branch: str | None, info: ValidationInfo) -> str | None:
        if "environment" in info.data and bool(branch) == bool(info.data["environment"]):
            raise ValueError("name an environment or a branch, one of the two")
        if branch and branch.startswith("refs/"):
            raise ValueError(patterns.WORDS[patterns.BRANCH])
        return branch


AccessT = TypeVar("AccessT", bound=Access)


# The fields of the last class come first: who it is, and then what they may do.
class Team(Access, _People):
    """A GitHub team, and what its members may do in the cluster and on the host."""

    @property
    def name(self) -> str:
        return f"{self.organization.lower()}-{self.team}"

    @property
    def on_github(self) -> str:
        return f"{self.organization}/{self.team}"


class Bot(Access, _Job):
    """Jobs of GitHub Actions, and what they may do in the cluster."""

    @property
    def bot(self) -> str:
        """The name of Teleport's bot and of its join token."""
        return re.sub("[^a-z0-9._-]", "-", f"{self.repository}-{self.environment or self.branch}".lower())

    @property
    def name(self) -> str:
        return f"bot-{self.bot}"

    @property
    def on_github(self) -> str:
        where = f"environment {self.environment}" if self.environment else f"branch {self.branch}"
        return f"{self.repository}, {where}"


EXAMPLE_TEAM = {
    "organization": "acme",
    "team": "platform",
    "kubernetesGroups": ["platform"],
    "clusterRole": "edit",
    "namespaces": ["shop"],
}
# What a message about an item of a list tells the operator to write.
TEAM_EXAMPLES = {**EXAMPLE_TEAM, "logins": ["deploy"], "auditor": True}
EXAMPLE_BOT = {
    "repository": "acme/shop",
    "environment": "production",
    "kubernetesGroups": ["shop-deployer"],
    "clusterRole": "edit",
    "namespaces": ["shop"],
}
BOT_EXAMPLES = {**EXAMPLE_BOT, "branch": "main"}


def are_listed_once(listed: Iterable[Access]) -> None:
    seen: set[str] = set()
    for item in listed:
        if item.on_github in seen:
            raise ValueError(f"{item.on_github} is listed twice: put its groups into one item")
        seen.add(item.on_github)


def share_no_name(listed: Iterable[Access]) -> None:
    """Refuses a-b/c beside a/b-c. Their roles, bots and bindings would have one name."""
    named: dict[str, str] = {}
    for item in listed:
        other = named.setdefault(item.name, item.on_github)
        if other != item.on_github:
            raise ValueError(
                f"{other} and {item.on_github} both get the name {item.name}: rename one of the two on GitHub, or give "
                "the access to another one there"
            )


def are_written_in_one_way(teams: Iterable[Team]) -> None:
    organizations: dict[str, str] = {}
    for team in teams:
        written = organizations.setdefault(team.organization.lower(), team.organization)
        if written != team.organization:
            raise ValueError(
                f"{written} and {team.organization} are one organization on GitHub, and Teleport knows it only by its "
                "exact name: write it in each team as its page on GitHub does"
            )


class AdditionalCluster(Model):
    """Another EKS cluster behind the same proxy, in the same account and region."""

    cluster_name: str = Field(pattern=patterns.CLUSTER_NAME, description="The EKS cluster.")
    access_mode: AccessMode = Field(
        default="auto", description="How this cluster maps the proxy's role. auto: by an access entry if possible."
    )
    teams: tuple[Team, ...] | None = Field(
        default=None,
        description="The teams with access to this cluster, instead of the stack's `teams`. Not set: the same teams "
        "with the same access. []: none. `logins` and `auditor` belong to the stack's `teams`.",
    )
    bots: tuple[Bot, ...] | None = Field(
        default=None,
        description="The bots with access to this cluster, instead of the stack's `bots`. Not set: the same bots with "
        "the same access. []: none.",
    )

    @field_validator("teams")
    @classmethod
    def _host_and_recordings_are_the_stacks(cls, teams: tuple[Team, ...] | None) -> tuple[Team, ...] | None:
        for team in teams or ():
            if team.logins or team.auditor:
                raise ValueError(
                    f"{team.on_github} has logins or auditor, which are about the proxy and not about this cluster: "
                    f"set them in {NAMESPACE}:teams"
                )
        return teams

    @field_validator("teams", "bots")
    @classmethod
    def _are_distinct(cls, listed: tuple[Access, ...] | None) -> tuple[Access, ...] | None:
        are_listed_once(listed or ())
        return listed


EXAMPLE_CLUSTER = {"clusterName": "tools"}
ITEM_EXAMPLES = {
    "teams": TEAM_EXAMPLES,
    "bots": BOT_EXAMPLES,
    "additionalClusters": {**EXAMPLE_CLUSTER, "accessMode": "auto", "teams": [EXAMPLE_TEAM], "bots": [EXAMPLE_BOT]},
}


@dataclass(frozen=True)
class Grant:
    """What a team or a bot may do in ``clusters``, or in all of them if it is empty: one Teleport role."""

    access: Access
    clusters: tuple[str, ...] = ()
    prefix: str = "kube-"

    @property
    def role(self) -> str:
        return f"{self.prefix}{self.access.name}"
