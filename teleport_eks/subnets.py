"""The rule for the subnet that the proxy runs in. The program and `make stack` both use it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# EKS places internet-facing load balancers in subnets with this tag.
LOAD_BALANCER_TAG = "kubernetes.io/role/elb"


@dataclass(frozen=True)
class Subnet:
    id: str
    vpc_id: str
    cidr: str
    availability_zone: str
    tags: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.tags.get("Name", "")


@dataclass(frozen=True)
class RouteTable:
    """``default_gateway`` is the target of 0.0.0.0/0, or empty. A ``main`` table is for subnets without another one."""

    subnet_ids: tuple[str, ...]
    main: bool
    default_gateway: str


@dataclass(frozen=True)
class Volume:
    """The stack's data volume. It is in one zone, and the proxy must be in the same."""

    id: str
    availability_zone: str
    snapshot_id: str
    kms_key_arn: str = ""


def public_subnets(subnets: Sequence[Subnet], tables: Sequence[RouteTable]) -> list[Subnet]:
    """The subnets with a route to an internet gateway, by name, those with EKS's tag for load balancers first.

    The proxy runs in the first.
    """
    named = {subnet_id: table for table in tables for subnet_id in table.subnet_ids}
    main = next((table for table in tables if table.main), None)

    def is_public(subnet: Subnet) -> bool:
        table = named.get(subnet.id, main)
        return table is not None and table.default_gateway.startswith("igw-")

    public = [subnet for subnet in subnets if is_public(subnet)]
    return sorted(public, key=lambda subnet: (LOAD_BALANCER_TAG not in subnet.tags, subnet.name, subnet.id))


def in_different_zones(subnets: Sequence[Subnet]) -> list[Subnet]:
    """The first subnet of each zone, in the same order."""
    first: dict[str, Subnet] = {}
    for subnet in subnets:
        first.setdefault(subnet.availability_zone, subnet)
    return list(first.values())
