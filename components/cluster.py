"""The EKS cluster as it is: looked up, never changed, and checked against what the stack asks for."""

import io
import ipaddress
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pulumi
import pulumi_aws as aws
import yaml

from components import aws_auth
from components.cluster_access import Names
from components.settings import NAMESPACE, Problem, Settings, as_yaml, refuse

# A subnet that EKS may place internet-facing load balancers in carries this tag.
PUBLIC_SUBNET_TAG = "kubernetes.io/role/elb"


@dataclass(frozen=True)
class Subnet:
    """A subnet. ``public``: it gives out public addresses, or EKS puts internet-facing load balancers into it."""

    id: str
    name: str
    vpc_id: str
    cidr: str
    availability_zone: str
    public: bool


@dataclass(frozen=True)
class Cluster:
    """What the program needs to know of the cluster.

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


@dataclass(frozen=True)
class Site:
    """Where the proxy goes: the cluster, the subnet it runs in, and the cluster's access mode that it uses.

    ``entry_lost_at``: the version of aws-auth in which the proxy's entry is not, be it taken out by somebody or not
    there yet; empty when it is there, or when nobody looked.
    """

    cluster: Cluster
    subnet: Subnet
    access_mode: str
    names: Names
    entry_lost_at: str = ""


def look_up(settings: Settings, stack: str, opts: pulumi.InvokeOptions | None = None) -> Site:
    """Reads the cluster and its VPC's subnets from AWS; with ``opts``, through a provider of your own.

    Raises ConfigurationError when the account does not hold what the settings ask for.
    """
    cluster = _look_up_cluster(settings.cluster_name, stack, opts)
    ids = [settings.subnet_id] if settings.subnet_id else _subnet_ids(cluster.vpc_id, opts)
    subnets = [_look_up_subnet(subnet_id, opts) for subnet_id in ids]
    site = choose_site(settings, stack, cluster, subnets)
    if site.access_mode == "aws-auth" and settings.apply_to_cluster:
        return replace(site, entry_lost_at=_entry_lost_at(settings.kubeconfig_text or kubeconfig(cluster), site.names))
    return site


def choose_site(settings: Settings, stack: str, cluster: Cluster, subnets: Sequence[Subnet]) -> Site:
    """Decides the subnet and the access mode, or refuses with all the reasons at once."""
    problems: list[Problem] = []
    public = sorted((s for s in subnets if s.public or s.id == settings.subnet_id), key=lambda s: (s.name, s.id))
    if not public:
        looked_at = "; ".join(f"{s.id} {s.name} {s.cidr}" for s in subnets) or "no subnet at all"
        problems.append(
            Problem(
                f"{NAMESPACE}:subnetId",
                "(not set)",
                f"none of the subnets of {cluster.vpc_id} gives out public addresses or carries the tag "
                f"{PUBLIC_SUBNET_TAG} ({looked_at}); name one that has a route to an internet gateway",
                as_yaml(f"{NAMESPACE}:subnetId", subnets[0].id if subnets else "subnet-0123456789abcdef0"),
            )
        )
    elif public[0].vpc_id != cluster.vpc_id and not cluster.endpoint_public_access:
        problems.append(
            Problem(
                f"{NAMESPACE}:subnetId",
                public[0].id,
                f"is in {public[0].vpc_id}, but the endpoint of {cluster.name} is private and answers only in "
                f"{cluster.vpc_id}: choose a subnet there, or enable the cluster's public endpoint",
                as_yaml(f"{NAMESPACE}:subnetId", "subnet-0123456789abcdef0"),
            )
        )
    mode = access_mode(settings.access_mode, cluster.authentication_mode)
    if not mode:
        problems.append(
            Problem(
                f"{NAMESPACE}:accessMode",
                settings.access_mode,
                f"{cluster.name} has the authentication mode {cluster.authentication_mode}, which cannot do that",
                as_yaml(f"{NAMESPACE}:accessMode", "auto"),
            )
        )
    refuse(problems, stack)
    return Site(cluster, public[0], mode, Names(f"-{stack}" if settings.suffix_names else ""))


def access_mode(requested: str, authentication_mode: str) -> str:
    """``access-entry`` or ``aws-auth``; empty when the cluster cannot do what is requested."""
    possible = {
        "API": ("access-entry",),
        "API_AND_CONFIG_MAP": ("access-entry", "aws-auth"),
        "CONFIG_MAP": ("aws-auth",),
    }[authentication_mode]
    if requested == "auto":
        return possible[0]
    return requested if requested in possible else ""


def endpoint_warning(site: Site, public_ip: str) -> str:
    """What to change at the cluster so that the proxy, at ``public_ip``, reaches its API; empty when it does.

    In the cluster's VPC the endpoint's name is private addresses, if there are
    any. Everywhere else, and without them, the proxy takes the public endpoint.
    """
    cluster = site.cluster
    if cluster.endpoint_private_access and site.subnet.vpc_id == cluster.vpc_id:
        return ""
    address = ipaddress.ip_address(public_ip)
    if any(address in ipaddress.ip_network(cidr) for cidr in cluster.public_access_cidrs):
        return ""
    return (
        f"the public endpoint of {cluster.name} admits only {', '.join(cluster.public_access_cidrs)}: "
        f"add {public_ip}/32 to its publicAccessCidrs, or enable its private endpoint and put the proxy "
        f"into {cluster.vpc_id}"
    )


def kubeconfig(cluster: Cluster) -> str:
    """A kubeconfig that holds no secret: each use asks the AWS CLI for a token, as whoever runs it."""
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
                                *("eks", "get-token", "--cluster-name", cluster.name, "--output", "json"),
                            ],
                        }
                    },
                }
            ],
        },
        sort_keys=False,
    )


def _look_up_cluster(name: str, stack: str, opts: pulumi.InvokeOptions | None) -> Cluster:
    try:
        found = aws.eks.get_cluster(name=name, opts=opts)
    except Exception as error:
        if "ResourceNotFound" not in str(error) and "No cluster found" not in str(error):
            raise
        rule = f"there is no such cluster here; {_clusters_there_are(opts)}"
        refuse(
            [Problem(f"{NAMESPACE}:clusterName", name, rule, as_yaml(f"{NAMESPACE}:clusterName", "production"))], stack
        )
        raise
    # A cluster from before access entries has no mode: it is the map's.
    modes = [config.authentication_mode for config in found.access_configs or []]
    return Cluster(
        name=found.name,
        arn=found.arn,
        endpoint=found.endpoint,
        certificate_authority=found.certificate_authorities[0].data,
        authentication_mode=(modes or [""])[0] or "CONFIG_MAP",
        vpc_id=found.vpc_config.vpc_id,
        security_group_id=found.vpc_config.cluster_security_group_id,
        endpoint_public_access=found.vpc_config.endpoint_public_access,
        endpoint_private_access=found.vpc_config.endpoint_private_access,
        public_access_cidrs=tuple(found.vpc_config.public_access_cidrs or ()),
    )


def _clusters_there_are(opts: pulumi.InvokeOptions | None) -> str:
    try:
        names = aws.eks.get_clusters(opts=opts).names
    except Exception as error:  # a help in a message, so never the message itself
        return f"those that are there could not be listed ({textwrap.shorten(str(error), 100)})"
    return f"there are {', '.join(sorted(names))}" if names else "there is none in this account and region"


def _subnet_ids(vpc_id: str, opts: pulumi.InvokeOptions | None) -> Sequence[str]:
    return aws.ec2.get_subnets(filters=[{"name": "vpc-id", "values": [vpc_id]}], opts=opts).ids


def _look_up_subnet(subnet_id: str, opts: pulumi.InvokeOptions | None) -> Subnet:
    found = aws.ec2.get_subnet(id=subnet_id, opts=opts)
    return Subnet(
        id=found.id,
        name=found.tags.get("Name", ""),
        vpc_id=found.vpc_id,
        cidr=found.cidr_block,
        availability_zone=found.availability_zone,
        public=found.map_public_ip_on_launch or PUBLIC_SUBNET_TAG in found.tags,
    )


def _entry_lost_at(kubeconfig_text: str, names: Names) -> str:
    """See ``Site.entry_lost_at``. A cluster that does not answer is only warned about: a preview can do without it."""
    try:
        found: Any = aws_auth.connect(io.StringIO(kubeconfig_text)).list_namespaced_config_map(
            aws_auth.NAMESPACE, field_selector=f"metadata.name={aws_auth.NAME}", _request_timeout=10
        )
        maps = found.items or []
        if maps and aws_auth.has(maps[0].data or {}, names.username, names.group):
            return ""
    except Exception as error:
        pulumi.log.warn(f"aws-auth could not be looked at, so whether the proxy is still in it is not known: {error}")
        return ""
    return (maps[0] if maps else found).metadata.resource_version
