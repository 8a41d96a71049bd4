"""The host: one instance, which can be replaced at any time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws
import pulumi_command as command

from teleport_eks.commands import run_module
from teleport_eks.credentials import Credentials
from teleport_eks.settings import Settings

# The parameter holds the id of the newest image. "kernel-default" is the release's own kernel.
AMI_PARAMETER = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-{}"
AMI_ARCHITECTURE = {"amd64": "x86_64", "arm64": "arm64"}


@dataclass(frozen=True)
class BootArgs:
    """What a host is started with, if it is the only one and if there are several.

    ``user_data`` is base64. The host reports ``revision`` on its console when it is up.
    """

    settings: Settings
    security_group_id: pulumi.Input[str]
    instance_profile: pulumi.Input[str]
    user_data: pulumi.Input[str]
    hostname: pulumi.Input[str]
    revision: pulumi.Input[str]
    region: str
    credentials: Credentials


@dataclass(frozen=True)
class ProxyHostArgs:
    boot: BootArgs
    subnet_id: str
    allocation_id: pulumi.Input[str]
    volume_id: pulumi.Input[str]


def ready_command(boot: BootArgs, hosts: Mapping[str, pulumi.Input[str]], minutes: int) -> pulumi.Output[str]:
    """``teleport_eks.ready`` as a shell command. ``hosts`` are its options that name what to wait for."""
    settings, credentials = boot.settings, boot.credentials

    def text(known: Mapping[str, Any]) -> str:
        options = {"--hostname": known["hostname"], **known["hosts"], "--region": boot.region}
        options |= {"--minutes": str(minutes), "--version": settings.teleport_version}
        options |= {"--revision": known["revision"], "--port": str(settings.web_port)}
        options |= {"--profile": credentials.profile} if credentials.profile else {}
        options |= {"--role-arn": credentials.role_arn} if credentials.role_arn else {}
        return run_module("teleport_eks.ready", options=options)

    return pulumi.Output.all(hostname=boot.hostname, revision=boot.revision, hosts=hosts).apply(text)


class ProxyHost(pulumi.ComponentResource):
    """Owns the instance, the attachments of the address and the volume (not these two), and the wait for its boot."""

    instance_id: pulumi.Output[str]

    def __init__(self, name: str, args: ProxyHostArgs, *, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("teleport-eks:index:ProxyHost", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        boot, settings = args.boot, args.boot.settings

        parameter = AMI_PARAMETER.format(AMI_ARCHITECTURE[settings.architecture])
        image = aws.ssm.get_parameter_output(name=parameter, opts=pulumi.InvokeOutputOptions(parent=self))
        instance = aws.ec2.Instance(
            # Another architecture needs another image. ignore_changes would block that, so it is another resource.
            f"{name}-{settings.architecture}",
            ami=image.insecure_value,
            instance_type=settings.instance_type,
            subnet_id=args.subnet_id,
            vpc_security_group_ids=[boot.security_group_id],
            iam_instance_profile=boot.instance_profile,
            user_data_base64=boot.user_data,
            # Otherwise the provider stops the instance, changes the user data and starts it. cloud-init writes the
            # files at each boot, so the change reaches the host either way.
            user_data_replace_on_change=settings.host_updates == "replace",
            metadata_options={"http_endpoint": "enabled", "http_tokens": "required", "http_put_response_hop_limit": 1},
            # Room for two releases of Teleport. Nothing on this disk has to be kept.
            root_block_device={"encrypted": True, "volume_type": "gp3", "volume_size": 16},
            tags={"Name": name},
            opts=pulumi.ResourceOptions(
                parent=self,
                # The host updates itself, so a newer image is no reason to replace it.
                ignore_changes=["ami"],
                # The volume and the address can be attached to one instance only.
                delete_before_replace=True,
                # Another volume needs another instance, even with in-place updates: to detach the volume, the provider
                # stops the instance, and does not start it again.
                replacement_trigger=args.volume_id,
            ),
        )
        attachment = aws.ec2.VolumeAttachment(
            f"{name}-data",
            device_name="/dev/sdf",
            instance_id=instance.id,
            volume_id=args.volume_id,
            stop_instance_before_detaching=True,  # so that the file system is unmounted
            opts=pulumi.ResourceOptions(parent=self, delete_before_replace=True),
        )
        address = aws.ec2.EipAssociation(
            f"{name}-address",
            instance_id=instance.id,
            allocation_id=args.allocation_id,
            allow_reassociation=True,
            opts=child,
        )
        if settings.wait_minutes:
            command.local.Command(
                f"{name}-ready",
                create=ready_command(boot, {"--instance-id": instance.id}, settings.wait_minutes),
                # There is a boot to wait for if the instance or its user data is new, not if only the number of minutes
                # changed.
                update="true",
                triggers=[instance.id, boot.revision],
                opts=pulumi.ResourceOptions(parent=self, depends_on=[attachment, address]),
            )

        self.instance_id = instance.id
        self.register_outputs({"instanceId": self.instance_id})
