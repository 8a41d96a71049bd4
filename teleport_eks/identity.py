"""The host's AWS identity, with the few permissions that it needs."""

import json
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from teleport_eks.recordings import FOLDER
from teleport_eks.state import EVENTS_INDEX

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
    recordings_arn: str | None = None,
    certificate_arn: str | None = None,
    state_arn: str | None = None,
    events_arn: str | None = None,
) -> dict:
    """The host's policy document.

    ``parameters_arn`` is the path of the stack's own SSM parameters, for example
    ``arn:aws:ssm:...:parameter/teleport-eks/prod``; ``hosted_zone_arn`` is the Route 53 zone for the DNS-01 challenge;
    ``kms_key_arn`` is the key of the stack's secrets and the recordings, if it is not AWS's own; ``log_group_arn`` and
    ``metrics_namespace`` are where the host may write logs and metrics; ``recordings_arn`` is the recordings' bucket;
    ``certificate_arn`` is the SSM parameter or Secrets Manager secret with the proxy's own certificate; ``state_arn``
    and ``events_arn`` are the tables that several hosts share. The first one has their certificate too.
    """
    statements = [
        # `aws eks update-kubeconfig` reads the endpoint and the CA.
        {"Sid": "Cluster", "Effect": "Allow", "Action": "eks:DescribeCluster", "Resource": cluster_arn},
        # Team roles, the GitHub connector and the stack's secrets. SSM checks the path and everything below it.
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
    if recordings_arn:
        # What Teleport calls (lib/events/s3sessions), and nothing that deletes. It names a version whenever it reads.
        statements += [
            {
                "Sid": "Recordings",
                "Effect": "Allow",
                "Action": ["s3:ListBucket", "s3:ListBucketMultipartUploads", "s3:ListBucketVersions"],
                "Resource": recordings_arn,
            },
            {
                "Sid": "Recording",
                "Effect": "Allow",
                "Action": [
                    "s3:AbortMultipartUpload",
                    "s3:GetObjectVersion",
                    "s3:ListMultipartUploadParts",
                    "s3:PutObject",
                ],
                "Resource": f"{recordings_arn}/{FOLDER}/*",
            },
        ]
    if recordings_arn and kms_key_arn:
        statements.append(
            {
                "Sid": "RecordingsKey",
                "Effect": "Allow",
                "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
                "Resource": kms_key_arn,
                "Condition": {"StringEquals": {"kms:EncryptionContext:aws:s3:arn": recordings_arn}},
            }
        )
    if certificate_arn:
        secret = certificate_arn.split(":")[2] == "secretsmanager"
        read = "secretsmanager:GetSecretValue" if secret else "ssm:GetParameter"
        statements.append({"Sid": "Certificate", "Effect": "Allow", "Action": read, "Resource": certificate_arn})
        if kms_key_arn:
            context = f"kms:EncryptionContext:{'SecretARN' if secret else 'PARAMETER_ARN'}"
            statements.append(
                {
                    "Sid": "CertificateKey",
                    "Effect": "Allow",
                    "Action": "kms:Decrypt",
                    "Resource": kms_key_arn,
                    "Condition": {"StringEquals": {context: certificate_arn}},
                }
            )
    if state_arn and events_arn:
        statements += _shared_state(state_arn, events_arn, kms_key_arn)
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


def _shared_state(state_arn: str, events_arn: str, kms_key_arn: str | None) -> list[dict]:
    """What Teleport calls (lib/backend/dynamo, lib/events/dynamoevents) on tables that exist.

    It makes transactions of the single actions. Nothing changes or deletes an event, and nothing creates a table.
    """
    read = ["dynamodb:DescribeTable", "dynamodb:DescribeTimeToLive", "dynamodb:Query"]
    change = ["BatchWriteItem", "ConditionCheckItem", "DeleteItem", "GetItem", "PutItem", "UpdateItem"]
    follow = ["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator"]
    statements: list[dict] = [
        {
            "Sid": "State",
            "Effect": "Allow",
            "Action": [*read, *(f"dynamodb:{action}" for action in change)],
            "Resource": state_arn,
        },
        {"Sid": "StateStream", "Effect": "Allow", "Action": follow, "Resource": f"{state_arn}/stream/*"},
        {
            "Sid": "Events",
            "Effect": "Allow",
            "Action": [*read, "dynamodb:PutItem"],
            "Resource": [events_arn, f"{events_arn}/index/{EVENTS_INDEX}"],
        },
    ]
    if kms_key_arn:
        region = state_arn.split(":")[3]
        statements.append(
            {
                "Sid": "StateKey",
                "Effect": "Allow",
                "Action": ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey"],
                "Resource": kms_key_arn,
                # DynamoDB uses the key in the host's name. In China, the service's name ends in .cn.
                "Condition": {"StringLike": {"kms:ViaService": f"dynamodb.{region}.amazonaws.com*"}},
            }
        )
    return statements


@dataclass(frozen=True)
class ProxyIdentityArgs:
    partition: str
    cluster_arn: pulumi.Input[str]
    parameters_arn: pulumi.Input[str]
    hosted_zone_arn: str | None = None
    kms_key_arn: str | None = None
    log_group_arn: str | None = None
    metrics_namespace: str | None = None
    recordings_arn: pulumi.Input[str] | None = None
    certificate_arn: str | None = None
    state_arn: pulumi.Input[str] | None = None
    events_arn: pulumi.Input[str] | None = None


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
                args.cluster_arn,
                args.parameters_arn,
                args.hosted_zone_arn,
                args.kms_key_arn,
                args.log_group_arn,
                args.metrics_namespace,
                args.recordings_arn,
                args.certificate_arn,
                args.state_arn,
                args.events_arn,
            ).apply(lambda names: json.dumps(permissions(*names))),
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
