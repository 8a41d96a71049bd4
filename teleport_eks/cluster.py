"""Looks up the EKS cluster, which the stack never changes, and checks what the stack asks of it."""

import asyncio
import ipaddress
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pulumi
import pulumi_aws as aws
import yaml
from pulumi.runtime.sync_await import _sync_await  # pulumi_aws uses it too; the SDK has no public name for it

from teleport_eks.cluster_access import Names, entry_lost_at
from teleport_eks.commands import check_environment
from teleport_eks.credentials import KEYS, Credentials, credentials
from teleport_eks.errors import NAMESPACE, Problem, as_yaml, refuse
from teleport_eks.host_group import NODES
from teleport_eks.network import EVERYBODY
from teleport_eks.settings import Settings
from teleport_eks.storage import STACK_TAG
from teleport_eks.subnets import RouteTable, Subnet, Volume, in_different_zones, public_subnets

T = TypeVar("T")

# A cluster from before access entries does not say its mode. It is this one.
DEFAULT_AUTHENTICATION_MODE = "CONFIG_MAP"


@dataclass(frozen=True)
class Cluster:
    """The facts about the cluster that the program uses.

    ``authentication_mode`` is ``API``, ``API_AND_CONFIG_MAP`` or ``CONFIG_MAP``;
    ``certificate_authority`` is base64 of PEM, as EKS gives it.
    """

    name: str
    arn: str
    endpoint: str
    certificate_authority: str
    authentication_mode: str
    vpc_id: str
    security_group_id: str
    endpoint_public_access: bool
    endpoint_private_access: bool
    public_access_cidrs: tuple[str, ...]

    @property
    def partition(self) -> str:
        return self.arn.split(":")[1]

    @property
    def region(self) -> str:
        return self.arn.split(":")[3]

    @property
    def account_id(self) -> str:
        return self.arn.split(":")[4]

    def arn_beside(self, service: str, resource: str) -> str:
        """The ARN of a resource of another service, in the cluster's account and region."""
        return f"arn:{self.partition}:{service}:{self.region}:{self.account_id}:{resource}"


@dataclass(frozen=True)
class MappedCluster:
    """A cluster, and how it maps the proxy's role: ``access_mode`` is access-entry or aws-auth.

    ``suffix`` ends the names of its resources. The stack's first cluster has none.
    ``entry_lost_at`` comes from ``cluster_access.entry_lost_at``; empty if the proxy has no entry in aws-auth.
    """

    cluster: Cluster
    access_mode: str
    suffix: str = ""
    entry_lost_at: str = ""


@dataclass(frozen=True)
class Site:
    """Where the proxy runs, and the clusters that it gives access to. The first one is the stack's ``clusterName``.

    ``more_subnets``, with topology ha, are in the same VPC and in other zones.
    """

    clusters: tuple[MappedCluster, ...]
    subnet: Subnet
    names: Names
    credentials: Credentials = field(default_factory=Credentials)
    more_subnets: tuple[Subnet, ...] = ()

    @property
    def cluster(self) -> Cluster:
        return self.clusters[0].cluster

    @property
    def access_mode(self) -> str:
        return self.clusters[0].access_mode

    def is_beside(self, cluster: Cluster) -> bool:
        """Whether the proxy is in the cluster's VPC. Otherwise it uses the cluster's public endpoint."""
        return self.subnet.vpc_id == cluster.vpc_id


def look_up(settings: Settings, stack: str, opts: pulumi.InvokeOptions | None = None) -> Site:
    """Reads the cluster, its VPC's subnets and the stack's volume. ``opts`` can name an AWS provider of your own.

    ``stack`` is the proxy's name in the account, as in ``TeleportProxyArgs``.
    Raises ConfigurationError if the account does not have what the settings ask for, or commands cannot run here.
    """
    check_environment()
    # The stack's file configures the default provider. A provider of your own has its own credentials.
    config = {} if opts and opts.provider else {key: pulumi.Config("aws").get(key) or "" for key in KEYS}
    signed_in_as, problems = credentials(config)
    if settings.apply_to_cluster and not settings.kubeconfig:
        refuse(problems, stack)
    clusters, subnets, tables, volumes = _sync_await(_look_up(settings, stack, opts))
    site = choose_site(settings, stack, clusters, subnets, tables, volumes)

    def with_lost_entry(mapped: MappedCluster) -> MappedCluster:
        if mapped.access_mode != "aws-auth" or not settings.apply_to_cluster:
            return mapped
        text = operators_kubeconfig(settings, mapped.cluster, signed_in_as)
        return replace(mapped, entry_lost_at=entry_lost_at(text, site.names))

    return replace(site, clusters=tuple(map(with_lost_entry, site.clusters)), credentials=signed_in_as)


def choose_site(
    settings: Settings,
    stack: str,
    clusters: Sequence[Cluster],
    subnets: Sequence[Subnet],
    tables: Sequence[RouteTable],
    volumes: Sequence[Volume],
) -> Site:
    """Decides the subnet and the access modes. Refuses with all reasons at once.

    ``clusters`` are in the settings' order. ``subnets`` is the one that the settings name, or else all of the VPC, with
    its route ``tables``. The subnet is in the zone of the stack's ``volumes``, unless a new snapshot replaces the
    volume anyway.
    """
    problems: list[Problem] = []
    cluster = clusters[0]
    public = subnets if settings.subnet_id else public_subnets(subnets, tables)
    moves = settings.data_snapshot_id and settings.data_snapshot_id not in {v.snapshot_id for v in volumes}
    zones = {volume.availability_zone for volume in volumes} if not moves else set()
    possible = [subnet for subnet in public if not zones or subnet.availability_zone in zones]
    if not public:
        looked_at = "; ".join(f"{s.id} {s.name} {s.cidr}" for s in subnets) or "it has no subnet at all"
        problems.append(
            Problem(
                f"{NAMESPACE}:subnetId",
                "(not set)",
                f"no subnet of {cluster.vpc_id} has a route to an internet gateway ({looked_at}); "
                "add that route to the route table of one, or name a public subnet of another VPC",
                as_yaml(f"{NAMESPACE}:subnetId", subnets[0].id if subnets else "subnet-0123456789abcdef0"),
            )
        )
    elif not possible:
        zone = " or ".join(sorted(zones))
        problems.append(
            Problem(
                f"{NAMESPACE}:subnetId",
                settings.subnet_id or "(not set)",
                f"the volume with the proxy's data, {', '.join(v.id for v in volumes)}, is in {zone} and cannot leave "
                f"it, but this subnet is in {public[0].availability_zone}: name a public subnet in {zone}; "
                "docs/operations.md says how to move the proxy to another zone",
                as_yaml(f"{NAMESPACE}:subnetId", "subnet-0123456789abcdef0") + f"   # a public subnet in {zone}",
            )
        )
    elif possible[0].vpc_id != cluster.vpc_id and not cluster.endpoint_public_access:
        problems.append(
            Problem(
                f"{NAMESPACE}:subnetId",
                possible[0].id,
                f"is in {possible[0].vpc_id}, but the endpoint of {cluster.name} is private and answers only in "
                f"{cluster.vpc_id}: choose a subnet there, or enable the cluster's public endpoint",
                as_yaml(f"{NAMESPACE}:subnetId", "subnet-0123456789abcdef0"),
            )
        )
    wanted = NODES if settings.topology == "ha" else 1
    chosen = in_different_zones(possible)[:wanted]
    if possible and len(chosen) < wanted:
        problems.append(
            Problem(
                f"{NAMESPACE}:topology",
                "ha",
                f"all public subnets of {cluster.vpc_id} are in {possible[0].availability_zone}: add one in another "
                "zone, with a route to an internet gateway, or keep one instance",
                as_yaml(f"{NAMESPACE}:topology", "single"),
            )
        )
    key = settings.kms_key_arn
    other = [v for v in volumes if v.kms_key_arn != key]
    if key and other and not moves:
        problems.append(
            Problem(
                f"{NAMESPACE}:kmsKeyArn",
                key,
                f"the volume with the proxy's data, {other[0].id}, has the key {other[0].kms_key_arn or 'of AWS'}, and "
                "a volume keeps its key: restore it from a snapshot with the new one, as docs/operations.md says",
                as_yaml(f"{NAMESPACE}:dataSnapshotId", "snap-0123456789abcdef0") + "   # of this volume",
            )
        )
    topic = settings.alarm_topic_arn
    if topic and topic.split(":")[3] != cluster.region:
        problems.append(
            Problem(
                f"{NAMESPACE}:alarmTopicArn",
                topic,
                f"CloudWatch sends alarms only to topics of their own region: name one in {cluster.region}",
                as_yaml(
                    f"{NAMESPACE}:alarmTopicArn", f"arn:{cluster.partition}:sns:{cluster.region}:111122223333:on-call"
                ),
            )
        )
    mapped = []
    for index, (own, each) in enumerate(zip((settings, *settings.additional_clusters), clusters, strict=True)):
        mode = access_mode(own.access_mode, each.authentication_mode)
        if not mode:
            rule = f"{each.name} has the authentication mode {each.authentication_mode}, which does not allow this"
            problems.append(_problem(index, "accessMode", own.access_mode, rule, "auto"))
        if index and possible and possible[0].vpc_id != each.vpc_id and not each.endpoint_public_access:
            rule = (
                f"its endpoint is private and answers only in {each.vpc_id}, but the proxy is in "
                f"{possible[0].vpc_id}: give this cluster a stack of its own, or enable its public endpoint"
            )
            problems.append(_problem(index, "clusterName", each.name, rule, "tools"))
        mapped.append(MappedCluster(each, mode, f"-{each.name}" if index else ""))
    refuse(problems, stack)
    names = Names(f"-{stack}" if settings.suffix_names else "")
    return Site(tuple(mapped), chosen[0], names, more_subnets=tuple(chosen[1:]))


def _problem(index: int, key: str, value: str, rule: str, example: str) -> Problem:
    """A problem with a setting of one cluster: the stack's own has index 0, and the additional ones follow."""
    if not index:
        return Problem(f"{NAMESPACE}:{key}", value, rule, as_yaml(f"{NAMESPACE}:{key}", example))
    return Problem(f"{NAMESPACE}:additionalClusters[{index - 1}].{key}", value, rule, as_yaml(key, example))


def access_mode(requested: str, authentication_mode: str) -> str:
    """``access-entry`` or ``aws-auth``; empty if the cluster cannot do what is requested."""
    possible = {
        "API": ("access-entry",),
        "API_AND_CONFIG_MAP": ("access-entry", "aws-auth"),
        "CONFIG_MAP": ("aws-auth",),
    }[authentication_mode]
    if requested == "auto":
        return possible[0]
    return requested if requested in possible else ""


def endpoint_warning(site: Site, cluster: Cluster, public_ip: str) -> str:
    """What to change in the cluster so that the proxy, at ``public_ip``, reaches its API; empty if it does.

    Without a ``public_ip``, each host has an address of its own, and a new host has a new one.

    If the cluster has a private endpoint, its name resolves to private addresses in the cluster's VPC. Otherwise the
    proxy uses the public endpoint.
    """
    if cluster.endpoint_private_access and site.is_beside(cluster):
        return ""
    admitted = cluster.public_access_cidrs
    if EVERYBODY in admitted or (
        public_ip and any(ipaddress.ip_address(public_ip) in ipaddress.ip_network(cidr) for cidr in admitted)
    ):
        return ""
    fixed = f"add {public_ip}/32 to its publicAccessCidrs, or " if public_ip else "the hosts' addresses change, so "
    return (
        f"the public endpoint of {cluster.name} admits only {', '.join(admitted)}: "
        f"{fixed}enable its private endpoint and put the proxy into {cluster.vpc_id}"
    )


def operators_kubeconfig(settings: Settings, cluster: Cluster, credentials: Credentials) -> str:
    """The kubeconfig with which Pulumi reaches a cluster: the one that the settings have, or one without a secret."""
    return settings.kubeconfig_for(cluster.name) or kubeconfig(cluster, credentials)


def kubeconfig(cluster: Cluster, credentials: Credentials) -> str:
    """A kubeconfig without a secret: each use asks the AWS CLI for a token, with ``credentials``."""
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": cluster.name,
            "clusters": [
                {
                    "name": cluster.name,
                    "cluster": {
                        "server": cluster.endpoint,
                        "certificate-authority-data": cluster.certificate_authority,
                    },
                }
            ],
            "contexts": [{"name": cluster.name, "context": {"cluster": cluster.name, "user": cluster.name}}],
            "users": [
                {
                    "name": cluster.name,
                    "user": {
                        "exec": {
                            "apiVersion": "client.authentication.k8s.io/v1beta1",
                            "command": "aws",
                            "args": [
                                *("--region", cluster.region),
                                *(("--profile", credentials.profile) if credentials.profile else ()),
                                *("eks", "get-token", "--cluster-name", cluster.name, "--output", "json"),
                                *(("--role-arn", credentials.role_arn) if credentials.role_arn else ()),
                            ],
                        }
                    },
                }
            ],
        },
        sort_keys=False,
    )


async def _look_up(
    settings: Settings, stack: str, opts: pulumi.InvokeOptions | None
) -> tuple[list[Cluster], list[Subnet], list[RouteTable], list[Volume]]:
    """All that is looked up, side by side where one does not need the other, so that it takes three round trips."""
    # Before the first answer, the engine starts the AWS provider. Meanwhile, import the largest part of the SDK.
    loaded = asyncio.get_running_loop().run_in_executor(None, lambda: aws.ec2.Instance)
    volumes = asyncio.ensure_future(_look_up_volumes(settings, stack, opts))
    clusters = _look_up_clusters(settings, stack, opts)
    await loaded
    if settings.subnet_id:
        return clusters, [await _look_up_subnet(settings.subnet_id, opts)], [], await volumes
    vpc_id = clusters[0].vpc_id
    return (
        clusters,
        *await asyncio.gather(_look_up_subnets(vpc_id, opts), _look_up_route_tables(vpc_id, opts), volumes),
    )


def _look_up_clusters(settings: Settings, stack: str, opts: pulumi.InvokeOptions | None) -> list[Cluster]:
    clusters, problems = [], []
    for index, name in enumerate(settings.cluster_names):
        try:
            clusters.append(_look_up_cluster(name, opts))
        except Exception as error:
            # The words of the AWS provider and of EKS.
            missing = "couldn't find resource", "ResourceNotFound", "No cluster found"
            if not any(words in str(error) for words in missing):
                raise
            rule = f"no cluster has this name here; {_existing_clusters(opts)}"
            problems.append(_problem(index, "clusterName", name, rule, "production"))
    refuse(problems, stack)
    return clusters


def _look_up_cluster(name: str, opts: pulumi.InvokeOptions | None) -> Cluster:
    found = aws.eks.get_cluster(name=name, opts=opts)
    modes = [config.authentication_mode for config in found.access_configs or []]
    return Cluster(
        name=found.name,
        arn=found.arn,
        endpoint=found.endpoint,
        certificate_authority=found.certificate_authorities[0].data,
        authentication_mode=(modes or [""])[0] or DEFAULT_AUTHENTICATION_MODE,
        vpc_id=found.vpc_config.vpc_id,
        security_group_id=found.vpc_config.cluster_security_group_id,
        endpoint_public_access=found.vpc_config.endpoint_public_access,
        endpoint_private_access=found.vpc_config.endpoint_private_access,
        public_access_cidrs=tuple(found.vpc_config.public_access_cidrs or ()),
    )


def _existing_clusters(opts: pulumi.InvokeOptions | None) -> str:
    try:
        names = aws.eks.get_clusters(opts=opts).names
    except Exception as error:  # this is only a hint, and must not replace the message
        return f"could not list the clusters: {textwrap.shorten(str(error), 100)}"
    return f"there are {', '.join(sorted(names))}" if names else "there is none in this account and region"


async def _answer(look_up: pulumi.Output[T]) -> T:
    answer = await look_up.future()
    if answer is None:
        raise RuntimeError("the AWS provider that you pass to look_up must not depend on what is not there yet")
    return answer


async def _look_up_subnets(vpc_id: str, opts: pulumi.InvokeOptions | None) -> list[Subnet]:
    filters: list[Any] = [{"name": "vpc-id", "values": [vpc_id]}]
    ids = (await _answer(aws.ec2.get_subnets_output(filters=filters, opts=opts))).ids
    return await asyncio.gather(*(_look_up_subnet(subnet_id, opts) for subnet_id in ids))


async def _look_up_subnet(subnet_id: str, opts: pulumi.InvokeOptions | None) -> Subnet:
    found = await _answer(aws.ec2.get_subnet_output(id=subnet_id, opts=opts))
    return Subnet(found.id, found.vpc_id, found.cidr_block, found.availability_zone, found.tags)


async def _look_up_route_tables(vpc_id: str, opts: pulumi.InvokeOptions | None) -> list[RouteTable]:
    ids = (await _answer(aws.ec2.get_route_tables_output(vpc_id=vpc_id, opts=opts))).ids
    tables = (_answer(aws.ec2.get_route_table_output(route_table_id=table_id, opts=opts)) for table_id in ids)
    return [
        RouteTable(
            subnet_ids=tuple(a.subnet_id for a in table.associations if a.subnet_id),
            main=any(a.main for a in table.associations),
            default_gateway=next((r.gateway_id for r in table.routes if r.cidr_block == EVERYBODY), ""),
        )
        for table in await asyncio.gather(*tables)
    ]


async def _look_up_volumes(settings: Settings, stack: str, opts: pulumi.InvokeOptions | None) -> list[Volume]:
    """The data volume of the stack, if it exists. There are two for a while if one replaces the other."""
    if settings.topology != "single":
        return []
    filters: list[Any] = [
        {"name": f"tag:{STACK_TAG}", "values": [stack]},
        {"name": "status", "values": ["available", "in-use"]},
    ]
    ids = (await _answer(aws.ebs.get_ebs_volumes_output(filters=filters, opts=opts))).ids

    def volume(volume_id: str) -> pulumi.Output[aws.ebs.GetVolumeResult]:
        return aws.ebs.get_volume_output(filters=[{"name": "volume-id", "values": [volume_id]}], opts=opts)

    found = await asyncio.gather(*(_answer(volume(volume_id)) for volume_id in ids))
    return [Volume(v.volume_id, v.availability_zone, v.snapshot_id, v.kms_key_id) for v in found]
