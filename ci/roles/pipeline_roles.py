"""The two roles of the workflows, and exactly what they may do.

``calls.json`` holds the calls that a stack makes in its life, from the first update to the destroy, as the tests'
emulated account saw them. A test compares it with the calls of each run, so it cannot be out of date. Each statement
takes the calls that it is about with ``seen``. The actions that are named here come on top: what the real AWS provider
calls and the sandbox's does not, by the provider's source (waiting, tags), and what the emulator does not have.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
import pulumi_aws as aws

# A pattern names its calls: a call that is new fails the test until somebody decides which resources it is for.
CALLS: list[str] = json.loads(Path(__file__).with_name("calls.json").read_text())


def seen(pattern: str) -> list[str]:
    return [call for call in CALLS if re.fullmatch(pattern, call)]


ISSUER = "https://token.actions.githubusercontent.com"
CLAIMS = "token.actions.githubusercontent.com"
# owner/name, or owner@id/name@id: what a token says depends on the repository's age.
REPOSITORY = re.compile(r"[\w.-]+(@\d+)?/[\w.-]+(@\d+)?")

# What the components' resources are called, which Pulumi adds a random end to: the proxy's name is "teleport".
NAMED = "teleport-*"
HOST_ROLE, SNAPSHOT_ROLE = "teleport-identity-role-*", "teleport-storage-snapshots-*"
INSTANCE_PROFILE = "teleport-identity-profile-*"
RECORDINGS = "teleport-recordings-*"
# The tag of a volume and of its daily snapshots, which says whose they are.
SNAPSHOTS_OF = "teleport-eks/snapshots"
ATTACHED = ("AmazonSSMManagedEC2InstanceDefaultPolicy", "service-role/AWSDataLifecycleManagerServiceRole")

# What a refresh reads and IAM does not limit to a resource.
DESCRIBE = (
    *seen(r"ec2:Describe\w+"),
    "ec2:DescribeAddressesAttribute",
    "ec2:DescribeImages",
    "ec2:DescribeInstanceCreditSpecifications",
    "ec2:DescribeInstanceStatus",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeTags",
    "ec2:DescribeVolumesModifications",
    "ec2:DescribeVpcs",
    "eks:ListClusters",
    "ssm:DescribeParameters",
)
RULES = (*seen(r"ec2:(Authorize|Revoke)SecurityGroup\w+"), "ec2:ModifySecurityGroupRules")


@dataclass(frozen=True)
class Scope:
    """One stack: where it is, and which of the things there are its own."""

    partition: str
    account_id: str
    region: str
    stack: str
    cluster: str
    zone_id: str | None = None
    domain_name: str | None = None
    state_bucket: str | None = None
    secrets_key_arn: str | None = None
    permissions_boundary: str | None = None
    iam_path: str = "/"
    kms_key_arn: str | None = None
    recordings_in_s3: bool = False

    def arn(self, service: str, resource: str) -> str:
        region = "" if service == "iam" else self.region
        return f"arn:{self.partition}:{service}:{region}:{self.account_id}:{resource}"

    @property
    def parameters(self) -> str:
        return self.arn("ssm", f"parameter/teleport-eks/{self.stack}/*")

    def roles(self, *names: str) -> list[str]:
        return [self.arn("iam", f"role{self.iam_path}{name}") for name in names or (HOST_ROLE, SNAPSHOT_ROLE)]

    @property
    def profiles(self) -> str:
        return self.arn("iam", f"instance-profile{self.iam_path}{INSTANCE_PROFILE}")

    @property
    def alarms(self) -> str:
        return self.arn("cloudwatch", f"alarm:teleport-eks/{self.stack}/*")

    @property
    def logs(self) -> list[str]:
        group = self.arn("logs", f"log-group:/teleport-eks/{self.stack}")
        return [group, f"{group}:*"]

    @property
    def zone(self) -> str:
        return f"arn:{self.partition}:route53:::hostedzone/{self.zone_id}"

    @property
    def recordings(self) -> str:
        return f"arn:{self.partition}:s3:::{RECORDINGS}"

    @property
    def policies(self) -> list[str]:
        return [f"arn:{self.partition}:iam::aws:policy/{name}" for name in ATTACHED]


def _allow(sid: str, actions: Sequence[str], resource: str | list[str], **conditions: dict[str, Any]) -> dict:
    statement = {"Sid": sid, "Effect": "Allow", "Action": sorted(actions), "Resource": resource}
    return {**statement, "Condition": conditions} if conditions else statement


def reading(scope: Scope) -> list[dict]:
    """What `pulumi preview`, with and without --refresh, needs.

    It includes the stack's own parameters, with the GitHub client secret. That
    gives a pull request nothing new: its code gets the same secret from the
    stack's configuration, which a preview cannot do without.
    """
    images = f"arn:{scope.partition}:ssm:{scope.region}::parameter/aws/service/ami-amazon-linux-latest/*"
    statements = [
        _allow("Describe", DESCRIBE, "*"),
        _allow("Cluster", seen("eks:DescribeCluster"), scope.arn("eks", f"cluster/{scope.cluster}")),
        _allow("AccessEntry", ["eks:DescribeAccessEntry"], scope.arn("eks", f"access-entry/{scope.cluster}/*")),
        _allow("Parameters", [*seen("ssm:GetParameter"), "ssm:ListTagsForResource"], [scope.parameters, images]),
        _allow(
            "Roles",
            [*seen("iam:(GetRole|GetRolePolicy|ListAttachedRolePolicies)"), "iam:ListRolePolicies"],
            scope.roles(),
        ),
        _allow("Profile", seen("iam:GetInstanceProfile"), scope.profiles),
        _allow("Snapshots", ["dlm:GetLifecyclePolicy", "dlm:ListTagsForResource"], scope.arn("dlm", "policy/*")),
        # AWS asks for the right to describe all of them, even if only some are described.
        _allow(
            "Signals",
            [
                *seen("cloudwatch:DescribeAlarms|logs:DescribeLogGroups"),
                *("cloudwatch:ListTagsForResource", "logs:ListTagsForResource"),
            ],
            [scope.arn("cloudwatch", "alarm:*"), scope.arn("logs", "log-group:*")],
        ),
    ]
    if scope.zone_id:
        statements += [
            _allow("Zones", seen("route53:ListHostedZones"), "*"),
            _allow(
                "Zone",
                [*seen("route53:ListResourceRecordSets"), "route53:GetHostedZone", "route53:ListTagsForResource"],
                scope.zone,
            ),
        ]
    if scope.recordings_in_s3:
        read = [
            *seen(r"s3:(Get|List)\w+"),
            # What the provider reads of every bucket.
            *(f"s3:GetBucket{what}" for what in ("Acl", "CORS", "Location", "Logging", "RequestPayment", "Website")),
            "s3:GetAccelerateConfiguration",
            "s3:GetReplicationConfiguration",
            "s3:ListTagsForResource",
        ]
        statements.append(_allow("Recordings", read, scope.recordings))
    if scope.state_bucket:
        bucket = f"arn:{scope.partition}:s3:::{scope.state_bucket}"
        statements += [
            _allow("StateList", ["s3:ListBucket"], bucket),
            _allow("State", ["s3:GetObject"], f"{bucket}/.pulumi/*"),
        ]
    if scope.secrets_key_arn:
        statements.append(_allow("Secrets", ["kms:Decrypt"], scope.secrets_key_arn))
    if scope.kms_key_arn:
        statements.append(_allow("Key", ["kms:Decrypt", "kms:DescribeKey"], scope.kms_key_arn))
    return statements


def writing(scope: Scope) -> list[dict]:
    """What `pulumi up` and `pulumi destroy` need beyond reading."""
    named, boundary = {"aws:ResourceTag/Name": NAMED}, scope.permissions_boundary
    statements = [
        # EC2. New things have no name yet; what is there already must be the proxy's, by its Name tag.
        _allow(
            "Create",
            seen("ec2:(AllocateAddress|CreateSecurityGroup|CreateVolume)"),
            [scope.arn("ec2", f"{kind}/*") for kind in ("elastic-ip", "security-group", "volume")],
            StringLike={"aws:RequestTag/Name": NAMED},
        ),
        # A volume from a snapshot is a matter of the snapshot as well, whose ARN has no account: only of this stack's.
        _allow(
            "Restore",
            ["ec2:CreateVolume"],
            f"arn:{scope.partition}:ec2:{scope.region}::snapshot/*",
            StringEquals={f"aws:ResourceTag/{SNAPSHOTS_OF}": scope.stack},
        ),
        _allow("InVpc", ["ec2:CreateSecurityGroup"], scope.arn("ec2", "vpc/*")),
        _allow(
            "Instance",
            ["ec2:RunInstances"],
            scope.arn("ec2", "instance/*"),
            StringLike={"aws:RequestTag/Name": NAMED},
            StringEquals={"ec2:MetadataHttpTokens": "required"},
        ),
        _allow(
            "InstanceIsMadeOf",
            ["ec2:RunInstances"],
            [
                *(scope.arn("ec2", f"{k}/*") for k in ("network-interface", "security-group", "subnet", "volume")),
                f"arn:{scope.partition}:ec2:{scope.region}::image/*",
            ],
        ),
        _allow(
            "Change",
            [
                *seen(
                    "ec2:((Attach|Delete|Detach)Volume|DeleteSecurityGroup|ReleaseAddress|ModifyInstanceAttribute"
                    "|(Start|Stop|Terminate)Instances)"
                ),
                "ec2:CreateTags",
                "ec2:DeleteTags",
                "ec2:ModifyVolume",
            ],
            scope.arn("ec2", "*"),
            StringLike=named,
        ),
        _allow(
            "TagNew",
            ["ec2:CreateTags"],
            scope.arn("ec2", "*"),
            StringEquals={
                "ec2:CreateAction": [
                    *("AllocateAddress", "CreateSecurityGroup", "CreateVolume", "RunInstances"),
                    *("AuthorizeSecurityGroupEgress", "AuthorizeSecurityGroupIngress"),
                ],
            },
        ),
        # Which instance or interface an address is taken from is not known here, so it is not limited by name.
        _allow(
            "Address",
            seen(r"ec2:(Associate|Disassociate)Address"),
            [scope.arn("ec2", f"{kind}/*") for kind in ("elastic-ip", "instance", "network-interface")],
        ),
        _allow("OwnRules", RULES, scope.arn("ec2", "security-group/*"), StringLike=named),
        # One rule is on the cluster's own group. Rules have no tags; the group that they are in is checked above.
        _allow(
            "ClusterRule",
            RULES,
            scope.arn("ec2", "security-group/*"),
            StringEquals={"aws:ResourceTag/aws:eks:cluster-name": scope.cluster},
        ),
        _allow("Rules", [*RULES, "ec2:CreateTags", "ec2:DeleteTags"], scope.arn("ec2", "security-group-rule/*")),
        # IAM. The host's role is what the program makes it, so whoever may merge decides what its instance may do:
        # hence the reviewers of the environment.
        _allow(
            "WriteRoles",
            [
                *([] if boundary else seen("iam:CreateRole")),
                *seen("iam:(DeleteRole|(Delete|Put)RolePolicy)"),
                "iam:ListInstanceProfilesForRole",
                "iam:TagRole",
                "iam:UntagRole",
                "iam:UpdateAssumeRolePolicy",
            ],
            scope.roles(),
        ),
        _allow(
            "AttachPolicies",
            seen(r"iam:(Attach|Detach)RolePolicy"),
            scope.roles(),
            ArnEquals={"iam:PolicyARN": scope.policies},
        ),
        _allow(
            "WriteProfile",
            [
                *seen("iam:(AddRoleTo|Create|Delete|RemoveRoleFrom)InstanceProfile"),
                "iam:TagInstanceProfile",
                "iam:UntagInstanceProfile",
            ],
            scope.profiles,
        ),
        # From here to the parameters nothing is seen: the emulator asks nobody who passes a role.
        _pass_role(scope, "PassHostRole", HOST_ROLE, "ec2.amazonaws.com"),
        _pass_role(scope, "PassSnapshotRole", SNAPSHOT_ROLE, "dlm.amazonaws.com"),
        _allow("CreateSnapshots", ["dlm:CreateLifecyclePolicy"], "*"),
        _allow(
            "WriteSnapshots",
            ["dlm:DeleteLifecyclePolicy", "dlm:TagResource", "dlm:UntagResource", "dlm:UpdateLifecyclePolicy"],
            scope.arn("dlm", "policy/*"),
        ),
        _allow("CreateAccessEntry", ["eks:CreateAccessEntry"], scope.arn("eks", f"cluster/{scope.cluster}")),
        _allow(
            "WriteAccessEntry",
            ["eks:DeleteAccessEntry", "eks:TagResource", "eks:UntagResource", "eks:UpdateAccessEntry"],
            scope.arn("eks", f"access-entry/{scope.cluster}/*"),
        ),
        _allow(
            "WriteAlarms",
            [*seen("cloudwatch:(DeleteAlarms|PutMetricAlarm)"), "cloudwatch:TagResource", "cloudwatch:UntagResource"],
            scope.alarms,
        ),
        # The first alarm of an account that has EC2 do something makes this role, in whose name it does it.
        _allow(
            "AlarmsRole",
            ["iam:CreateServiceLinkedRole"],
            scope.arn("iam", "role/aws-service-role/events.amazonaws.com/*"),
            StringEquals={"iam:AWSServiceName": "events.amazonaws.com"},
        ),
        _allow(
            "WriteLogs",
            [
                *seen("logs:(CreateLogGroup|DeleteLogGroup|PutRetentionPolicy)"),
                *("logs:AssociateKmsKey", "logs:DisassociateKmsKey", "logs:TagResource", "logs:UntagResource"),
            ],
            scope.logs,
        ),
        # What the host wrote to its console, where its boot stopped.
        _allow("Console", ["ec2:GetConsoleOutput"], scope.arn("ec2", "instance/*"), StringLike=named),
        _allow(
            "WriteParameters",
            [*seen(r"ssm:(Delete|Put)Parameter"), "ssm:AddTagsToResource", "ssm:RemoveTagsFromResource"],
            scope.parameters,
        ),
    ]
    if scope.zone_id:
        statements += [
            _allow(
                "Record",
                seen("route53:ChangeResourceRecordSets"),
                scope.zone,
                **{
                    "ForAllValues:StringEquals": {
                        "route53:ChangeResourceRecordSetsNormalizedRecordNames": [scope.domain_name],
                        "route53:ChangeResourceRecordSetsRecordTypes": ["A"],
                    }
                },
            ),
            _allow("RecordIsThere", ["route53:GetChange"], f"arn:{scope.partition}:route53:::change/*"),
        ]
    if scope.recordings_in_s3:
        # The bucket, and no recording in it: s3:DeleteBucket works only if it is empty.
        statements.append(_allow("WriteRecordings", seen(r"s3:(Create|Delete|Put)\w+"), scope.recordings))
    if scope.state_bucket:
        objects = f"arn:{scope.partition}:s3:::{scope.state_bucket}/.pulumi/*"
        statements.append(_allow("WriteState", ["s3:DeleteObject", "s3:PutObject"], objects))
    if scope.secrets_key_arn:
        statements.append(_allow("Encrypt", ["kms:Encrypt"], scope.secrets_key_arn))
    if boundary:
        # A role without the boundary could do more than the account wants.
        bounded = [*seen("iam:CreateRole"), "iam:PutRolePermissionsBoundary"]
        statements.append(_allow("Bounded", bounded, scope.roles(), StringEquals={"iam:PermissionsBoundary": boundary}))
    if scope.kms_key_arn:
        # EC2 uses the key for the volumes in the name of whoever creates them, and Systems Manager for the parameter.
        through = {"kms:ViaService": [f"{service}.{scope.region}.amazonaws.com" for service in ("ec2", "ssm")]}
        use = ("Encrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "ReEncryptFrom", "ReEncryptTo")
        statements += [
            _allow("UseKey", [f"kms:{action}" for action in use], scope.kms_key_arn, StringEquals=through),
            _allow("GrantKey", ["kms:CreateGrant"], scope.kms_key_arn, Bool={"kms:GrantIsForAWSResource": "true"}),
        ]
    return statements


def _pass_role(scope: Scope, sid: str, role: str, service: str) -> dict:
    """Without the condition, the role could be handed to any service that would use it."""
    to = {"iam:PassedToService": service}
    return _allow(sid, ["iam:PassRole"], scope.roles(role), StringEquals=to)


def policy(statements: list[dict]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))


def trust(provider_arn: str, repository: str, environment: str) -> str:
    """Only jobs of this repository that are in this GitHub environment.

    Not ``repo:OWNER/NAME:pull_request``, which every job of every workflow in
    any pull request has, of all stacks. An environment is one stack's, and can
    have rules of its own: branches, and reviewers who look before code runs.
    """
    if not REPOSITORY.fullmatch(repository):
        raise ValueError(f"repository: {repository!r} is not like owner/name or owner@id/name@id")
    statement = {
        "Effect": "Allow",
        "Principal": {"Federated": provider_arn},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {
            "StringEquals": {
                f"{CLAIMS}:aud": "sts.amazonaws.com",
                f"{CLAIMS}:sub": f"repo:{repository}:environment:{environment}",
            }
        },
    }
    return policy([statement])


@dataclass(frozen=True)
class PipelineRolesArgs:
    """``repository`` is as in the tokens' subject; ``provider_arn`` is GitHub's OIDC provider in this account."""

    repository: str
    provider_arn: pulumi.Input[str]
    scope: Scope
    tags: Mapping[str, str] | None = None


class PipelineRoles(pulumi.ComponentResource):
    """Owns two roles for one stack: one for its environment <stack>-preview, which can only read, one for <stack>."""

    preview_role_arn: pulumi.Output[str]
    up_role_arn: pulumi.Output[str]

    def __init__(self, name: str, args: PipelineRolesArgs, *, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("teleport-eks-ci:index:PipelineRoles", name, None, opts)
        child, stack = pulumi.ResourceOptions(parent=self), args.scope.stack

        preview, up = self._role(f"{name}-preview", args, f"{stack}-preview"), self._role(name, args, stack)
        # A policy of its own, because a role's inline policies together have at most 10,240 characters.
        read = aws.iam.Policy(
            f"{name}-read", policy=policy(reading(args.scope)), path=args.scope.iam_path, tags=args.tags, opts=child
        )
        for role_name, role in ((f"{name}-preview", preview), (name, up)):
            aws.iam.RolePolicyAttachment(f"{role_name}-read", role=role.name, policy_arn=read.arn, opts=child)
        aws.iam.RolePolicy(f"{name}-write", role=up.name, policy=policy(writing(args.scope)), opts=child)

        self.preview_role_arn, self.up_role_arn = preview.arn, up.arn
        self.register_outputs({"previewRoleArn": self.preview_role_arn, "upRoleArn": self.up_role_arn})

    def _role(self, name: str, args: PipelineRolesArgs, environment: str) -> aws.iam.Role:
        return aws.iam.Role(
            name,
            assume_role_policy=pulumi.Output.from_input(args.provider_arn).apply(
                lambda arn: trust(arn, args.repository, environment)
            ),
            max_session_duration=3600,
            permissions_boundary=args.scope.permissions_boundary,
            path=args.scope.iam_path,
            tags=args.tags,
            opts=pulumi.ResourceOptions(parent=self),
        )
