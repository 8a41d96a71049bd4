"""The host's AWS identity, with the few permissions that it needs."""

import json
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

# For Session Manager's agent. AmazonSSMManagedInstanceCore is better known, but it may also read every parameter of
# the account. This one may read none.
SESSION_MANAGER_POLICY = "AmazonSSMManagedEC2InstanceDefaultPolicy"


def assumed_by(service: str) -> str:
    """The trust policy of a role that only one AWS service may assume, as JSON."""
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def permissions(
    cluster_arn: str,
    parameters_arn: str,
    hosted_zone_arn: str | None = None,
    kms_key_arn: str | None = None,
    log_group_arn: str | None = None,
    metrics_namespace: str | None = None,
) -> dict:
    """The host's policy document.

    ``parameters_arn`` is the path of the stack's own SSM parameters, for example
    ``arn:aws:ssm:...:parameter/teleport-eks/prod``; ``hosted_zone_arn`` is the Route 53 zone for the DNS-01 challenge;
    ``kms_key_arn`` is the key of the client secret, if it is not AWS's own; ``log_group_arn`` and
    ``metrics_namespace`` are where the host may write logs and metrics.
    """
    statements = [
        # `aws eks update-kubeconfig` reads the endpoint and the CA.
        {"Sid": "Cluster", "Effect": "Allow", "Action": "eks:DescribeCluster", "Resource": cluster_arn},
        # Team roles, the GitHub connector and its client secret. SSM checks the path and everything below it.
        {
            "Sid": "Parameters",
            "Effect": "Allow",
            "Action": "ssm:GetParametersByPath",
            "Resource": [parameters_arn, f"{parameters_arn}/*"],
        },
    ]
    if kms_key_arn:
        secrets = {"StringLike": {"kms:EncryptionContext:PARAMETER_ARN": f"{parameters_arn}/*"}}
        statements.append(
            {
                "Sid": "ParametersKey",
                "Effect": "Allow",
                "Action": "kms:Decrypt",
                "Resource": kms_key_arn,
                "Condition": secrets,
            }
        )
    if hosted_zone_arn:
        partition = hosted_zone_arn.split(":")[1]
        statements += [
            # Let's Encrypt's DNS-01 challenge: only TXT records, only under _acme-challenge.
            {
                "Sid": "Challenge",
                "Effect": "Allow",
                "Action": "route53:ChangeResourceRecordSets",
                "Resource": hosted_zone_arn,
                "Condition": {
                    "ForAllValues:StringEquals": {"route53:ChangeResourceRecordSetsRecordTypes": ["TXT"]},
                    "ForAllValues:StringLike": {
                        "route53:ChangeResourceRecordSetsNormalizedRecordNames": ["_acme-challenge.*"]
                    },
                },
            },
            {
                "Sid": "ChallengeIsThere",
                "Effect": "Allow",
                "Action": "route53:GetChange",
                "Resource": f"arn:{partition}:route53:::change/*",
            },
        ]
    if log_group_arn:
        actions = ["logs:CreateLogStream", "logs:PutLogEvents"]
        statements.append({"Sid": "Logs", "Effect": "Allow", "Action": actions, "Resource": f"{log_group_arn}:*"})
    if metrics_namespace:
        statements.append(
            {
                "Sid": "Metrics",
                "Effect": "Allow",
                "Action": "cloudwatch:PutMetricData",
                "Resource": "*",  # the namespace is the only limit that IAM has
                "Condition": {"StringEquals": {"cloudwatch:namespace": metrics_namespace}},
            }
        )
    return {"Version": "2012-10-17", "Statement": statements}


@dataclass(frozen=True)
class ProxyIdentityArgs:
    partition: str
    cluster_arn: pulumi.Input[str]
    parameters_arn: pulumi.Input[str]
    hosted_zone_arn: str | None = None
    kms_key_arn: str | None = None
    log_group_arn: str | None = None
    metrics_namespace: str | None = None


class ProxyIdentity(pulumi.ComponentResource):
    """Owns a role that EC2 may assume, its inline policy and its instance profile.

    Pulumi names the role, so that a new role has a new ARN, and an old mapping in a cluster does not apply to it.
    """

    role_arn: pulumi.Output[str]
    role_unique_id: pulumi.Output[str]
    instance_profile: pulumi.Output[str]

    def __init__(self, name: str, args: ProxyIdentityArgs, *, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("teleport-eks:index:ProxyIdentity", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)

        role = aws.iam.Role(f"{name}-role", assume_role_policy=assumed_by("ec2.amazonaws.com"), opts=child)
        aws.iam.RolePolicy(
            f"{name}-permissions",
            role=role.name,
            policy=pulumi.Output.all(
                args.cluster_arn, args.parameters_arn, args.hosted_zone_arn, args.kms_key_arn
            ).apply(
                lambda arns: json.dumps(
                    permissions(*arns, log_group_arn=args.log_group_arn, metrics_namespace=args.metrics_namespace)
                )
            ),
            opts=child,
        )
        aws.iam.RolePolicyAttachment(
            f"{name}-session-manager",
            role=role.name,
            policy_arn=f"arn:{args.partition}:iam::aws:policy/{SESSION_MANAGER_POLICY}",
            opts=child,
        )
        profile = aws.iam.InstanceProfile(f"{name}-profile", role=role.name, opts=child)

        self.role_arn = role.arn
        self.role_unique_id = role.unique_id
        self.instance_profile = profile.name
        self.register_outputs({"roleArn": self.role_arn, "instanceProfile": self.instance_profile})
