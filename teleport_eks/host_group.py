"""The hosts of ``topology: ha``: identical instances, each of which can be replaced at any time."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws
import pulumi_command as command

from teleport_eks.host import AMI_ARCHITECTURE, AMI_PARAMETER, BootArgs, ready_command

# Each host runs Teleport's auth service, and only two of these may read the stream of a DynamoDB table.
NODES = 2
# One host is stopped before the next one starts, so that there are never more than NODES.
MIN_HEALTHY, MAX_HEALTHY = 50, 100
# Until a new host answers. The other one is not replaced before.
BOOT_SECONDS = 480


@dataclass(frozen=True)
class ProxyHostGroupArgs:
    """The hosts differ in nothing, so one ``boot`` is for all of them."""

    boot: BootArgs
    subnet_ids: Sequence[str]
    target_group_arns: Sequence[pulumi.Input[str]]


class ProxyHostGroup(pulumi.ComponentResource):
    """Owns the Auto Scaling group, its launch template, and the wait for its hosts. A new version of the template
    replaces one host after the other.
    """

    instance_id: pulumi.Output[str]  # of all hosts, with commas

    def __init__(self, name: str, args: ProxyHostGroupArgs, *, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("teleport-eks:index:ProxyHostGroup", name, None, opts)
        boot, settings = args.boot, args.boot.settings
        tags = {**settings.tags, "Name": name}

        template = aws.ec2.LaunchTemplate(
            name,
            # EC2 looks it up whenever it starts an instance. The id of an image would change with each release, and
            # after some time there would be no such image to start a host from.
            image_id=f"resolve:ssm:{AMI_PARAMETER.format(AMI_ARCHITECTURE[settings.architecture])}",
            instance_type=settings.instance_type,
            iam_instance_profile={"name": boot.instance_profile},
            user_data=boot.user_data,
            metadata_options={"http_endpoint": "enabled", "http_tokens": "required", "http_put_response_hop_limit": 1},
            network_interfaces=[
                {
                    "device_index": 0,
                    "associate_public_ip_address": "true",  # the way out, because there is no NAT
                    "security_groups": [boot.security_group_id],
                }
            ],
            # Room for two releases of Teleport and for logs. Nothing on this disk has to be kept.
            block_device_mappings=[
                {
                    "device_name": "/dev/xvda",
                    "ebs": {
                        "encrypted": "true",
                        "kms_key_id": settings.kms_key_arn,
                        "volume_type": "gp3",
                        "volume_size": 30,
                        "delete_on_termination": "true",
                    },
                }
            ],
            # An instance's name too, which the pipeline's role may start it by. The group's tags come later.
            tag_specifications=[{"resource_type": kind, "tags": tags} for kind in ("instance", "volume")],
            tags={"Name": name},
            opts=pulumi.ResourceOptions(parent=self),
        )
        group = aws.autoscaling.Group(
            name,
            min_size=NODES,
            max_size=NODES,
            desired_capacity=NODES,
            vpc_zone_identifiers=args.subnet_ids,
            launch_template={"id": template.id, "version": template.latest_version.apply(str)},
            target_group_arns=args.target_group_arns,
            health_check_type="ELB",
            health_check_grace_period=BOOT_SECONDS,
            instance_maintenance_policy={"min_healthy_percentage": MIN_HEALTHY, "max_healthy_percentage": MAX_HEALTHY},
            instance_refresh={
                "strategy": "Rolling",
                "preferences": {
                    "min_healthy_percentage": MIN_HEALTHY,
                    "max_healthy_percentage": MAX_HEALTHY,
                    "instance_warmup": str(BOOT_SECONDS),
                },
            },
            tags=[{"key": key, "value": value, "propagate_at_launch": True} for key, value in sorted(tags.items())],
            opts=pulumi.ResourceOptions(parent=self),
        )
        done: list[pulumi.Resource] = [group]
        if settings.wait_minutes:
            hosts = {"--group": group.name, "--targets": args.target_group_arns[0]}
            done.append(
                command.local.Command(
                    f"{name}-ready",
                    # One boots after the other.
                    create=ready_command(boot, hosts, NODES * settings.wait_minutes),
                    # As for one host: only for what starts new ones.
                    update="true",
                    triggers=[group.id, template.latest_version],
                    opts=pulumi.ResourceOptions(parent=self, depends_on=[group]),
                )
            )
        found = aws.ec2.get_instances_output(
            instance_tags=group.name.apply(lambda group_name: {"aws:autoscaling:groupName": group_name}),
            instance_state_names=["pending", "running"],
            opts=pulumi.InvokeOutputOptions(parent=self, depends_on=done),
        )

        self.instance_id = found.ids.apply(lambda ids: ",".join(sorted(ids)))
        self.register_outputs({"instanceId": self.instance_id})
