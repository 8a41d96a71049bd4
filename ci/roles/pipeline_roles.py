"""The two roles of the workflows, and exactly what they may do.

``calls.json`` holds the calls that a stack makes in its life, from the first update to the destroy, as the tests'
emulated account saw them, and those that only a stack with ``topology: ha`` makes. Tests compare it with the calls of
each run, so it cannot be out of date. Each statement takes the calls that it is about with ``seen``. The actions that
are named here come on top: what the real AWS provider calls and the sandbox's does not, by the provider's source
(waiting, tags), and what the emulator does not have.
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
CALLS: dict[str, list[str]] = json.loads(Path(__file__).with_name("calls.json").read_text())


def seen(pattern: str) -> list[str]:
    return [call for calls in CALLS.values() for call in calls if re.fullmatch(pattern, call)]


ISSUER = "https://token.actions.githubusercontent.com"
CLAIMS = "token.actions.githubusercontent.com"
# owner/name, or owner@id/name@id: what a token says depends on the repository's age.
REPOSITORY = re.compile(r"[\w.-]+(@\d+)?/[\w.-]+(@\d+)?")

# What the components' resources are called, which Pulumi adds a random end to: the proxy's name is "teleport".
NAMED = "teleport-*"
IS_NAMED, GETS_NAME = {"aws:ResourceTag/Name": NAMED}, {"aws:RequestTag/Name": NAMED}
HOST_ROLE, SNAPSHOT_ROLE = "teleport-identity-role-*", "teleport-storage-snapshots-*"
INSTANCE_PROFILE = "teleport-identity-profile-*"
RECORDINGS = "teleport-recordings-*"
# With several hosts.
TABLES, BALANCER, HOSTS = "teleport-state-*", "teleport-balancer-*", "teleport-hosts-*"
# The tag of a volume and of its daily snapshots, which says whose they are.
SNAPSHOTS_OF = "teleport-eks/snapshots"
ATTACHED = ("AmazonSSMManagedEC2InstanceDefaultPolicy", "service-role/AWSDataLifecycleManagerServiceRole")

# What a refresh reads and IAM does not limit to a resource.
DESCRIBE = [
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
]
RULES = [*seen(r"ec2:(Authorize|Revoke)SecurityGroup\w+"), "ec2:ModifySecurityGroupRules"]
EC2_TAGS = ["ec2:CreateTags", "ec2:DeleteTags"]


@dataclass(frozen=True)
class Scope:
    """One stack: where it is, and which of the things there are its own."""

    partition: str
    account_id: str
    region: str
    stack: str
    clusters: Sequence[str]
    zone_id: str | None = None
    domain_name: str | None = None
    state_bucket: str | None = None
    secrets_key_arn: str | None = None
    permissions_boundary: str | None = None
    iam_path: str = "/"
    kms_key_arn: str | None = None
    recordings_in_s3: bool = False
    several_hosts: bool = False

    def arn(self, service: str, resource: str) -> str:
        region = "" if service == "iam" else self.region
        return f"arn:{self.partition}:{service}:{region}:{self.account_id}:{resource}"

    def ec2(self, *kinds: str) -> list[str]:
        return [self.arn("ec2", f"{kind}/*") for kind in kinds]

    def eks(self, pattern: str) -> list[str]:
        """The ARNs of something of each cluster."""
        return [self.arn("eks", pattern.format(cluster)) for cluster in self.clusters]

    @property
    def parameters(self) -> str:
        return self.arn("ssm", f"parameter/teleport-eks/{self.stack}/*")

    @property
    def images(self) -> str:
        """Where AWS publishes the ids of Amazon Linux's images."""
        return f"arn:{self.partition}:ssm:{self.region}::parameter/aws/service/ami-amazon-linux-latest/*"

    def roles(self, *names: str) -> list[str]:
        return [self.arn("iam", f"role{self.iam_path}{name}") for name in names or (HOST_ROLE, SNAPSHOT_ROLE)]

    @property
    def profiles(self) -> str:
        return self.arn("iam", f"instance-profile{self.iam_path}{INSTANCE_PROFILE}")

    @property
    def zone(self) -> str:
        return f"arn:{self.partition}:route53:::hostedzone/{self.zone_id}"

    @property
    def recordings(self) -> str:
        return f"arn:{self.partition}:s3:::{RECORDINGS}"

    @property
    def tables(self) -> str:
        return self.arn("dynamodb", f"table/{TABLES}")

    @property
    def policies(self) -> list[str]:
        return [f"arn:{self.partition}:iam::aws:policy/{name}" for name in ATTACHED]


def _allow(sid: str, resource: str | list[str], *actions: str | list[str], **conditions: dict[str, Any]) -> dict:
    names = [name for given in actions for name in ([given] if isinstance(given, str) else given)]
    statement = {"Sid": sid, "Effect": "Allow", "Action": sorted(names), "Resource": resource}
    return {**statement, "Condition": conditions} if conditions else statement


def _tags(service: str, kind: str = "Resource") -> list[str]:
    return [f"{service}:Tag{kind}", f"{service}:Untag{kind}"]


def reading(scope: Scope) -> list[dict]:
    """What `pulumi preview`, with and without --refresh, needs.

    It includes the stack's own parameters, with the GitHub client secret. That
    gives a pull request nothing new: its code gets the same secret from the
    stack's configuration, which a preview cannot do without.
    """
    signals = [scope.arn("cloudwatch", "alarm:*"), scope.arn("logs", "log-group:*")]
    statements = [
        _allow("Describe", "*", DESCRIBE),
        _allow("Cluster", scope.eks("cluster/{}"), seen("eks:DescribeCluster")),
        _allow("AccessEntry", scope.eks("access-entry/{}/*"), "eks:DescribeAccessEntry"),
        _allow("Parameters", [scope.parameters, scope.images], seen("ssm:GetParameter"), "ssm:ListTagsForResource"),
        _allow(
            "Roles", scope.roles(), seen("iam:(GetRole|GetRolePolicy|ListAttachedRolePolicies)"), "iam:ListRolePolicies"
        ),
        _allow("Profile", scope.profiles, seen("iam:GetInstanceProfile")),
        _allow("Snapshots", scope.arn("dlm", "policy/*"), "dlm:GetLifecyclePolicy", "dlm:ListTagsForResource"),
        # AWS asks for the right to describe all of them, even if only some are described.
        _allow(
            "Signals",
            signals,
            seen("cloudwatch:DescribeAlarms|logs:DescribeLogGroups"),
            "cloudwatch:ListTagsForResource",
            "logs:ListTagsForResource",
        ),
    ]
    if scope.zone_id:
        read = [*seen("route53:ListResourceRecordSets"), "route53:GetHostedZone", "route53:ListTagsForResource"]
        statements += [
            _allow("Zones", "*", seen("route53:ListHostedZones")),
            _allow("Zone", scope.zone, read),
        ]
    if scope.recordings_in_s3:
        # What the provider reads of every bucket.
        bucket = ("Acl", "CORS", "Location", "Logging", "RequestPayment", "Website")
        others = ["s3:GetAccelerateConfiguration", "s3:GetReplicationConfiguration", "s3:ListTagsForResource"]
        every = [*(f"s3:GetBucket{what}" for what in bucket), *others]
        statements.append(_allow("Recordings", scope.recordings, seen(r"s3:(Get|List)\w+"), every))
    if scope.several_hosts:
        # IAM limits what describes balancers and groups to no resource.
        describe = [
            *seen(r"(autoscaling|elasticloadbalancing):Describe\w+"),
            "autoscaling:DescribeInstanceRefreshes",
            "autoscaling:DescribeLoadBalancerTargetGroups",
            "autoscaling:DescribeScalingActivities",
            "autoscaling:DescribeTags",
            "ec2:DescribeLaunchTemplateVersions",
            "elasticloadbalancing:DescribeCapacityReservation",
            "elasticloadbalancing:DescribeListenerAttributes",
            "elasticloadbalancing:DescribeTags",
            "elasticloadbalancing:DescribeTargetGroupAttributes",
            "elasticloadbalancing:DescribeTargetHealth",
        ]
        statements += [
            _allow("DescribeHosts", "*", describe),
            _allow("Tables", scope.tables, seen(r"dynamodb:Describe\w+"), "dynamodb:ListTagsOfResource"),
        ]
    if scope.state_bucket:
        state = f"arn:{scope.partition}:s3:::{scope.state_bucket}"
        statements += [
            _allow("StateList", state, "s3:ListBucket"),
            _allow("State", f"{state}/.pulumi/*", "s3:GetObject"),
        ]
    if scope.secrets_key_arn:
        statements.append(_allow("Secrets", scope.secrets_key_arn, "kms:Decrypt"))
    if scope.kms_key_arn:
        statements.append(_allow("Key", scope.kms_key_arn, "kms:Decrypt", "kms:DescribeKey"))
    return statements


def writing(scope: Scope) -> list[dict]:
    """What `pulumi up` and `pulumi destroy` need beyond reading."""
    boundary, entries = scope.permissions_boundary, scope.eks("access-entry/{}/*")
    alarms = scope.arn("cloudwatch", f"alarm:teleport-eks/{scope.stack}/*")
    log_group = scope.arn("logs", f"log-group:/teleport-eks/{scope.stack}")
    statements = [
        # EC2. New things have no name yet; what is there already must be the proxy's, by its Name tag.
        _allow(
            "Create",
            scope.ec2("elastic-ip", "security-group", "volume"),
            seen("ec2:(AllocateAddress|CreateSecurityGroup|CreateVolume)"),
            StringLike=GETS_NAME,
        ),
        # A volume from a snapshot is a matter of the snapshot as well, whose ARN has no account: only of this stack's.
        _allow(
            "Restore",
            f"arn:{scope.partition}:ec2:{scope.region}::snapshot/*",
            "ec2:CreateVolume",
            StringEquals={f"aws:ResourceTag/{SNAPSHOTS_OF}": scope.stack},
        ),
        _allow("InVpc", scope.ec2("vpc"), "ec2:CreateSecurityGroup"),
        _allow(
            "Instance",
            scope.ec2("instance"),
            "ec2:RunInstances",
            StringLike=GETS_NAME,
            StringEquals={"ec2:MetadataHttpTokens": "required"},
        ),
        _allow(
            "InstanceIsMadeOf",
            [
                *scope.ec2("network-interface", "security-group", "subnet", "volume"),
                f"arn:{scope.partition}:ec2:{scope.region}::image/*",
            ],
            "ec2:RunInstances",
        ),
        _allow(
            "Change",
            scope.arn("ec2", "*"),
            seen("ec2:((Attach|Delete|Detach)Volume|DeleteSecurityGroup|ReleaseAddress|ModifyInstanceAttribute)"),
            seen("ec2:(Start|Stop|Terminate)Instances"),
            EC2_TAGS,
            "ec2:ModifyVolume",
            StringLike=IS_NAMED,
        ),
        _allow(
            "TagNew",
            scope.arn("ec2", "*"),
            "ec2:CreateTags",
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
            scope.ec2("elastic-ip", "instance", "network-interface"),
            seen("ec2:(Associate|Disassociate)Address"),
        ),
        _allow("OwnRules", scope.ec2("security-group"), RULES, StringLike=IS_NAMED),
        # One rule is on the cluster's own group. Rules have no tags; the group that they are in is checked above.
        _allow(
            "ClusterRule",
            scope.ec2("security-group"),
            RULES,
            StringEquals={"aws:ResourceTag/aws:eks:cluster-name": list(scope.clusters)},
        ),
        _allow("Rules", scope.ec2("security-group-rule"), RULES, EC2_TAGS),
        # IAM. The host's role is what the program makes it, so whoever may merge decides what its instance may do:
        # hence the reviewers of the environment.
        _allow(
            "WriteRoles",
            scope.roles(),
            [] if boundary else seen("iam:CreateRole"),
            seen("iam:(DeleteRole|(Delete|Put)RolePolicy)"),
            _tags("iam", "Role"),
            "iam:ListInstanceProfilesForRole",
            "iam:UpdateAssumeRolePolicy",
        ),
        _allow(
            "AttachPolicies",
            scope.roles(),
            seen("iam:(Attach|Detach)RolePolicy"),
            ArnEquals={"iam:PolicyARN": scope.policies},
        ),
        _allow(
            "WriteProfile",
            scope.profiles,
            seen("iam:(AddRoleTo|Create|Delete|RemoveRoleFrom)InstanceProfile"),
            _tags("iam", "InstanceProfile"),
        ),
        # From here to the parameters nothing is seen: the emulator asks nobody who passes a role.
        _pass_role(scope, "PassHostRole", HOST_ROLE, "ec2.amazonaws.com"),
        _pass_role(scope, "PassSnapshotRole", SNAPSHOT_ROLE, "dlm.amazonaws.com"),
        _allow("CreateSnapshots", "*", "dlm:CreateLifecyclePolicy"),
        _allow(
            "WriteSnapshots",
            scope.arn("dlm", "policy/*"),
            *("dlm:DeleteLifecyclePolicy", "dlm:UpdateLifecyclePolicy", _tags("dlm")),
        ),
        _allow("CreateAccessEntry", scope.eks("cluster/{}"), "eks:CreateAccessEntry"),
        _allow("WriteAccessEntry", entries, "eks:DeleteAccessEntry", "eks:UpdateAccessEntry", _tags("eks")),
        _allow("WriteAlarms", alarms, seen("cloudwatch:(DeleteAlarms|PutMetricAlarm)"), _tags("cloudwatch")),
        # The first alarm of an account that has EC2 do something makes this role, in whose name it does it.
        _allow(
            "AlarmsRole",
            scope.arn("iam", "role/aws-service-role/events.amazonaws.com/*"),
            "iam:CreateServiceLinkedRole",
            StringEquals={"iam:AWSServiceName": "events.amazonaws.com"},
        ),
        _allow(
            "WriteLogs",
            [log_group, f"{log_group}:*"],
            seen("logs:(CreateLogGroup|DeleteLogGroup|PutRetentionPolicy)"),
            *("logs:AssociateKmsKey", "logs:DisassociateKmsKey", _tags("logs")),
        ),
        # What the host wrote to its console, where its boot stopped.
        _allow("Console", scope.ec2("instance"), "ec2:GetConsoleOutput", StringLike=IS_NAMED),
        _allow(
            "WriteParameters",
            scope.parameters,
            seen("ssm:(Delete|Put)Parameter"),
            *("ssm:AddTagsToResource", "ssm:RemoveTagsFromResource"),
        ),
    ]
    if scope.zone_id:
        own_record = {
            "route53:ChangeResourceRecordSetsNormalizedRecordNames": [scope.domain_name],
            "route53:ChangeResourceRecordSetsRecordTypes": ["A"],
        }
        change = seen("route53:ChangeResourceRecordSets")
        statements += [
            _allow("Record", scope.zone, change, **{"ForAllValues:StringEquals": own_record}),
            _allow("RecordIsThere", f"arn:{scope.partition}:route53:::change/*", "route53:GetChange"),
        ]
    if scope.recordings_in_s3:
        # The bucket, and no recording in it: s3:DeleteBucket works only if it is empty.
        statements.append(_allow("WriteRecordings", scope.recordings, seen(r"s3:(Create|Delete|Put)\w+")))
    if scope.state_bucket:
        objects = f"arn:{scope.partition}:s3:::{scope.state_bucket}/.pulumi/*"
        statements.append(_allow("WriteState", objects, "s3:DeleteObject", "s3:PutObject"))
    if scope.secrets_key_arn:
        statements.append(_allow("Encrypt", scope.secrets_key_arn, "kms:Encrypt"))
    if boundary:
        # A role without the boundary could do more than the account wants.
        bounded = [*seen("iam:CreateRole"), "iam:PutRolePermissionsBoundary"]
        statements.append(_allow("Bounded", scope.roles(), bounded, StringEquals={"iam:PermissionsBoundary": boundary}))
    if scope.kms_key_arn:
        # EC2 uses the key for the volumes in the name of whoever creates them, Systems Manager for the parameter, and
        # DynamoDB for the tables.
        services = ["ec2", "ssm", *(["dynamodb"] if scope.several_hosts else [])]
        through = {"kms:ViaService": [f"{service}.{scope.region}.amazonaws.com" for service in services]}
        use = ("Encrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "ReEncryptFrom", "ReEncryptTo")
        statements += [
            _allow("UseKey", scope.kms_key_arn, [f"kms:{action}" for action in use], StringEquals=through),
            _allow("GrantKey", scope.kms_key_arn, "kms:CreateGrant", Bool={"kms:GrantIsForAWSResource": "true"}),
        ]
    return statements


def writing_several_hosts(scope: Scope) -> list[dict]:
    """What `topology: ha` needs beyond that."""
    balancer = "elasticloadbalancing"
    group = scope.arn("autoscaling", f"autoScalingGroup:*:autoScalingGroupName/{HOSTS}")
    return [
        # The tables, and no item in them.
        _allow(
            "WriteTables",
            scope.tables,
            seen(r"dynamodb:(Create|Delete|Update)\w+"),
            *("dynamodb:UpdateTable", "dynamodb:TagResource", "dynamodb:UntagResource"),
        ),
        _allow(
            "WriteBalancer",
            [
                scope.arn(balancer, f"{kind}/{BALANCER}/*")
                for kind in ("loadbalancer/net", "listener/net", "targetgroup")
            ],
            seen(rf"{balancer}:(Create|Delete|Modify)\w+"),
            [f"{balancer}:Modify{what}" for what in ("Listener", "ListenerAttributes", "TargetGroup")],
            *(f"{balancer}:AddTags", f"{balancer}:RemoveTags", f"{balancer}:SetSubnets"),
        ),
        _allow(
            "WriteGroup",
            group,
            seen(r"autoscaling:(Create|Delete|Start|Update)\w+"),
            *("autoscaling:AttachLoadBalancerTargetGroups", "autoscaling:DetachLoadBalancerTargetGroups"),
            *("autoscaling:CancelInstanceRefresh", "autoscaling:CreateOrUpdateTags", "autoscaling:DeleteTags"),
        ),
        _allow("CreateTemplate", scope.ec2("launch-template"), seen("ec2:CreateLaunchTemplate"), StringLike=GETS_NAME),
        _allow(
            "WriteTemplate",
            scope.ec2("launch-template"),
            seen("ec2:(CreateLaunchTemplateVersion|DeleteLaunchTemplate)"),
            *("ec2:DeleteLaunchTemplateVersions", "ec2:ModifyLaunchTemplate"),
            EC2_TAGS,
            StringLike=IS_NAMED,
        ),
        _allow(
            "TagTemplate",
            scope.ec2("launch-template"),
            "ec2:CreateTags",
            StringEquals={"ec2:CreateAction": ["CreateLaunchTemplate"]},
        ),
        # Auto Scaling tries whether whoever changes the group could start its instances.
        _allow("HostsAreMadeOf", scope.ec2("launch-template"), "ec2:RunInstances", StringLike=IS_NAMED),
        _allow(
            "Images",
            scope.images,
            "ssm:GetParameters",
        ),
        # The first of each in an account makes the role in whose name AWS works.
        _allow(
            "HostsRoles",
            [
                scope.arn("iam", f"role/aws-service-role/{service}.amazonaws.com/*")
                for service in (balancer, "autoscaling")
            ],
            "iam:CreateServiceLinkedRole",
            StringEquals={"iam:AWSServiceName": [f"{balancer}.amazonaws.com", "autoscaling.amazonaws.com"]},
        ),
    ]


def _pass_role(scope: Scope, sid: str, role: str, service: str) -> dict:
    """Without the condition, the role could be handed to any service that would use it."""
    to = {"iam:PassedToService": service}
    return _allow(sid, scope.roles(role), "iam:PassRole", StringEquals=to)


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
        if args.scope.several_hosts:
            # Of its own for the same reason.
            hosts = aws.iam.Policy(
                f"{name}-hosts",
                policy=policy(writing_several_hosts(args.scope)),
                path=args.scope.iam_path,
                tags=args.tags,
                opts=child,
            )
            aws.iam.RolePolicyAttachment(f"{name}-hosts", role=up.name, policy_arn=hosts.arn, opts=child)

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
