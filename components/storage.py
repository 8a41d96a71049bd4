"""The data volume: all of the proxy that must not be lost."""

from dataclasses import dataclass

import pulumi
import pulumi_aws as aws


@dataclass(frozen=True)
class ProxyStorageArgs:
    """``size`` in GiB; it can grow, and the host grows the file system with it."""

    availability_zone: str
    size: int
    protect: bool


class ProxyStorage(pulumi.ComponentResource):
    """Owns the volume with Teleport's CA, the certificate, the audit log and the recordings.

    It outlives every instance, so a new instance is the same proxy.
    """

    volume_id: pulumi.Output[str]

    def __init__(self, name: str, args: ProxyStorageArgs, *, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("teleport-eks:index:ProxyStorage", name, None, opts)

        volume = aws.ebs.Volume(
            f"{name}-data",
            availability_zone=args.availability_zone,
            size=args.size,
            type="gp3",
            encrypted=True,
            tags={"Name": f"{name}-data"},
            opts=pulumi.ResourceOptions(parent=self, protect=args.protect),
        )

        self.volume_id = volume.id
        self.register_outputs({"volumeId": self.volume_id})
