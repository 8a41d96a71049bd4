"""The roles for the stack of the same name in the project's folder, whose file says cluster, region and zone."""

from pathlib import Path

import pulumi
import pulumi_aws as aws
import yaml
from pipeline_roles import ISSUER, PipelineRoles, PipelineRolesArgs, Scope


def main() -> None:
    stack, config = pulumi.get_stack(), pulumi.Config()
    settings = yaml.safe_load(Path("..", "..", f"Pulumi.{stack}.yaml").read_text())["config"]
    region = settings["aws:region"]
    zone = settings.get("teleport-eks:hostedZone")

    if config.get_bool("createProvider"):
        provider = aws.iam.OpenIdConnectProvider(
            "github", url=ISSUER, client_id_lists=["sts.amazonaws.com"], opts=pulumi.ResourceOptions(protect=True)
        ).arn
    else:
        provider = aws.iam.get_open_id_connect_provider_output(url=ISSUER).arn

    several_hosts = settings.get("teleport-eks:topology") == "ha"
    scope = Scope(
        partition=aws.get_partition().partition,
        account_id=aws.get_caller_identity().account_id,
        region=region,
        stack=stack,
        clusters=[
            settings["teleport-eks:clusterName"],
            *(item["clusterName"] for item in settings.get("teleport-eks:additionalClusters", [])),
        ],
        zone_id=aws.route53.get_zone(name=zone).zone_id if zone else None,
        domain_name=settings.get("teleport-eks:domainName"),
        state_bucket=config.get("stateBucket"),
        secrets_key_arn=config.get("secretsKeyArn"),
        permissions_boundary=settings.get("teleport-eks:permissionsBoundary"),
        iam_path=settings.get("teleport-eks:iamPath", "/"),
        kms_key_arn=settings.get("teleport-eks:kmsKeyArn"),
        recordings_in_s3=several_hosts or settings.get("teleport-eks:recordings") == "s3",
        several_hosts=several_hosts,
    )
    args = PipelineRolesArgs(config.require("repository"), provider, scope, settings.get("teleport-eks:tags"))
    roles = PipelineRoles(f"teleport-eks-{stack}", args)

    # AWS_ROLE_ARN and AWS_REGION of the GitHub environments <stack>-preview and <stack>.
    pulumi.export("previewRoleArn", roles.preview_role_arn)
    pulumi.export("upRoleArn", roles.up_role_arn)
    pulumi.export("region", region)


main()
