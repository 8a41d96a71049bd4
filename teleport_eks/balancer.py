"""The load balancer in front of several hosts. Teleport ends TLS itself, so it passes on TCP."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from teleport_eks.network import CLIENT_PORTS
from teleport_eks.settings import Settings

# For connections that are open when a host leaves.
DRAIN_SECONDS = 300


@dataclass(frozen=True)
class ProxyBalancerArgs:
    settings: Settings
    vpc_id: str
    subnet_ids: Sequence[str]


class ProxyBalancer(pulumi.ComponentResource):
    """Owns the balancer, and a listener with a target group for each port that people connect to.

    It has no security group: the hosts see the addresses of clients, so the rules of their own group hold.
    """

    dns_name: pulumi.Output[str]
    zone_id: pulumi.Output[str]
    target_group_arns: list[pulumi.Output[str]]

    def __init__(self, name: str, args: ProxyBalancerArgs, *, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("teleport-eks:index:ProxyBalancer", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        settings = args.settings

        # AWS allows 32 characters for these names, and Pulumi appends 8.
        balancer = aws.lb.LoadBalancer(
            name,
            load_balancer_type="network",
            internal=False,
            subnets=args.subnet_ids,
            # Each zone has one host. Without this, a zone whose host is away would not answer.
            enable_cross_zone_load_balancing=True,
            enable_deletion_protection=settings.protect,
            tags={"Name": name},
            opts=pulumi.ResourceOptions(parent=self, protect=settings.protect),
        )
        self.target_group_arns = []
        for port in CLIENT_PORTS[settings.listener_mode]:
            targets = aws.lb.TargetGroup(
                f"{name}-{port}",
                port=port,
                protocol="TCP",
                vpc_id=args.vpc_id,
                preserve_client_ip="true",
                deregistration_delay=DRAIN_SECONDS,
                # It answers without GitHub and without DynamoDB. /webapi/ping and others fail when one of these does,
                # and then all hosts would be replaced for nothing.
                health_check={
                    "protocol": "HTTPS",
                    "port": str(settings.web_port),
                    "path": "/webapi/find",
                    "matcher": "200",
                    "interval": 10,
                    "timeout": 5,
                    "healthy_threshold": 2,
                    "unhealthy_threshold": 2,
                },
                tags={"Name": f"{name}-{port}"},
                opts=child,
            )
            aws.lb.Listener(
                f"{name}-{port}",
                load_balancer_arn=balancer.arn,
                port=port,
                protocol="TCP",
                default_actions=[{"type": "forward", "target_group_arn": targets.arn}],
                tags={"Name": f"{name}-{port}"},
                opts=child,
            )
            self.target_group_arns.append(targets.arn)

        self.dns_name, self.zone_id = balancer.dns_name, balancer.zone_id
        self.register_outputs({"dnsName": self.dns_name})
