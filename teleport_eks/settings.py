"""The stack's configuration: the keys, their rules, and one message with all that is wrong."""

import difflib
import ipaddress
import re
import ssl
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pulumi.runtime
import pydantic
import yaml
from pulumi.runtime.config import CONFIG
from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic.alias_generators import to_camel
from pydantic_core import from_json

from teleport_eks import patterns
from teleport_eks.access import (
    EXAMPLE_BOT,
    EXAMPLE_CLUSTER,
    EXAMPLE_TEAM,
    ITEM_EXAMPLES,
    Access,
    AccessMode,
    AccessT,
    AdditionalCluster,
    Bot,
    Grant,
    Model,
    Team,
    are_listed_once,
    are_written_in_one_way,
    share_no_name,
)
from teleport_eks.errors import NAMESPACE, Problem, as_yaml, refuse
from teleport_eks.network import BETWEEN_HOSTS, rules
from teleport_eks.ports import Port

# The oldest release of each major version without a known serious vulnerability:
# 18.7.4 and 17.7.26 are named as such in Teleport's own changelog.
OLDEST_TELEPORT = {17: (17, 7, 26), 18: (18, 7, 4)}

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"

# EC2's default quota of inbound rules.
MOST_RULES = 60

# What CloudWatch Logs takes.
RETENTION_DAYS = (
    *(1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545),
    *(731, 1096, 1827, 2192, 2557, 2922, 3288, 3653),
)


class _UnusedError(ValueError):
    """The key must not be set at all."""


def _cidr(value: str) -> str:
    try:
        network = ipaddress.IPv4Network(value, strict=False)
    except ValueError:
        raise ValueError(patterns.WORDS[patterns.CIDR]) from None
    address, slash, _ = value.partition("/")
    if slash and address != str(network.network_address):
        raise ValueError(f"has host bits set: write {network} for the network or {address}/32 for the address")
    return str(network)


def _session_ttl(value: str) -> str:
    hours, _, minutes = value.rpartition("h")
    if not 1 <= int(hours or 0) * 60 + int(minutes.rstrip("m") or 0) <= 30 * 60:
        raise ValueError(patterns.WORDS[patterns.SESSION_TTL])
    return value


def _text_or_file(text: str, what: str) -> str:
    """``text``, read from a file if it is a path."""
    if "\n" in text.strip() or text.lstrip().startswith("{"):
        return text
    try:
        return Path(text).expanduser().read_text()
    except OSError as error:
        raise ValueError(f"is neither {what} nor a file that can be read: {error.strerror}") from None


def _root_certificate(value: str) -> str:
    text = _text_or_file(value, "a certificate in PEM")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        raise ValueError("must be a certificate in PEM, or the path of one") from None
    if "PRIVATE KEY" in text or not context.get_ca_certs():
        raise ValueError("must be the root certificate of a certificate authority, without its key")
    return text


def _eab_key(secret: SecretStr) -> SecretStr:
    if not re.fullmatch(patterns.EAB_KEY, secret.get_secret_value()):
        raise ValueError(patterns.WORDS[patterns.EAB_KEY])
    return secret


def _kubeconfig(secret: SecretStr) -> SecretStr:
    text = _text_or_file(secret.get_secret_value(), "a kubeconfig")
    try:
        parsed = yaml.safe_load(text)
    except yaml.YAMLError:
        parsed = None
    if not isinstance(parsed, dict) or "clusters" not in parsed:
        raise ValueError("must be a kubeconfig, or the path of one")
    return SecretStr(text)


def _tags(tags: dict[str, str]) -> dict[str, str]:
    if reserved := [key for key in tags if key == "Name" or key.lower().startswith(("aws:", "teleport-eks/"))]:
        raise ValueError(f"must not have {', '.join(reserved)}: Name, aws:... and teleport-eks/... are set by others")
    if twice := sorted(key for key in tags if [other.lower() for other in tags].count(key.lower()) > 1):
        raise ValueError(f"{', '.join(twice)} are one key to IAM, which ignores case: keep one of them")
    return tags


HostName = Annotated[str, Field(pattern=patterns.HOST_NAME, max_length=253)]
TagKey = Annotated[str, Field(pattern=patterns.TAG_KEY)]
TagValue = Annotated[str, Field(pattern=patterns.TAG_VALUE)]
Cidr = Annotated[str, Field(pattern=patterns.CIDR), AfterValidator(_cidr)]


class Settings(Model):
    """The checked configuration of one proxy, read from a stack's file by ``load``, or built by another program, which
    gets a ``pydantic.ValidationError`` that lists all mistakes.

    Each field is a key under ``teleport-eks:``. Messages tell the operator to write its first example. If a rule needs
    two keys, the validator of the later field reads the earlier one.
    """

    cluster_name: str = Field(
        pattern=patterns.CLUSTER_NAME, description="The EKS cluster to give access to.", examples=["production"]
    )
    acme_email: str = Field(
        pattern=patterns.EMAIL,
        description="The contact address of the ACME account. Let's Encrypt does not keep it and sends no warnings; "
        "another `acmeServer` may.",
        examples=["platform@example.com"],
    )
    topology: Literal["single", "ha"] = Field(
        default="single",
        description="single: one instance with a data volume. ha: two instances in two zones behind a load balancer, "
        "with their state in DynamoDB and their recordings in S3. Needs domainName and hostedZone.",
        examples=["single"],
    )
    domain_name: HostName | None = Field(
        default=None, description="The proxy's own DNS name.", examples=["teleport.example.com"]
    )
    hosted_zone: HostName | None = Field(
        default=None, description="The public Route 53 zone of domainName.", examples=["example.com"]
    )
    allow_open_admin_cidrs: bool = Field(
        default=False, description="Allows ranges wider than /8 in adminCidrs, such as 0.0.0.0/0.", examples=[True]
    )
    admin_cidrs: tuple[Cidr, ...] = Field(
        default=(),
        description="Who may reach SSH (22, 3022) and the auth service (3025). By default nobody; use Session Manager.",
        examples=[["203.0.113.7/32"]],
    )
    listener_mode: Literal["separate", "multiplex"] = Field(
        default="separate",
        description="separate: web, SSH, tunnel and Kubernetes have a port each. multiplex: all of them are on 443.",
        examples=["separate"],
    )
    client_cidrs: tuple[Cidr, ...] = Field(
        default=("0.0.0.0/0",),
        description="Who may reach the web page (3080), the SSH proxy (3023), the tunnel (3024) and Kubernetes (3026), "
        "or 443 with listenerMode multiplex.",
        examples=[["0.0.0.0/0"]],
    )
    dynamic_dns: Literal["nip.io", "sslip.io"] = Field(
        default="nip.io",
        description="The DNS service that gives the proxy its name if domainName is not set.",
        examples=["nip.io"],
    )
    acme_server: str = Field(
        default=LETS_ENCRYPT,
        pattern=patterns.ACME_SERVER,
        description="The URL of the ACME directory.",
        examples=[LETS_ENCRYPT],
    )
    acme_eab_key_id: str | None = Field(
        default=None,
        pattern=patterns.EAB_KEY_ID,
        description="The id of the key that binds the ACME account to yours at the certificate authority (external "
        "account binding). ZeroSSL, Google and others ask for one.",
        examples=["key-id"],
    )
    acme_eab_key: Annotated[SecretStr, AfterValidator(_eab_key)] | None = Field(
        default=None, description="The HMAC key of acmeEabKeyId."
    )
    private_ca: Annotated[str, AfterValidator(_root_certificate)] | None = Field(
        default=None,
        description="The root certificate of a private certificate authority, in PEM, as text or as a path. The host "
        "then trusts it in everything it does.",
        examples=["root.pem"],
    )
    certificate_arn: str | None = Field(
        default=None,
        pattern=patterns.CERTIFICATE,
        description="The ARN of an SSM parameter or of a Secrets Manager secret that holds the proxy's key and "
        "certificate chain in PEM. The host reads it each hour, and asks no ACME server. Needs domainName.",
        examples=["arn:aws:secretsmanager:eu-west-1:111122223333:secret:teleport-a1B2c3"],
    )
    teleport_version: str = Field(
        default="18.10.1", pattern=patterns.VERSION, description="The Teleport release to run.", examples=["18.10.1"]
    )
    teleport_sha256: str | None = Field(
        default=None,
        pattern=patterns.SHA256,
        description="The SHA-256 of the release. If not set, the host reads the one that Teleport publishes.",
        examples=["0123456789abcdef" * 4],
    )
    instance_type: str = Field(
        default="t3.small",
        pattern=patterns.INSTANCE_TYPE,
        description="An x86-64 or arm64 type of the T, M, C or R family with at least 2 GiB of memory.",
        examples=["t3.small"],
    )
    maintenance_window: str = Field(
        default="Sun 03:00",
        pattern=patterns.MAINTENANCE_WINDOW,
        description="The day and time in UTC from which the host may reboot, each week, if an update needs it and "
        "nobody is connected. It tries for 4 hours. none: it never reboots.",
        examples=["Sun 03:00"],
    )
    host_updates: Literal["replace", "in-place"] = Field(
        default="replace",
        description="How a new Teleport or another change reaches the host: a new instance, or a stop and start.",
        examples=["replace"],
    )
    subnet_id: str | None = Field(
        default=None,
        pattern=patterns.SUBNET,
        description="The public subnet to run in. If not set, the first of the VPC, in the zone of the data volume.",
        examples=["subnet-0123456789abcdef0"],
    )
    access_mode: AccessMode = Field(
        default="auto",
        description="How the cluster maps the proxy's role. auto: by an access entry if possible.",
        examples=["auto"],
    )
    github_client_id: str | None = Field(
        default=None,
        pattern=patterns.CLIENT_ID,
        description="The GitHub OAuth app's client id. If not set, the outputs say how to create the app.",
        examples=["Iv1.0123456789abcdef"],
    )
    github_client_secret: SecretStr | None = Field(default=None, description="The GitHub OAuth app's client secret.")
    allow_system_masters: bool = Field(
        default=False,
        description="Allows the group system:masters for teams and bots. No policy in the cluster can restrict it.",
        examples=[True],
    )
    allow_anonymous_impersonation: bool = Field(
        default=False,
        description="Binds the impersonation role to system:anonymous too, as the guide of 2019 did.",
        examples=[False],
    )
    teams: tuple[Team, ...] = Field(
        default=(),
        description="The GitHub teams, with their access to the cluster and the host.",
        examples=[[EXAMPLE_TEAM]],
    )
    bots: tuple[Bot, ...] = Field(
        default=(),
        description="Jobs of GitHub Actions with access to the cluster, without a person; see docs/machines.md.",
        examples=[[EXAMPLE_BOT]],
    )
    additional_clusters: tuple[AdditionalCluster, ...] = Field(
        default=(),
        description="More EKS clusters behind this proxy, in the same account and region; see docs/clusters.md.",
        examples=[[EXAMPLE_CLUSTER]],
    )
    session_ttl: Annotated[str, AfterValidator(_session_ttl)] = Field(
        default="12h",
        pattern=patterns.SESSION_TTL,
        description="How long a sign-in lasts, also for somebody who has left a team meanwhile.",
        examples=["12h"],
    )
    kubernetes_identity: Literal["shared", "person"] = Field(
        default="shared",
        description="The Kubernetes user of people: shared by all, or each person's GitHub login.",
        examples=["shared"],
    )
    recordings: Literal["local", "s3"] = Field(
        default="local",
        description="Where session recordings are kept: on the data volume, or in an S3 bucket of the stack's own. "
        "With topology ha, always in S3.",
        examples=["s3"],
    )
    recordings_days: int = Field(
        default=0,
        ge=0,
        le=36500,
        description="After how many days recordings in S3 expire. They are deleted for good 30 days later. 0: never.",
        examples=[365],
    )
    recordings_lock_days: int = Field(
        default=0,
        ge=0,
        le=36500,
        description="For how many days nobody can delete or replace a new recording in S3, unless they have the right "
        "`s3:BypassGovernanceRetention`. 0: no lock.",
        examples=[90],
    )
    kubeconfig: Annotated[SecretStr, AfterValidator(_kubeconfig)] | None = Field(
        default=None,
        description="A kubeconfig for the cluster, as text or as a path. If not set, the program makes one.",
        examples=["tunnel.kubeconfig"],
    )
    apply_to_cluster: bool = Field(
        default=True,
        description="false: write the cluster's objects to cluster-objects/, if Pulumi cannot reach the cluster.",
        examples=[False],
    )
    suffix_names: bool = Field(
        default=False,
        description="Appends the stack's name to names in the cluster, so that two proxies can share it.",
        examples=[True],
    )
    data_volume_size: int = Field(
        default=20,
        ge=10,
        le=16384,
        description="The size of the data volume in GiB. It can grow, but not shrink.",
        examples=[20],
    )
    data_snapshot_id: str | None = Field(
        default=None,
        pattern=patterns.SNAPSHOT,
        description="The snapshot to restore the data volume from. Another value replaces the volume.",
        examples=["snap-0123456789abcdef0"],
    )
    snapshot_days: int = Field(
        default=7,
        ge=0,
        le=365,
        description="How many days to keep the volume's daily snapshots. 0: no snapshots.",
        examples=[7],
    )
    wait_minutes: int = Field(
        default=15,
        ge=0,
        le=120,
        description="How many minutes `pulumi up` waits for a new host to answer. 0: it does not wait.",
        examples=[15],
    )
    alarm_topic_arn: str | None = Field(
        default=None,
        pattern=patterns.TOPIC,
        description="The SNS topic to send CloudWatch alarms about the proxy to. By default, there are no alarms.",
        examples=["arn:aws:sns:eu-west-1:111122223333:on-call"],
    )
    log_retention_days: int = Field(
        default=0,
        description="How many days CloudWatch Logs keeps the units' logs and Teleport's audit events. 0: they stay on "
        "the host.",
        examples=[90],
        json_schema_extra={"enum": [0, *RETENTION_DAYS]},
    )
    permissions_boundary: str | None = Field(
        default=None,
        pattern=patterns.POLICY_ARN,
        description="The ARN of the permissions boundary of the IAM roles.",
        examples=["arn:aws:iam::111122223333:policy/boundary"],
    )
    iam_path: str | None = Field(
        default=None,
        pattern=patterns.IAM_PATH,
        max_length=512,
        description="The path of the IAM roles and of the instance profile. Another path means new roles.",
        examples=["/platform/"],
    )
    kms_key_arn: str | None = Field(
        default=None,
        pattern=patterns.KMS_KEY,
        description="The KMS key for the volumes, their snapshots, the recordings in S3, the logs and the secrets in "
        "SSM. By default AWS's own. A data volume keeps its key; docs/operations.md says how to move it to another "
        "one.",
        examples=["arn:aws:kms:eu-west-1:111122223333:key/01234567-89ab-cdef-0123-456789abcdef"],
    )
    tags: Annotated[dict[TagKey, TagValue], AfterValidator(_tags)] = Field(
        default={},
        max_length=45,  # AWS allows 50, and the program has its own
        description="Tags for every AWS resource, and for the instance's root volume.",
        examples=[{"team": "platform", "cost-center": "1234"}],
    )
    protect: bool = Field(
        default=True,
        description="Protects the address and the data volume from deletion, and keeps the bucket of the recordings. "
        "With topology ha, protects the tables and the load balancer instead.",
        examples=[True],
    )

    @field_validator("admin_cidrs", "client_cidrs", "tags", "teams", "bots", "additional_clusters", mode="before")
    @classmethod
    def _from_json(cls, value: Any) -> Any:
        # Pulumi hands lists and maps to the program as JSON text. pydantic.Json takes text only; other programs pass
        # lists and maps, and in the editors' schema these are what they are.
        try:
            return from_json(value) if isinstance(value, str) else value
        except ValueError:
            return value  # a text is no list, so it is refused

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
        mode = info.data.get("listener_mode", "separate")
        count = len(rules(cidrs, admin, http_challenge=not info.data.get("hosted_zone"), listener_mode=mode))
        if info.data.get("topology") == "ha":
            count += 2 + len(BETWEEN_HOSTS)  # from the balancer in two zones, and from the other host
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
                f"if you want that, set {NAMESPACE}:allowOpenAdminCidrs: true"
            )
        return cidrs

    @field_validator("domain_name", "hosted_zone")
    @classmethod
    def _ha_has_a_name(cls, name: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("topology") == "ha" and not name:
            raise ValueError(
                "topology ha needs domainName and hostedZone, because a load balancer has no fixed address for a name "
                "under nip.io"
            )
        return name

    @field_validator("host_updates", "subnet_id", "data_snapshot_id")
    @classmethod
    def _is_about_one_host(cls, value: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("topology") != "ha" or value in (None, "replace"):
            return value
        if info.field_name == "host_updates":
            raise ValueError("topology ha replaces its hosts one after the other, and changes none in place")
        why = {
            "subnet_id": "topology ha has a host in each of two zones, and chooses their subnets itself",
            "data_snapshot_id": "topology ha has no data volume: its state is in tables",
        }
        raise _UnusedError(f"{why[info.field_name or '']}. Remove the key")

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
        numbers = tuple(int(number) for number in version.split("."))
        floor = OLDEST_TELEPORT.get(numbers[0], OLDEST_TELEPORT[18])
        if numbers < floor:
            raise ValueError(f"must be at least {'.'.join(map(str, floor))}: older releases have known vulnerabilities")
        return version

    @field_validator("instance_type")
    @classmethod
    def _instance_can_run_the_proxy(cls, instance_type: str) -> str:
        if instance_type.endswith((".nano", ".micro")):
            raise ValueError(
                "must have at least 2 GiB of memory, as t3.small and t4g.small do: Teleport needs 240 MiB before "
                "anybody signs in, and certbot and system updates run on the host too"
            )
        return instance_type

    @field_validator("acme_eab_key_id")
    @classmethod
    def _lets_encrypt_binds_no_accounts(cls, key_id: str | None, info: ValidationInfo) -> str | None:
        if key_id and info.data.get("acme_server") == LETS_ENCRYPT:
            raise ValueError("needs acmeServer: the directory of the certificate authority that this key is from")
        return key_id

    @field_validator("certificate_arn")
    @classmethod
    def _certificate_comes_from_one_place(cls, arn: str | None, info: ValidationInfo) -> str | None:
        if arn and info.data.get("domain_name", "") is None:
            raise ValueError("needs domainName: the name that the certificate is for")
        acme = {"acmeServer": info.data.get("acme_server", LETS_ENCRYPT) != LETS_ENCRYPT}
        acme["acmeEabKeyId and acmeEabKey"] = bool(info.data.get("acme_eab_key_id"))
        if arn and (others := [key for key, is_set in acme.items() if is_set]):
            raise ValueError(f"means that no ACME server is asked: remove it, or {', '.join(others)}")
        return arn

    @field_validator("acme_eab_key", "github_client_secret")
    @classmethod
    def _id_and_secret_go_together(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        name = info.field_name or ""
        other = {"acme_eab_key": "acme_eab_key_id", "github_client_secret": "github_client_id"}[name]
        if other in info.data and bool(info.data[other]) != bool(secret):
            raise ValueError(f"{to_camel(other)} and {to_camel(name)} go together: set both, or neither")
        return secret

    @field_validator("teams", "bots", "additional_clusters")
    @classmethod
    def _are_distinct_and_allowed(cls, value: Any, info: ValidationInfo) -> Any:
        of_the_stack = [*info.data.get("teams", ()), *info.data.get("bots", ())]
        if info.field_name == "additional_clusters":
            listed = [item for cluster in value for item in (*(cluster.teams or ()), *(cluster.bots or ()))]
        else:
            listed = value
            are_listed_once(listed)
        are_written_in_one_way([item for item in (*of_the_stack, *listed) if isinstance(item, Team)])
        share_no_name([*of_the_stack, *listed])
        for item in listed:
            if "system:masters" in item.kubernetes_groups and not info.data.get("allow_system_masters"):
                raise ValueError(
                    f"{item.on_github} has system:masters, which nothing in the cluster can restrict; "
                    f"if you want that, set {NAMESPACE}:allowSystemMasters: true"
                )
        return value

    @field_validator("additional_clusters")
    @classmethod
    def _clusters_are_distinct(
        cls, clusters: tuple[AdditionalCluster, ...], info: ValidationInfo
    ) -> tuple[AdditionalCluster, ...]:
        names = [info.data.get("cluster_name"), *(cluster.cluster_name for cluster in clusters)]
        if twice := sorted({name for name in names if name and names.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} is listed twice: list each cluster once, and not clusterName's")
        return clusters

    @field_validator("kubeconfig")
    @classmethod
    def _has_a_context_for_each_cluster(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        names = [cluster.cluster_name for cluster in info.data.get("additional_clusters", ())]
        if not secret or not names:
            return secret
        # kubectl writes null for an empty list.
        contexts = [item.get("name") for item in yaml.safe_load(secret.get_secret_value()).get("contexts") or ()]
        if contexts and (missing := [name for name in names if name not in contexts]):
            raise ValueError(
                f"has no context named {' or '.join(missing)}: each of additionalClusters needs a context with its name"
            )
        return secret

    @field_validator("log_retention_days")
    @classmethod
    def _retention_is_one_of_cloudwatchs(cls, days: int) -> int:
        if days not in (0, *RETENTION_DAYS):
            raise ValueError(f"must be 0, or what CloudWatch Logs takes: {', '.join(map(str, RETENTION_DAYS))}")
        return days

    @field_validator("recordings_days", "recordings_lock_days")
    @classmethod
    def _is_about_the_bucket(cls, days: int, info: ValidationInfo) -> int:
        if days and info.data.get("recordings") == "local" and info.data.get("topology") != "ha":
            raise ValueError(
                f"needs {NAMESPACE}:recordings: s3; on the data volume, nothing deletes or locks recordings"
            )
        return days

    @field_validator("recordings_lock_days")
    @classmethod
    def _lock_ends_before_the_recording(cls, days: int, info: ValidationInfo) -> int:
        if 0 < info.data.get("recordings_days", 0) < days:
            raise ValueError("must not be more than recordingsDays, because a locked recording cannot be deleted")
        return days

    @property
    def recordings_in_s3(self) -> bool:
        """Several hosts have no volume that all of them could keep recordings on."""
        return self.recordings == "s3" or self.topology == "ha"

    @property
    def grants(self) -> tuple[Grant, ...]:
        """The roles of all teams and bots. Only a role for one additional cluster begins with ``kube.``."""
        made: list[Grant] = []
        for kind in ("teams", "bots"):
            own = {c.cluster_name: listed for c in self.additional_clusters if (listed := getattr(c, kind)) is not None}
            shared = [name for name in self.cluster_names if name not in own] if own else ()
            made += [Grant(item, tuple(shared)) for item in getattr(self, kind)]
            for name, listed in own.items():
                made += [Grant(item, (name,), f"kube.{name}.") for item in listed]
        return tuple(made)

    def roles_of(self, kind: type[AccessT]) -> list[tuple[AccessT, list[str]]]:
        """Each team, or each bot, with all of its roles. One that is in the lists of several clusters is there once."""
        found: dict[str, tuple[AccessT, list[str]]] = {}
        for grant in self.grants:
            if isinstance(grant.access, kind):
                found.setdefault(grant.access.on_github, (grant.access, []))[1].append(grant.role)
        return list(found.values())

    @property
    def organizations(self) -> tuple[str, ...]:
        """The GitHub organizations of all teams, in their order."""
        return tuple(dict.fromkeys(team.organization for team, _ in self.roles_of(Team)))

    @property
    def cluster_names(self) -> tuple[str, ...]:
        return self.cluster_name, *(cluster.cluster_name for cluster in self.additional_clusters)

    def granted_in(self, cluster: str) -> list[Access]:
        """All who have access to a cluster."""
        return [grant.access for grant in self.grants if cluster in (grant.clusters or self.cluster_names)]

    def kubeconfig_for(self, cluster: str) -> str | None:
        """The text of the kubeconfig that is set, if one is. For an additional cluster, with that cluster's context."""
        if not self.kubeconfig:
            return None
        text = self.kubeconfig.get_secret_value()
        return (
            text
            if cluster == self.cluster_name
            else yaml.safe_dump(yaml.safe_load(text) | {"current-context": cluster})
        )

    @property
    def architecture(self) -> str:
        """``amd64`` or ``arm64``, by AWS's naming rule: a ``g`` behind the generation is a Graviton processor."""
        return "arm64" if "g" in self.instance_type.partition(".")[0] else "amd64"

    @property
    def web_port(self) -> int:
        """Where the web page is, and where tsh learns of the other ports, if there are any."""
        return int(Port.MULTIPLEX if self.listener_mode == "multiplex" else Port.WEB)

    def warnings(self) -> list[str]:
        """Risks that the operator accepted, to repeat at each preview."""
        opted = []
        if self.allow_anonymous_impersonation:
            opted.append(
                "allowAnonymousImpersonation: everybody who reaches the cluster's API can act as any of the teams' "
                "groups without signing in."
            )
        if self.allow_system_masters:
            opted.append(
                "allowSystemMasters: members of a team, and bots, with system:masters can do anything in the cluster, "
                "and no policy there can stop them."
            )
        if self.allow_open_admin_cidrs:
            opted.append("allowOpenAdminCidrs: SSH and Teleport's auth service may be open to the internet.")
        return opted


def load(stack: str) -> Settings:
    """The settings of the stack that runs. Raises ConfigurationError."""
    # CONFIG is not public in the SDK. But unknown keys are errors here, and the SDK has no public way to list keys.
    prefix = f"{NAMESPACE}:"
    config = {key.removeprefix(prefix): value for key, value in CONFIG.get().items() if key.startswith(prefix)}
    settings = parse(config, stack)
    plain = [
        Problem(
            key,
            "(secret)",
            f"is in plain text in Pulumi.{stack}.yaml: create another one at {where} and set that as a secret",
            f"pulumi config set --secret {key}",
        )
        for name, where in {"acmeEabKey": "the certificate authority", "githubClientSecret": "GitHub"}.items()
        if config.get(name) and not pulumi.runtime.is_config_secret(key := f"{prefix}{name}")
    ]
    refuse(plain, stack)
    return settings


def parse(config: Mapping[str, str], stack: str) -> Settings:
    """Checks a stack's configuration. Raises ConfigurationError with all problems in one message.

    ``config`` has keys without the namespace and values as Pulumi gives them to the program: text, and JSON text for
    lists. An empty text means that the key is not set.
    """
    given = {key: value for key, value in config.items() if value != ""}
    try:
        return Settings.model_validate(given, by_alias=True, by_name=False)
    except pydantic.ValidationError as error:
        refuse([_problem(details) for details in error.errors()], stack)
        raise


def _problem(error: Any) -> Problem:
    """An error of pydantic in the operator's terms."""
    # pydantic gives the field's name if it refuses a default. As a key in a file, that name is unknown.
    models = Settings, Team, Bot, AdditionalCluster
    known = {} if error["type"] == "extra_forbidden" else {name for model in models for name in model.model_fields}
    key, *path = (to_camel(step) if step in known else step for step in error["loc"])
    path = [step for step in path if step != "[key]"]
    names = [step for step in path if isinstance(step, str)] if key in ITEM_EXAMPLES else []
    *_, parent, name = key, key, *names
    examples = ITEM_EXAMPLES[parent] if names else EXAMPLES
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)

    context = error.get("ctx", {})
    words = patterns.WORDS.get(context.get("pattern", error["type"]))
    rule = words.format(**context) if words else error["msg"]
    if error["type"] == "extra_forbidden":
        name = difflib.get_close_matches(name, examples, 1, 0)[0]
        rule = f"no such key; the nearest is {name}"
    elif error["type"] == "missing" and not names:
        rule += f". {_FIELDS[key].description}"

    if error["type"] == "missing" or error["input"] in (None, ()):
        value = "(not set)"
    elif {key, name} & SECRETS or "PRIVATE KEY" in str(error["input"]):  # also if the key is a misspelled secret
        value = "(secret)"
    else:
        value = textwrap.shorten(str(error["input"]), 120, placeholder=" ...")

    if isinstance(context.get("error"), _UnusedError):
        fix = f"pulumi config rm {NAMESPACE}:{key}"
    elif name in SECRETS:
        fix = f"pulumi config set --secret {NAMESPACE}:{name}"
    else:
        fix = as_yaml(name if names else f"{NAMESPACE}:{name}", examples[name])
    return Problem(f"{NAMESPACE}:{key}{place}", value, rule, fix)


_FIELDS = {field.alias or "": field for field in Settings.model_fields.values()}
EXAMPLES = {key: (field.examples or [None])[0] for key, field in _FIELDS.items()}
SECRETS = {key for key, field in _FIELDS.items() if "SecretStr" in str(field.annotation)}
