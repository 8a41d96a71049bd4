"""The firewall: one rule per port and audience, and one that lets the proxy reach the cluster's API."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi
import pulumi_aws as aws

from teleport_eks.ports import Port

EVERYBODY = "0.0.0.0/0"

CLIENT_PORTS = {  # by listenerMode
    "separate": {
        Port.WEB: "web",
        Port.SSH_PROXY: "SSH proxy",
        Port.TUNNEL: "reverse tunnel",
        Port.KUBERNETES: "Kubernetes",
    },
    "multiplex": {Port.MULTIPLEX: "web, SSH, tunnel and Kubernetes"},
}
ADMIN_PORTS = {Port.SSH: "SSH", Port.NODE: "SSH node", Port.AUTH: "auth"}
# What several hosts reach at each other.
BETWEEN_HOSTS: Mapping[int, str] = {
    Port.NODE: "SSH node, from the other host",
    Port.AUTH: "auth, from the other host",
}


@dataclass(frozen=True)
class Rule:
    """Lets the addresses of ``cidr`` reach one port."""

    port: int
    cidr: str
    description: str


def rules(
    client_cidrs: Sequence[str],
    admin_cidrs: Sequence[str],
    *,
    http_challenge: bool,
    listener_mode: str = "separate",
    balancer_cidrs: Sequence[str] = (),
) -> list[Rule]:
    """Who may reach which port.

    For ``http_challenge``, Let's Encrypt connects to port 80 from addresses that it does not publish. A load balancer
    asks the first client port, the web page's, from ``balancer_cidrs`` whether the host is up.
    """
    allowed = [Rule(port, cidr, use) for port, use in CLIENT_PORTS[listener_mode].items() for cidr in client_cidrs]
    allowed += [Rule(port, cidr, use) for port, use in ADMIN_PORTS.items() for cidr in admin_cidrs]
    web = next(iter(CLIENT_PORTS[listener_mode]))
    allowed += [Rule(web, cidr, "load balancer") for cidr in balancer_cidrs if cidr not in client_cidrs]
    if http_challenge:
        allowed.append(Rule(Port.ACME, EVERYBODY, "ACME HTTP-01 challenge"))
    return allowed


@dataclass(frozen=True)
class ProxyNetworkArgs:
    vpc_id: str
    # By the end of the rule's name. A cluster in another VPC has none here: its public endpoint has no security group.
    cluster_security_group_ids: Mapping[str, str]
    rules: Sequence[Rule]
    # What one host may reach at another, and its use.
    between_hosts: Mapping[int, str] = field(default_factory=dict)


class ProxyNetwork(pulumi.ComponentResource):
    """Owns the proxy's security group with its rules, and one rule on each cluster's security group: 443 from the
    proxy.

    Each rule is a resource, because inline rules would delete the rules that others added to the group.
    """

    security_group_id: pulumi.Output[str]

    def __init__(self, name: str, args: ProxyNetworkArgs, *, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("teleport-eks:index:ProxyNetwork", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)

        group = aws.ec2.SecurityGroup(
            f"{name}-group",
            vpc_id=args.vpc_id,
            description="Teleport proxy",  # a new description would replace the group
            tags={"Name": name},
            opts=child,
        )
        for rule in args.rules:
            aws.vpc.SecurityGroupIngressRule(
                f"{name}-{rule.port}-from-{rule.cidr}",
                security_group_id=group.id,
                ip_protocol="tcp",
                from_port=rule.port,
                to_port=rule.port,
                cidr_ipv4=rule.cidr,
                description=rule.description,
                opts=child,
            )
        for port, use in args.between_hosts.items():
            aws.vpc.SecurityGroupIngressRule(
                f"{name}-{port}-between-hosts",
                security_group_id=group.id,
                ip_protocol="tcp",
                from_port=port,
                to_port=port,
                referenced_security_group_id=group.id,
                description=use,
                opts=child,
            )
        # AWS, GitHub, Let's Encrypt and Teleport's downloads have no fixed addresses to narrow this to.
        aws.vpc.SecurityGroupEgressRule(
            f"{name}-egress", security_group_id=group.id, ip_protocol="-1", cidr_ipv4=EVERYBODY, opts=child
        )
        for suffix, cluster_group_id in args.cluster_security_group_ids.items():
            aws.vpc.SecurityGroupIngressRule(
                f"{name}-cluster-api{suffix}",
                security_group_id=cluster_group_id,
                ip_protocol="tcp",
                from_port=443,
                to_port=443,
                referenced_security_group_id=group.id,
                description="Teleport proxy to the Kubernetes API",
                opts=child,
            )

        self.security_group_id = group.id
        self.register_outputs({"securityGroupId": self.security_group_id})
