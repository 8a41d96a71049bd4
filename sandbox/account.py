"""The AWS account of the sandbox: moto, made strict and filled as a real account looks."""

import functools
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import boto3
import requests

from sandbox import strict_account

REGION = "eu-west-1"
CLUSTERS = ("demo", "staging")

# What a first instance role, a comment and people's hands leave in a map over the years.
AWS_AUTH = {
    "mapRoles": """\
# Nodes first: without this entry none of them can join.
- rolearn: arn:aws:iam::123456789012:role/demo-node
  username: system:node:{{EC2PrivateDNSName}}
  groups:
    - system:bootstrappers
    - system:nodes
- rolearn: arn:aws:iam::123456789012:role/ci-deploy
  userid: AROAEXAMPLEEXAMPLE   # kept from an import
  username: ci
  groups: ["deployers"]
""",
    "mapUsers": """\
- userarn: arn:aws:iam::123456789012:user/break-glass
  username: break-glass
  groups: [system:masters]
""",
    "mapAccounts": '- "012345678901"\n',
}


class Account:
    """boto3 clients, one per service, for the account behind ``endpoint``."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    @functools.cache  # noqa: B019 - an account lives as long as the process
    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.endpoint or None,
            region_name=REGION,
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106 - moto takes any
        )

    def environment(self) -> dict[str, str]:
        """What points the AWS CLI, an SDK or Pulumi's plugin at this account."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,  # the AWS CLI's, until its version 2
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }


@contextmanager
def made_up(clusters: Sequence[str] = CLUSTERS) -> Iterator[Account]:
    """An account for the moment, filled, with moto in this process, which has only one at a time."""
    os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"
    server = strict_account.server()
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        account = Account(f"http://127.0.0.1:{server.port}")
        # What is in moto is the process's, and outlives its servers.
        requests.post(f"{account.endpoint}/moto-api/reset", timeout=30).raise_for_status()
        fill(account, clusters)
        yield account
    finally:
        server.shutdown()
        server.server_close()


def fill(account: Account, clusters: Sequence[str] = CLUSTERS) -> None:
    """A VPC with two public and two private subnets, and in it EKS clusters with a security group each."""
    ec2 = account.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16", TagSpecifications=_named("vpc", "demo"))["Vpc"]["VpcId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)

    subnets = []
    for kind in ("private", "public"):
        table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
        if kind == "public":
            ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
        for zone in ("a", "b"):
            subnet = ec2.create_subnet(
                VpcId=vpc,
                CidrBlock=f"10.0.{len(subnets)}.0/24",
                AvailabilityZone=f"{REGION}{zone}",
                TagSpecifications=_named("subnet", f"demo-{kind}-{zone}"),
            )["Subnet"]["SubnetId"]
            ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
            ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": kind == "public"})
            subnets.append(subnet)

    eks = account.client("eks")

    def add_what_eks_decides(params: dict, **_: Any) -> None:
        # moto describes a cluster with what it was asked for, and no more.
        body = json.loads(params["body"])
        name = f"eks-cluster-sg-{body['name']}-1"
        group = ec2.create_security_group(GroupName=name, Description="EKS created security group", VpcId=vpc)
        body["resourcesVpcConfig"] |= {"vpcId": vpc, "clusterSecurityGroupId": group["GroupId"]}
        params["body"] = json.dumps(body)

    eks.meta.events.register("before-call.eks.CreateCluster", add_what_eks_decides)
    for cluster in clusters:
        eks.create_cluster(
            name=cluster,
            version="1.34",
            roleArn="arn:aws:iam::123456789012:role/demo-cluster",
            resourcesVpcConfig={
                "subnetIds": subnets,
                "endpointPublicAccess": True,
                "endpointPrivateAccess": True,
                "publicAccessCidrs": ["0.0.0.0/0"],
            },
        )
    account.client("route53").create_hosted_zone(Name="example.com", CallerReference="sandbox")


def _named(kind: str, name: str) -> list[dict]:
    return [{"ResourceType": kind, "Tags": [{"Key": "Name", "Value": name}]}]
