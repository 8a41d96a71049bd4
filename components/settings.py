"""The stack's configuration: every key, its rule, and one message that lists all that is wrong."""

import difflib
import ipaddress
import json
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pulumi
import pydantic
import yaml
from pulumi.runtime.config import CONFIG, is_config_secret
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)
from pydantic.alias_generators import to_camel

from components.network import rules

NAMESPACE = "teleport-eks"

# The oldest release of each major version without a known serious vulnerability:
# 18.7.4 and 17.7.26 are named as such in Teleport's own changelog.
OLDEST_TELEPORT = {17: (17, 7, 26), 18: (18, 7, 4)}

# EC2's quota of inbound rules, unless AWS has raised it.
MOST_RULES = 60


class ConfigurationError(pulumi.RunError):
    """The stack cannot be brought up as it is configured. Pulumi prints the message, without a traceback."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: which key, what it holds, the rule, and the YAML to write instead."""

    key: str
    value: str
    rule: str
    write: str

    def __str__(self) -> str:
        write = self.write.replace("\n", "\n           ")
        return f"  {self.key}\n    value: {self.value}\n    rule:  {self.rule}\n    write: {write}"


def refuse(problems: list[Problem], stack: str) -> None:
    """Raises one ConfigurationError with all ``problems``, if there are any."""
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        listed = "\n\n".join(str(problem) for problem in problems)
        raise ConfigurationError(f"{count} in Pulumi.{stack}.yaml. Nothing was created or changed.\n\n{listed}\n")


def as_yaml(key: str, value: Any) -> str:
    """``key`` with its value, as it is written in a stack's file."""
    text = yaml.safe_dump(value, sort_keys=False, default_flow_style=None).removesuffix("...\n").rstrip()
    block = isinstance(value, list) and any(isinstance(item, dict) for item in value)
    return f"{key}:\n{text}" if block else f"{key}: {text}"


def _match(pattern: str, rule: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(rule)
        return value

    return AfterValidator(check)


def _cidr(value: str) -> str:
    try:
        return str(ipaddress.IPv4Network(value))
    except ValueError as error:
        if "/" in value and "host bits" in str(error):
            network, address = ipaddress.IPv4Network(value, strict=False), value.partition("/")[0]
            raise ValueError(
                f"has host bits set: write {network} for the network or {address}/32 for the address"
            ) from None
        raise ValueError("must be an IPv4 range such as 203.0.113.7/32 (the proxy has an IPv4 address only)") from None


def _session_ttl(value: str) -> str:
    match = re.fullmatch(r"(?:(\d{1,2})h)?(?:(\d{1,4})m)?", value)
    hours, minutes = (int(number or 0) for number in match.groups()) if match else (0, 0)
    if not 1 <= hours * 60 + minutes <= 30 * 60:
        raise ValueError("must be a time such as 12h, 90m or 1h30m, and at most 30h, which is Teleport's limit")
    return value


def _kubernetes_group(value: str) -> str:
    if value != value.strip() or not value or "*" in value:
        raise ValueError("must be the name of one Kubernetes group, without blanks or '*'")
    if value.startswith("system:") and value != "system:masters":
        raise ValueError("must not be a group of Kubernetes' own (system:...): bind a role to a group of yours instead")
    return value


def _kubeconfig(value: str) -> str:
    if "\n" not in value.strip() and not value.lstrip().startswith("{"):
        try:
            value = Path(value).expanduser().read_text()
        except OSError as error:
            raise ValueError(f"is not a kubeconfig's text, and as a path: {error.strerror}") from None
    try:
        valid = "clusters" in yaml.safe_load(value)
    except (yaml.YAMLError, TypeError):
        valid = False
    if not valid:
        raise ValueError("must be a kubeconfig, or the path of one")
    return value


def _parse_json(value: Any) -> Any:
    # Pulumi hands lists to the program as JSON text.
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value or "[]")
    except ValueError:
        raise ValueError("must be a YAML list") from None


_LIST = BeforeValidator(_parse_json)
_HOST_NAME = r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?"
HostName = Annotated[str, _match(_HOST_NAME, "must be a DNS name in lower case, without a dot at the end")]
Cidr = Annotated[str, AfterValidator(_cidr)]
KubernetesGroup = Annotated[str, AfterValidator(_kubernetes_group)]
_DNS_LABEL = _match(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "must be the name of a Kubernetes namespace")


class _Model(BaseModel):
    # Programs name the fields as Python does, stack files as Pulumi does.
    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, extra="forbid", frozen=True, validate_default=True
    )


class Team(_Model):
    """A GitHub team, and what its members may be in the cluster and on the host."""

    organization: Annotated[
        str,
        _match(
            r"[A-Za-z0-9](-?[A-Za-z0-9]){0,38}",
            "must be a GitHub organization's login, as its page on GitHub writes it",
        ),
    ] = Field(
        description="The GitHub organization's login, in the upper and lower case of its page on GitHub: to Teleport, "
        "`Acme` and `acme` are two."
    )
    team: Annotated[
        str,
        _match(
            r"[a-z0-9][a-z0-9_-]*",
            "must be the team's slug: lower case, '-' for blanks, as in the team's address on GitHub",
        ),
    ] = Field(description="The team's slug: the last part of its address on GitHub.")
    logins: tuple[Annotated[str, _match(r"[a-z_][a-z0-9_-]{0,31}", "must be a Unix login")], ...] = Field(
        default=(),
        description="Unix logins that members may take on the proxy's host by `tsh ssh`; none by default. "
        "A login that may use sudo, such as ec2-user, is root where Teleport's certificate authority is.",
    )
    auditor: bool = Field(
        default=False,
        description="Lets members list and play all recordings and read the audit log; without it nobody may.",
    )
    kubernetes_groups: tuple[KubernetesGroup, ...] = Field(
        default=(),
        description="The Kubernetes groups that members are in; at least one, unless the team is an auditor.",
    )
    cluster_role: Annotated[str, _match(r"[A-Za-z0-9.:_-]+", "must be the name of a ClusterRole")] | None = Field(
        default=None,
        description="A ClusterRole to bind the groups to, such as `view` or `edit`. None: bind them yourself.",
    )
    namespaces: tuple[Annotated[str, _DNS_LABEL], ...] = Field(
        default=(), description="The namespaces in which the groups have the clusterRole; the whole cluster by default."
    )

    @field_validator("kubernetes_groups")
    @classmethod
    def _has_groups(cls, groups: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if not groups and not info.data.get("auditor"):
            raise ValueError(
                "must name at least one Kubernetes group: without one the team can do nothing in the cluster"
            )
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
            raise ValueError("needs clusterRole: which role the team has in these namespaces")
        return namespaces


EXAMPLE_TEAM = {
    "organization": "acme",
    "team": "platform",
    "kubernetesGroups": ["platform"],
    "clusterRole": "edit",
    "namespaces": ["shop"],
}
# What a message about a key of a team tells the operator to write.
TEAM_EXAMPLES = {**EXAMPLE_TEAM, "logins": ["deploy"], "auditor": True}


class Settings(_Model):
    """One proxy's configuration, checked: from a stack's file by ``load``, or built by another program, whose mistakes
    are a ``pydantic.ValidationError`` that lists all of them.

    Each field is a key under ``teleport-eks:``; its description is the rule, its
    first example is what a message about it tells the operator to write. Where a
    rule needs two keys, the later field's validator has it and reads the earlier.
    """

    cluster_name: Annotated[str, _match(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", "must be the name of an EKS cluster")] = (
        Field(description="The EKS cluster to give access to.", examples=["production"])
    )
    acme_email: Annotated[str, _match(r"[^@\s]+@[^@\s]+\.[^@\s.]+", "must be an e-mail address")] = Field(
        description="The contact that the ACME account is opened with. Let's Encrypt does not keep it and sends no "
        "warnings; another `acmeServer` may.",
        examples=["platform@example.com"],
    )
    domain_name: HostName | None = Field(
        default=None, description="The proxy's own DNS name.", examples=["teleport.example.com"]
    )
    hosted_zone: HostName | None = Field(
        default=None, description="The public Route 53 zone that domainName is in.", examples=["example.com"]
    )
    allow_open_admin_cidrs: bool = Field(
        default=False, description="Lets adminCidrs hold ranges wider than /8, such as 0.0.0.0/0.", examples=[True]
    )
    admin_cidrs: Annotated[tuple[Cidr, ...], _LIST] = Field(
        default=(),
        description="Who may reach SSH (22, 3022) and the auth service (3025). Empty: nobody; use Session Manager.",
        examples=[["203.0.113.7/32"]],
    )
    client_cidrs: Annotated[tuple[Cidr, ...], _LIST] = Field(
        default=("0.0.0.0/0",),
        description="Who may reach the web page (3080), the SSH proxy (3023), the tunnel (3024) and Kubernetes (3026).",
        examples=[["0.0.0.0/0"]],
    )
    dynamic_dns: Literal["nip.io", "sslip.io"] = Field(
        default="nip.io",
        description="Which service names the proxy after its address, without domainName.",
        examples=["nip.io"],
    )
    acme_server: Annotated[str, _match(r"https://[^\s/]+/\S*", "must be the https address of an ACME directory")] = (
        Field(
            default="https://acme-v02.api.letsencrypt.org/directory",
            description="The ACME directory.",
            examples=["https://acme-v02.api.letsencrypt.org/directory"],
        )
    )
    teleport_version: str = Field(default="18.10.1", description="The Teleport release to run.", examples=["18.10.1"])
    teleport_sha256: Annotated[str, _match(r"[0-9a-f]{64}", "must be 64 hexadecimal digits in lower case")] | None = (
        Field(
            default=None,
            description="The release's SHA-256, pinned. None: the one published beside it.",
            examples=["0123456789abcdef" * 4],
        )
    )
    instance_type: str = Field(
        default="t3.small",
        description="x86-64 or arm64 of the T, M, C or R family, with 2 GiB of memory or more.",
        examples=["t3.small"],
    )
    maintenance_window: Annotated[
        str,
        _match(
            r"none|(Mon|Tue|Wed|Thu|Fri|Sat|Sun) ([01]\d|2[0-3]):[0-5]\d",
            "must be a day and a time in UTC, such as Sun 03:00, or none",
        ),
    ] = Field(
        default="Sun 03:00",
        description="When a week the host may reboot, in UTC, if an update such as a new kernel needs it and nobody is "
        "connected. It tries for 4 hours. none: never.",
        examples=["Sun 03:00"],
    )
    host_updates: Literal["replace", "in-place"] = Field(
        default="replace",
        description="What a new Teleport or another change of the host does: a new instance, or a stop and start.",
        examples=["replace"],
    )
    subnet_id: Annotated[str, _match(r"subnet-[0-9a-f]{8,17}", "must be a subnet's id")] | None = Field(
        default=None,
        description="The public subnet to run in. None: one of the cluster's VPC, in the zone of the data volume.",
        examples=["subnet-0123456789abcdef0"],
    )
    access_mode: Literal["auto", "access-entry", "aws-auth"] = Field(
        default="auto",
        description="How the cluster learns of the proxy's role. auto: as the cluster is set up.",
        examples=["auto"],
    )
    github_client_id: Annotated[str, _match(r"\S+", "must be the OAuth app's client id")] | None = Field(
        default=None,
        description="The GitHub OAuth app's client id. None: the outputs say how to create the app.",
        examples=["Iv1.0123456789abcdef"],
    )
    github_client_secret: SecretStr | None = Field(default=None, description="The GitHub OAuth app's client secret.")
    allow_system_masters: bool = Field(
        default=False,
        description="Lets teams have the group system:masters, which no policy in the cluster can restrict.",
        examples=[True],
    )
    allow_anonymous_impersonation: bool = Field(
        default=False,
        description="Binds the impersonation role to system:anonymous too, as the guide of 2019 did.",
        examples=[False],
    )
    teams: Annotated[tuple[Team, ...], _LIST] = Field(
        default=(), description="The GitHub teams, and what they are in the cluster.", examples=[[EXAMPLE_TEAM]]
    )
    session_ttl: Annotated[str, AfterValidator(_session_ttl)] = Field(
        default="12h",
        description="How long a sign-in lasts, and with it the access of somebody who has left a team.",
        examples=["12h"],
    )
    kubernetes_identity: Literal["shared", "person"] = Field(
        default="shared",
        description="Which Kubernetes user people are: one for all, or each their GitHub login.",
        examples=["shared"],
    )
    recordings: Literal["local", "s3"] = Field(
        default="local", description="Where session recordings are kept.", examples=["local"]
    )
    topology: Literal["single", "ha"] = Field(
        default="single", description="One instance, or several.", examples=["single"]
    )
    kubeconfig: (
        Annotated[SecretStr, AfterValidator(lambda text: SecretStr(_kubeconfig(text.get_secret_value())))] | None
    ) = Field(
        default=None,
        description="A kubeconfig (its text, or a path) to reach the cluster with. None: made from the cluster.",
        examples=["tunnel.kubeconfig"],
    )
    apply_to_cluster: bool = Field(
        default=True,
        description="false: write the cluster's objects to cluster-objects/, for a cluster out of reach.",
        examples=[False],
    )
    suffix_names: bool = Field(
        default=False,
        description="Ends the names in the cluster with the stack's, for a second proxy in one cluster.",
        examples=[True],
    )
    data_volume_size: int = Field(
        default=20, ge=10, le=16384, description="The data volume, in GiB; it can grow, never shrink.", examples=[20]
    )
    data_snapshot_id: Annotated[str, _match(r"snap-[0-9a-f]{8,17}", "must be a snapshot's id")] | None = Field(
        default=None,
        description="The snapshot that the data volume is restored from; another value replaces the volume.",
        examples=["snap-0123456789abcdef0"],
    )
    snapshot_days: int = Field(
        default=7,
        ge=0,
        le=365,
        description="How many days the volume's daily snapshots are kept; 0: none.",
        examples=[7],
    )
    wait_minutes: int = Field(
        default=15,
        ge=0,
        le=120,
        description="How long `pulumi up` waits for a new host to answer; 0: not at all.",
        examples=[15],
    )
    protect: bool = Field(
        default=True, description="Protects the address and the data volume from deletion.", examples=[True]
    )

    @field_validator("admin_cidrs", "client_cidrs")
    @classmethod
    def _cidrs_are_distinct(cls, cidrs: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({cidr for cidr in cidrs if cidrs.count(cidr) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} is listed twice: list each range once")
        return cidrs

    @field_validator("client_cidrs")
    @classmethod
    def _rules_fit_into_a_security_group(cls, cidrs: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        admin = info.data.get("admin_cidrs", ())
        count = len(rules(cidrs, admin, http_challenge=not info.data.get("hosted_zone")))
        if count > MOST_RULES:
            raise ValueError(
                f"{len(cidrs)} ranges here and {len(admin)} in adminCidrs make {count} firewall rules, and a security "
                f"group takes {MOST_RULES}: list fewer, wider ranges"
            )
        return cidrs

    @field_validator("admin_cidrs")
    @classmethod
    def _admin_is_not_everybody(cls, cidrs: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        wide = [cidr for cidr in cidrs if int(cidr.partition("/")[2]) < 8]
        if wide and not info.data.get("allow_open_admin_cidrs"):
            raise ValueError(
                f"{', '.join(wide)} opens SSH and the auth service to the internet; "
                f"if that is meant, set {NAMESPACE}:allowOpenAdminCidrs: true"
            )
        return cidrs

    @field_validator("hosted_zone")
    @classmethod
    def _zone_holds_the_domain(cls, zone: str | None, info: ValidationInfo) -> str | None:
        domain = info.data.get("domain_name")
        if "domain_name" in info.data and bool(domain) != bool(zone):
            raise ValueError("domainName and hostedZone go together: the name, and the Route 53 zone it is created in")
        if domain and zone and domain != zone and not domain.endswith(f".{zone}"):
            raise ValueError(f"must hold domainName: {domain} is not in the zone {zone}")
        return zone

    @field_validator("teleport_version")
    @classmethod
    def _version_is_safe(cls, version: str) -> str:
        if not re.fullmatch(r"\d+\.\d+\.\d+", version):
            raise ValueError("must be a release such as '18.10.1', quoted, without 'v'")
        numbers = tuple(int(number) for number in version.split("."))
        floor = OLDEST_TELEPORT.get(numbers[0], OLDEST_TELEPORT[18])
        if numbers < floor:
            raise ValueError(f"must be at least {'.'.join(map(str, floor))}: older releases have known vulnerabilities")
        return version

    @field_validator("instance_type")
    @classmethod
    def _instance_can_run_the_proxy(cls, instance_type: str) -> str:
        architecture(instance_type)
        if instance_type.endswith((".nano", ".micro")):
            raise ValueError(
                "must have at least 2 GiB of memory, as t3.small and t4g.small do: Teleport takes 240 MiB before "
                "anybody signs in, and certbot and system updates run beside it"
            )
        return instance_type

    @field_validator("github_client_secret")
    @classmethod
    def _id_and_secret_go_together(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if "github_client_id" in info.data and bool(info.data["github_client_id"]) != bool(secret):
            raise ValueError("githubClientId and githubClientSecret go together: set both, or neither")
        return secret

    @field_validator("teams")
    @classmethod
    def _teams_are_distinct_and_allowed(cls, teams: tuple[Team, ...], info: ValidationInfo) -> tuple[Team, ...]:
        organizations: dict[str, str] = {}
        named: dict[str, Team] = {}
        for team in teams:
            written = organizations.setdefault(team.organization.lower(), team.organization)
            if written != team.organization:
                raise ValueError(
                    f"{written} and {team.organization} are one organization on GitHub, and Teleport knows it only by "
                    "its exact name: write it in each team as its page on GitHub does"
                )
            # The team's role and bindings get this name, and a-b/c and a/b-c would share it.
            name = f"{team.organization.lower()}-{team.team}"
            other = named.setdefault(name, team)
            if other is not team and (other.organization, other.team) == (team.organization, team.team):
                raise ValueError(f"{team.organization}/{team.team} is listed twice: put its groups into one item")
            if other is not team:
                raise ValueError(
                    f"{other.organization}/{other.team} and {team.organization}/{team.team} both get the name {name}: "
                    "rename one of the two teams on GitHub, or give it access through another team"
                )
            if "system:masters" in team.kubernetes_groups and not info.data.get("allow_system_masters"):
                raise ValueError(
                    f"{team.organization}/{team.team} has system:masters, which nothing in the cluster can restrict; "
                    f"if that is meant, set {NAMESPACE}:allowSystemMasters: true"
                )
        return teams

    @field_validator("recordings", "topology")
    @classmethod
    def _is_there_yet(cls, value: str) -> str:
        if value in ("s3", "ha"):
            raise ValueError("is not available yet")
        return value

    @property
    def kubeconfig_text(self) -> str | None:
        return self.kubeconfig.get_secret_value() if self.kubeconfig else None

    @property
    def architecture(self) -> str:
        return architecture(self.instance_type)

    def warnings(self) -> list[str]:
        """What the operator opted into and should be reminded of at each preview."""
        opted = []
        if self.allow_anonymous_impersonation:
            opted.append(
                "allowAnonymousImpersonation: whoever can reach the cluster's API can act as any of the teams' groups, "
                "without signing in."
            )
        if self.allow_system_masters:
            opted.append(
                "allowSystemMasters: members of a team with system:masters can do anything in the cluster, "
                "and no policy there can stop them."
            )
        if self.allow_open_admin_cidrs:
            opted.append("allowOpenAdminCidrs: SSH and Teleport's auth service may be open to the internet.")
        return opted


def architecture(instance_type: str) -> str:
    """``amd64`` or ``arm64``, by AWS's naming rule: a ``g`` behind the generation is a Graviton processor.

    Only the general families T, M, C and R are known, from the generation on that
    shows volumes as NVMe devices, by which the host finds its own; anything else
    is a ValueError.
    """
    sizes = r"(nano|micro|small|medium|large|metal|\d*xlarge|metal-\d+xl)"
    match = re.fullmatch(rf"([tmcr])(\d+)([a-z]*)(-flex)?\.{sizes}", instance_type)
    if not match or int(match[2]) < (3 if match[1] == "t" else 5):
        raise ValueError(
            "must be a current instance type of the T, M, C or R family (t3, m5, c5, r5 or newer), "
            "x86-64 such as t3.small or arm64 such as t4g.small"
        )
    return "arm64" if "g" in match[3] else "amd64"


def load(stack: str) -> Settings:
    """The settings of the stack that runs. Raises ConfigurationError."""
    # pulumi.Config cannot list its keys, and a key that nobody knows is an error here.
    prefix = f"{NAMESPACE}:"
    config = {key.removeprefix(prefix): value for key, value in CONFIG.get().items() if key.startswith(prefix)}
    settings = parse(config, stack)
    if settings.github_client_secret and not is_config_secret(f"{prefix}githubClientSecret"):
        rule = f"is in plain text in Pulumi.{stack}.yaml: set it anew as a secret, and make another one at GitHub"
        write = f"pulumi config set --secret {prefix}githubClientSecret"
        refuse([Problem(f"{prefix}githubClientSecret", "(secret)", rule, write)], stack)
    return settings


def parse(config: Mapping[str, str], stack: str) -> Settings:
    """Checks a stack's configuration.

    ``config`` maps keys without the namespace to what Pulumi hands to the program:
    text, and JSON text for lists. An empty text is a key that is not set.

    Raises ConfigurationError with every problem in one message.
    """
    given = {key: value for key, value in config.items() if value != ""}
    try:
        return Settings.model_validate(given, by_alias=True, by_name=False)
    except pydantic.ValidationError as error:
        refuse([_problem(details) for details in error.errors()], stack)
        raise


def _problem(error: Any) -> Problem:
    """What pydantic found, in the operator's terms."""
    # A default that is refused goes by the field's name; as a key, that name is one more that nobody knows.
    known = {} if error["type"] == "extra_forbidden" else {**Settings.model_fields, **Team.model_fields}
    key, *path = (to_camel(step) if step in known else step for step in error["loc"])
    names = [step for step in path if isinstance(step, str)]
    examples = TEAM_EXAMPLES if names else EXAMPLES
    name = names[-1] if names else key
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)

    rule = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        name = difflib.get_close_matches(name, examples, 1, 0)[0]
        rule = f"no such key; the nearest is {name}"
    elif error["type"] == "missing":
        rule = "required" if names else f"required. {_FIELDS[key].description}"
    elif error["type"] == "literal_error":
        rule = f"must be {error['ctx']['expected']}"
    elif error["type"] == "bool_parsing":
        rule = "must be true or false"

    if error["type"] == "missing" or error["input"] in (None, ()):
        value = "(not set)"
    elif {key, name} & SECRETS:  # also where the key is only nearly a secret's
        value = "(secret)"
    else:
        value = textwrap.shorten(str(error["input"]), 120, placeholder=" ...")

    if name in SECRETS:
        write = f"pulumi config set --secret {NAMESPACE}:{name}"
    else:
        write = as_yaml(name if names else f"{NAMESPACE}:{name}", examples[name])
    return Problem(f"{NAMESPACE}:{key}{place}", value, rule, write)


_FIELDS = {field.alias or "": field for field in Settings.model_fields.values()}
EXAMPLES = {key: (field.examples or [None])[0] for key, field in _FIELDS.items()}
SECRETS = {key for key, field in _FIELDS.items() if "SecretStr" in str(field.annotation)}
