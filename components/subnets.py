"""Which subnet the proxy runs in: the one rule, for the program and for `make stack`, over what was looked up."""

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
    """``default_gateway`` is where 0.0.0.0/0 goes, empty if nowhere; ``main``: also for subnets that name no table."""

    subnet_ids: tuple[str, ...]
    main: bool
    default_gateway: str


@dataclass(frozen=True)
class Volume:
    """The stack's data volume. It can be in one zone only, and so can the proxy."""

    id: str
    availability_zone: str
    snapshot_id: str


def public_subnets(subnets: Sequence[Subnet], tables: Sequence[RouteTable]) -> list[Subnet]:
    """Those with a route to an internet gateway, the best first: with EKS's tag for load balancers, then by name."""
    named = {subnet_id: table for table in tables for subnet_id in table.subnet_ids}
    main = next((table for table in tables if table.main), None)

    def is_public(subnet: Subnet) -> bool:
        table = named.get(subnet.id, main)
        return table is not None and table.default_gateway.startswith("igw-")

    public = [subnet for subnet in subnets if is_public(subnet)]
    return sorted(public, key=lambda subnet: (LOAD_BALANCER_TAG not in subnet.tags, subnet.name, subnet.id))
