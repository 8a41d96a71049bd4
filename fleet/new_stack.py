"""Writes the file of a new stack, with what it finds in the account."""

import urllib.request
from pathlib import Path
from typing import Any

import boto3
import jinja2
from botocore.exceptions import BotoCoreError, ClientError

from teleport_eks.cluster import DEFAULT_AUTHENTICATION_MODE, access_mode
from teleport_eks.network import EVERYBODY
from teleport_eks.subnets import RouteTable, Subnet, public_subnets


class NotWrittenError(SystemExit):
    """The file could not be written; the message says why."""


def write_stack(project: Path, name: str, region: str, email: str = "") -> str:
    """Looks the cluster up and writes ``Pulumi.<name>.yaml``, which must not exist; returns what to do next."""
    path = project / f"Pulumi.{name}.yaml"
    if path.exists():
        raise NotWrittenError(f"{path.name} exists; nothing was written")
    if not (name and region):
        raise NotWrittenError("which cluster? make stack CLUSTER=name REGION=eu-west-1")
    try:
        facts = _look_up(name, region)
    except (BotoCoreError, ClientError) as error:
        raise NotWrittenError(f"cannot read the account: {error}") from None
    template = jinja2.Template((Path(__file__).parent / "stack.yaml.j2").read_text(), undefined=jinja2.StrictUndefined)
    text = template.render(name=name, region=region, email=email, address=_my_address(), **facts)
    path.write_text(f"{text}\n")
    return (
        f"Wrote {path.name}. Read it, then:\n\n"
        f"  make preview STACK={name}   # evaluates the file against a throwaway fake account\n"
        f"  pulumi stack init {name}\n"
        f"  pulumi up -s {name}"
    )


def _look_up(name: str, region: str) -> dict[str, Any]:
    """What the template says of the cluster."""
    eks, ec2 = (boto3.client(service, region_name=region) for service in ("eks", "ec2"))
    try:
        cluster = eks.describe_cluster(name=name)["cluster"]
    except eks.exceptions.ResourceNotFoundException:
        there_are = ", ".join(sorted(eks.list_clusters()["clusters"])) or "none"
        raise NotWrittenError(f"there is no cluster {name} in {region}; there are: {there_are}") from None
    network = cluster["resourcesVpcConfig"]
    mode = cluster.get("accessConfig", {}).get("authenticationMode") or DEFAULT_AUTHENTICATION_MODE
    return {
        "subnet": next(iter(public_subnets(*_network(ec2, network["vpcId"]))), None),
        "vpc": network["vpcId"],
        "authentication_mode": mode,
        "access_mode": access_mode("auto", mode),
        "public": network.get("endpointPublicAccess", True),
        "private": network.get("endpointPrivateAccess", False),
        "admitted": network.get("publicAccessCidrs") or [],
    }


def _network(ec2: Any, vpc: str) -> tuple[list[Subnet], list[RouteTable]]:
    """The VPC's subnets and route tables."""
    in_vpc = [{"Name": "vpc-id", "Values": [vpc]}]
    subnets = [
        Subnet(
            s["SubnetId"], vpc, s["CidrBlock"], s["AvailabilityZone"], {t["Key"]: t["Value"] for t in s.get("Tags", [])}
        )
        for s in ec2.describe_subnets(Filters=in_vpc)["Subnets"]
    ]
    tables = [
        RouteTable(
            subnet_ids=tuple(a["SubnetId"] for a in table["Associations"] if "SubnetId" in a),
            main=any(a["Main"] for a in table["Associations"]),
            default_gateway=next(
                (r.get("GatewayId", "") for r in table["Routes"] if r.get("DestinationCidrBlock") == EVERYBODY), ""
            ),
        )
        for table in ec2.describe_route_tables(Filters=in_vpc)["RouteTables"]
    ]
    return subnets, tables


def _my_address() -> str:
    """This machine's address on the internet, for a comment, never for a setting; empty if AWS does not say it."""
    try:
        with urllib.request.urlopen("https://checkip.amazonaws.com", timeout=5) as answer:
            return answer.read().decode().strip()
    except OSError:
        return ""
