"""The data volume, which holds everything of the proxy that must not be lost."""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from teleport_eks.identity import assumed_by
from teleport_eks.settings import Settings

# The tag that holds the stack's name, on the volume and its snapshots. "Name" can be the same in two stacks.
STACK_TAG = "teleport-eks/snapshots"


@dataclass(frozen=True)
class ProxyStorageArgs:
    """``stack`` names the proxy among all in the account."""

    settings: Settings
    stack: str
    partition: str
    availability_zone: str


class ProxyStorage(pulumi.ComponentResource):
    """Owns the volume with Teleport's CA, the certificate, the audit log and the recordings, and its daily snapshots.

    The volume outlives every instance, so a new instance is the same proxy. The snapshots outlive the volume until
    they are older than ``snapshot_days``. If ``data_volume_size`` grows, the host grows the file system too.
    """

    volume_id: pulumi.Output[str]

    def __init__(self, name: str, args: ProxyStorageArgs, *, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("teleport-eks:index:ProxyStorage", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        settings, snapshot_tag = args.settings, {STACK_TAG: args.stack}

        volume = aws.ebs.Volume(
            f"{name}-data",
            availability_zone=args.availability_zone,
            size=settings.data_volume_size,
            snapshot_id=settings.data_snapshot_id,
            type="gp3",
            encrypted=True,
            tags={"Name": f"{name}-data", **snapshot_tag},
            opts=pulumi.ResourceOptions(parent=self, protect=settings.protect),
        )
        if settings.snapshot_days:
            role = aws.iam.Role(f"{name}-snapshots", assume_role_policy=assumed_by("dlm.amazonaws.com"), opts=child)
            aws.iam.RolePolicyAttachment(
                f"{name}-snapshots",
                role=role.name,
                policy_arn=f"arn:{args.partition}:iam::aws:policy/service-role/AWSDataLifecycleManagerServiceRole",
                opts=child,
            )
            aws.dlm.LifecyclePolicy(
                f"{name}-snapshots",
                description="Teleport proxy data volume",
                execution_role_arn=role.arn,
                state="ENABLED",
                policy_details={
                    "resource_types": ["VOLUME"],
                    "target_tags": snapshot_tag,
                    "schedules": [
                        {
                            "name": "daily",
                            "create_rule": {"interval": 24, "interval_unit": "HOURS", "times": "03:00"},
                            "retain_rule": {"interval": settings.snapshot_days, "interval_unit": "DAYS"},
                            "copy_tags": True,
                        }
                    ],
                },
                opts=child,
            )

        self.volume_id = volume.id
        self.register_outputs({"volumeId": self.volume_id})
