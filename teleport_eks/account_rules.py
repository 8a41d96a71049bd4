"""What an account asks of every resource: a permissions boundary, an IAM path, a KMS key, tags."""

from typing import Any

import pulumi

from teleport_eks.settings import Settings

ROLE, PROFILE = "aws:iam/role:Role", "aws:iam/instanceProfile:InstanceProfile"
INSTANCE, VOLUME = "aws:ec2/instance:Instance", "aws:ebs/volume:Volume"
PARAMETER, LOG_GROUP = "aws:ssm/parameter:Parameter", "aws:cloudwatch/logGroup:LogGroup"
TAGGED = {
    *(ROLE, PROFILE, INSTANCE, VOLUME, PARAMETER, LOG_GROUP),
    "aws:cloudwatch/metricAlarm:MetricAlarm",
    "aws:dlm/lifecyclePolicy:LifecyclePolicy",
    "aws:dynamodb/table:Table",
    "aws:ec2/eip:Eip",
    "aws:ec2/launchTemplate:LaunchTemplate",
    "aws:ec2/securityGroup:SecurityGroup",
    "aws:eks/accessEntry:AccessEntry",
    "aws:lb/listener:Listener",
    "aws:lb/loadBalancer:LoadBalancer",
    "aws:lb/targetGroup:TargetGroup",
    "aws:s3/bucket:Bucket",
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule",
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
}


def additions(settings: Settings, kind: str, props: dict[str, Any]) -> dict[str, Any]:
    """The properties to set on a resource of the type ``kind``, for which the program has ``props``."""
    tags = {**settings.tags, **props.get("tags", {})} if kind in TAGGED and settings.tags else None
    key = settings.kms_key_arn
    added = {
        "permissionsBoundary": settings.permissions_boundary if kind == ROLE else None,
        "path": settings.iam_path if kind in (ROLE, PROFILE) else None,
        "kmsKeyId": key if kind in (VOLUME, LOG_GROUP) else None,
        "keyId": key if kind == PARAMETER and props["type"] == "SecureString" else None,
        "tags": tags,
    }
    if kind == INSTANCE:
        # The root volume is no resource. It gets neither the tags nor the key of the instance.
        disk = {"kmsKeyId": key, "tags": tags}
        added["rootBlockDevice"] = {**props["rootBlockDevice"], **{k: v for k, v in disk.items() if v}}
    return {name: value for name, value in added.items() if value}


def with_account_rules(opts: pulumi.ResourceOptions | None, settings: Settings) -> pulumi.ResourceOptions:
    """``opts``, with ``additions`` for the component and all that is in it, so that no resource can be forgotten."""
    if not (settings.permissions_boundary or settings.iam_path or settings.kms_key_arn or settings.tags):
        return opts or pulumi.ResourceOptions()  # the engine calls a transform back for each resource

    def apply(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult | None:
        added = additions(settings, args.type_, dict(args.props))
        # Without options, they stay as they are. The SDK cannot send back a replacement_trigger.
        unchanged: Any = None
        return pulumi.ResourceTransformResult({**args.props, **added}, unchanged) if added else None

    return pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(transforms=[apply]))
