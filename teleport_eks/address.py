"""The proxy's address and name. They come first, because the certificate, teleport.yaml and GitHub hold the name."""

from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from teleport_eks.ports import Port
from teleport_eks.settings import Settings


def dynamic_hostname(public_ip: str, service: str) -> str:
    """The name that ``service`` (nip.io or sslip.io) resolves to ``public_ip``: dashes for dots."""
    return f"ec2-{public_ip.replace('.', '-')}.{service}"


def web_url(settings: Settings, hostname: str) -> str:
    port = "" if settings.web_port == Port.MULTIPLEX else f":{settings.web_port}"
    return f"https://{hostname}{port}"


def sign_in_command(settings: Settings, hostname: str) -> str:
    # With the port also if it is 443: without one, tsh tries 3080 too.
    return f"tsh login --proxy={hostname}:{settings.web_port}"


def callback_url(settings: Settings, hostname: str) -> str:
    """Where GitHub sends people back to: the OAuth app and the connector must both say it."""
    return f"{web_url(settings, hostname)}/v1/webapi/github/callback"


@dataclass(frozen=True)
class ProxyAddressArgs:
    """``hosted_zone_id`` is the zone of the settings' domain name, if they have one.

    ``balancer`` is the load balancer's name and Route 53 zone, if there is one. It then has the addresses.
    """

    settings: Settings
    hosted_zone_id: str | None
    balancer: tuple[pulumi.Input[str], pulumi.Input[str]] | None = None


class ProxyAddress(pulumi.ComponentResource):
    """Owns an Elastic IP and, in the operator's Route 53 zone, one A record. The zone itself is not touched.

    With a balancer there is no Elastic IP, so ``public_ip`` is empty. The same record is then the balancer's alias, so
    that another topology changes the record, and does not delete the name for a while.
    """

    allocation_id: pulumi.Output[str]
    public_ip: pulumi.Output[str]
    hostname: pulumi.Output[str]

    def __init__(self, name: str, args: ProxyAddressArgs, *, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("teleport-eks:index:ProxyAddress", name, None, opts)
        settings = args.settings

        if args.balancer:
            dns_name, zone_id = args.balancer
            points_to: dict[str, Any] = {
                "aliases": [{"name": dns_name, "zone_id": zone_id, "evaluate_target_health": False}]
            }
            self.allocation_id = self.public_ip = pulumi.Output.from_input("")
        else:
            # GitHub's callback URL and the certificate hold the name, and the name holds this address.
            address = aws.ec2.Eip(
                f"{name}-eip",
                domain="vpc",
                tags={"Name": name},
                opts=pulumi.ResourceOptions(parent=self, protect=settings.protect),
            )
            points_to = {"ttl": 60, "records": [address.public_ip]}
            self.allocation_id, self.public_ip = address.allocation_id, address.public_ip
        if settings.domain_name and args.hosted_zone_id:
            aws.route53.Record(
                f"{name}-record",
                zone_id=args.hosted_zone_id,
                name=settings.domain_name,
                type="A",
                **points_to,
                opts=pulumi.ResourceOptions(parent=self),
            )

        self.hostname = (
            pulumi.Output.from_input(settings.domain_name)
            if settings.domain_name
            else self.public_ip.apply(lambda ip: dynamic_hostname(ip, settings.dynamic_dns))
        )
        self.register_outputs({"hostname": self.hostname, "publicIp": self.public_ip})
