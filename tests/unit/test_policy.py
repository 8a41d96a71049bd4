"""The policy pack: what each rule accepts and finds, and that our own program breaks none."""

import base64
import gzip
import json
import runpy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import yaml
from pulumi_policy import (
    Policy,
    PolicyCustomTimeouts,
    PolicyResource,
    PolicyResourceOptions,
    ResourceValidationArgs,
    StackValidationArgs,
)
from pulumi_policy.proxy import UNKNOWN_STRING_VALUE, unknown_checking_proxy

from policy.checks import GUARDS, INSTANCE, RULES, STATE, TABLE, Resource, secrets_in
from sandbox.engine import ROOT
from teleport_eks.access import EXAMPLE_BOT
from teleport_eks.recordings import tls_only
from tests.examples import PLATFORM, TOOLS, record_proxy, site
from tests.recorder import plain

BY_NAME = {rule.name: rule for rule in RULES}

# examples


def builder(token: str) -> Callable[..., Resource]:
    return lambda **props: Resource(token, "it", props)


instance = builder(INSTANCE)
volume = builder("aws:ebs/volume:Volume")
template = builder("aws:ec2/launchTemplate:LaunchTemplate")
table = builder(TABLE)
group = builder("aws:ec2/securityGroup:SecurityGroup")
new_rule = builder("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule")
attachment = builder("aws:iam/rolePolicyAttachment:RolePolicyAttachment")
managed_policy = builder("aws:iam/policy:Policy")
command = builder("command:local:Command")
TOKEN = {"httpTokens": "required", "httpPutResponseHopLimit": 1}
AWS_POLICY = "arn:aws:iam::aws:policy/"


def rule_of(cidr: str, low: float | None, high: float | None, protocol: str = "tcp", key: str = "cidrIpv4") -> Resource:
    return new_rule(ipProtocol=protocol, fromPort=low, toPort=high, **{key: cidr})


def statement(**changes: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": "ssm:GetParameter", "Resource": f"{SSM}/teleport-eks/dev", **changes}


METRICS = {"StringEquals": {"cloudwatch:namespace": "teleport-eks"}}
SSM = "arn:aws:ssm:eu-west-1:111122223333:parameter"
TRUST = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}


def role_policy(**changes: Any) -> Resource:
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement(**changes)]})
    return Resource("aws:iam/rolePolicy:RolePolicy", "it", {"policy": document})


def iam_role(trust: Any = TRUST, **props: Any) -> Resource:
    return Resource("aws:iam/role:Role", "it", {"assumeRolePolicy": json.dumps({"Statement": trust}), **props})


RBAC = "kubernetes:rbac.authorization.k8s.io/v1"


def binding(subject: str, kind: str = "ClusterRoleBinding") -> Resource:
    props = {"metadata": {"name": "crb"}, "roleRef": {"name": "edit"}, "subjects": [{"name": "ok"}, {"name": subject}]}
    return Resource(f"{RBAC}:{kind}", "it", props)


def cluster_role(kind: str = "ClusterRole", **changes: Any) -> Resource:
    rule = {"apiGroups": [""], "resources": ["groups"], "verbs": ["impersonate"], "resourceNames": ["platform"]}
    return Resource(f"{RBAC}:{kind}", "it", {"metadata": {"name": "cr"}, "rules": [{**rule, **changes}]})


def config_map(kind: str = "ConfigMap", name: str = "aws-auth", namespace: str | None = "kube-system") -> Resource:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return Resource(f"kubernetes:core/v1:{kind}", "it", {"metadata": metadata})


def packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


# Put together here, so that nobody who looks for leaked keys finds one in this file.
PRIVATE_KEY = "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIE"
AWS_KEY = "AKIA" + "ABCDEFGHIJKLMNOP"
GITHUB_TOKEN = "ghp_" + "a1" * 18
OF_CLOUD_INIT = {"write_files": [{"path": "/etc/key", "encoding": "gz+b64", "content": packed(PRIVATE_KEY)}]}
# A mail's part: its lines say something only together.
LINES = base64.encodebytes(gzip.compress(f"{list(range(99))} {PRIVATE_KEY}".encode(), mtime=0)).decode()
WRAPPED = f"Content-Transfer-Encoding: base64\n\n{LINES}\n--end--"
HARMLESS = """#cloud-config
password: $PASSWORD
client_secret: "{{ secret }}"
lock_passwd: true
password: /run/teleport/password
api_key = read_key()
# the client_secret is in SSM
"""


def join_token(method: str = "github", **rule: str) -> Resource:
    token = {"kind": "token", "spec": {"bot_name": "shop", "join_method": method, "github": {"allow": [rule]}}}
    return parameter("String", "/teleport-eks/dev/tokens/shop", insecureValue=json.dumps(token))


def parameter(kind: Any, name: str = "/teleport-eks/dev/github-client-secret", **value: str) -> Resource:
    return Resource("aws:ssm/parameter:Parameter", "it", {"name": name, "type": kind, **value})


def eip(protect: bool) -> Resource:
    return Resource("aws:ec2/eip:Eip", "it", {"domain": "vpc"}, protect)


# What guards a bucket, by what it is called here.
POLICY, CLOSED, ENCRYPTION = GUARDS
FOUR = dict.fromkeys(("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets"), True)
GUARDING = {POLICY: {"policy": tls_only("arn")}, CLOSED: FOUR, ENCRYPTION: {"rules": [{}]}}


def bucket(changes: dict[str, Any] | None = None) -> Resource:
    """A guarded bucket, with other properties of its guards, or without one of them."""
    guards = {**GUARDING, **(changes or {})}
    parts = tuple(Resource(kind, kind, props) for kind, props in guards.items() if props is not None)
    return Resource("aws:s3/bucket:Bucket", "it", {}, parts=parts)


# For each rule: what it accepts, and what it finds, with a part of the message.
EXAMPLES: dict[str, tuple[list[Resource], list[tuple[Resource, str]]]] = {
    "readable-types": (
        [
            group(),
            rule_of("0.0.0.0/0", 443, 443),
            config_map(),
            instance(),
            Resource("acme:a/b:AllowList", "it", {}),
        ],
        [
            (group(ingress=[{"protocol": "-1"}]), "no other rule reads a group's ingress. Declare each inbound rule"),
            *(
                (Resource(token, "it", {}), f"no other rule reads {token}")
                for token in (
                    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup",
                    "aws:ec2/launchConfiguration:LaunchConfiguration",
                    "aws:ec2/securityGroupRule:SecurityGroupRule",
                    "aws:ec2/spotInstanceRequest:SpotInstanceRequest",
                    "kubernetes:core/v1:ConfigMapList",
                    f"{RBAC}:ClusterRoleBindingList",
                )
            ),
        ],
    ),
    "closed-admin-ports": (
        [
            rule_of("203.0.113.7/32", 22, 22),
            rule_of("10.0.0.0/8", 0, 65535),
            rule_of("0.0.0.0/0", 3023, 3024),
            rule_of("0.0.0.0/0", 0, 65535, "udp"),
            rule_of("2001:db8::/32", 22, 22, key="cidrIpv6"),
        ],
        [
            (rule_of("0.0.0.0/0", 22, 22), "it: 0.0.0.0/0 can reach 22 (SSH)."),
            (rule_of("0.0.0.0/1", 3000, 3030), "0.0.0.0/1 can reach 3022 (Teleport's SSH node), 3025"),
            (rule_of("128.0.0.0/1", 3025, 3025, "6"), "128.0.0.0/1 can reach 3025 (Teleport's auth service)"),
            (rule_of("0.0.0.0/0", None, None), "22 (SSH), 3022"),
            (rule_of("0.0.0.0/0", -1, -1), "22 (SSH), 3022"),
            (rule_of("2000::/3", 22, 22, key="cidrIpv6"), "2000::/3 can reach 22"),
            (rule_of("0.0.0.0/0", 22, 22, "-1"), "0.0.0.0/0"),
            (rule_of("0.0.0.0/0", 22.0, 22.0, "TCP"), "0.0.0.0/0"),
        ],
    ),
    "metadata-by-token": (
        [
            instance(metadataOptions={**TOKEN, "httpPutResponseHopLimit": 1.0}),
            instance(metadataOptions={"httpEndpoint": "disabled"}),
            template(metadataOptions=TOKEN),
        ],
        [
            (template(), "metadataOptions.httpTokens is not set"),
            (instance(), "metadataOptions.httpTokens is not set; it must be required"),
            (instance(metadataOptions={**TOKEN, "httpTokens": "optional"}), "httpTokens is optional"),
            (instance(metadataOptions={**TOKEN, "httpPutResponseHopLimit": 2.0}), "HopLimit is 2; it must be 1"),
            (instance(metadataOptions={"httpTokens": "required"}), "httpPutResponseHopLimit is not set"),
        ],
    ),
    "encrypted-volumes": (
        [
            volume(encrypted=True),
            instance(rootBlockDevice={"encrypted": True}),
            template(blockDeviceMappings=[{"deviceName": "/dev/xvda", "ebs": {"encrypted": "true"}}]),
        ],
        [
            (template(), "blockDeviceMappings is not set; it must be true"),
            (
                template(blockDeviceMappings=[{"deviceName": "/dev/xvda", "ebs": {}}]),
                "ebs.encrypted of /dev/xvda is not",
            ),
            (volume(encrypted=False), "encrypted is false; it must be true"),
            (volume(size=20), "encrypted is not set"),
            (instance(rootBlockDevice={"volumeSize": 16}), "rootBlockDevice.encrypted is not set"),
            (
                instance(rootBlockDevice={"encrypted": True}, ebsBlockDevices=[{"deviceName": "/dev/sdf"}]),
                "ebsBlockDevices.encrypted of /dev/sdf is not set",
            ),
        ],
    ),
    "named-permissions": (
        [
            role_policy(),
            role_policy(Resource=[f"{SSM}/teleport-eks/dev/*", "arn:aws:route53:::change/*", "arn:aws:s3:::bucket/*"]),
            role_policy(Effect="Deny", Action="*", Resource="*"),
            role_policy(Action="cloudwatch:PutMetricData", Resource="*", Condition=METRICS),
            iam_role(),
            attachment(policyArn=f"{AWS_POLICY}AmazonSSMManagedEC2InstanceDefaultPolicy"),
            Resource("aws:s3/bucketPolicy:BucketPolicy", "it", {"policy": json.dumps({"Statement": [statement()]})}),
        ],
        [
            (role_policy(Resource=[SSM, f"{SSM}/*"], Sid="Parameters"), f"statement Parameters: Resource is {SSM}/*"),
            (role_policy(Resource="arn:aws:s3:::*"), "Resource is arn:aws:s3:::*"),
            (role_policy(Resource="arn:*"), "Resource is arn:*"),
            (role_policy(Action="cloudwatch:PutMetricData", Resource="*"), "Resource is *"),
            (role_policy(Action="cloudwatch:PutDashboard", Resource="*", Condition=METRICS), "Resource is *"),
            (role_policy(Action="*"), "Action is *"),
            (role_policy(Action=["eks:DescribeCluster", "ssm:Get*"]), "Action is ssm:Get*"),
            (role_policy(NotAction="iam:*"), "NotAction covers everything except iam:*"),
            (managed_policy(policy={"Statement": statement(Resource="*")}), "policy, statement 1: Resource is *"),
            (iam_role(inlinePolicies=[{"policy": json.dumps({"Statement": statement(Action="s3:*")})}]), "s3:*"),
            (iam_role({**TRUST, "Principal": {"AWS": ["*"]}}), "assumeRolePolicy, statement 1: Principal is *"),
            (
                attachment(policyArn=f"{AWS_POLICY}AdministratorAccess"),
                "attaches arn:aws:iam::aws:policy/AdministratorAccess",
            ),
            (iam_role(managedPolicyArns=[f"{AWS_POLICY}AmazonEC2FullAccess"]), "AmazonEC2FullAccess"),
        ],
    ),
    "no-anonymous-subjects": (
        [binding("teleport-group"), binding("system:authenticated"), cluster_role()],
        [
            (binding("system:anonymous"), "ClusterRoleBinding crb binds the role edit to system:anonymous, which is"),
            (binding("system:unauthenticated", "RoleBinding"), "RoleBinding crb"),
            (binding("system:masters", "ClusterRoleBindingPatch"), "system:masters, which nothing"),
        ],
    ),
    "scoped-impersonation": (
        [
            cluster_role(),
            cluster_role(resources=["groups", "users"], resourceNames=["teleport-user", "system:authenticated"]),
            cluster_role(resources=["pods"], verbs=["*"], resourceNames=None),
            cluster_role(apiGroups=["acme.example"], resourceNames=None),
            cluster_role(verbs=["get"], resources=["*"], resourceNames=None),
        ],
        [
            (cluster_role(resourceNames=None), "ClusterRole cr may impersonate all groups"),
            (cluster_role(resourceNames=[]), "all groups"),
            (cluster_role(resources=["users"], resourceNames=None), "all users"),
            (cluster_role("Role", resources=["serviceaccounts"], resourceNames=None), "Role cr may impersonate all"),
            (cluster_role(verbs=["*"], resources=["*"], apiGroups=["*"], resourceNames=None), "all groups"),
            (cluster_role(resourceNames=["platform", "system:masters"]), "may impersonate system:masters (groups)"),
            (cluster_role(resources=["users"], resourceNames=["system:kube-scheduler"]), "system:kube-scheduler"),
        ],
    ),
    "aws-auth-is-not-owned": (
        [
            config_map(name="aws-auth-before-teleport-eks"),
            config_map(namespace="elsewhere"),
            config_map("Secret"),
            command(create="python -m teleport_eks.aws_auth add"),
        ],
        [
            (config_map(), "kubernetes:core/v1:ConfigMap owns kube-system/aws-auth"),
            (config_map(namespace=None), "owns kube-system/aws-auth"),
            (config_map("ConfigMapPatch"), "kubernetes:core/v1:ConfigMapPatch owns"),
        ],
    ),
    "no-secrets-in-user-data": (
        [
            instance(userData=HARMLESS),
            instance(userDataBase64=packed(HARMLESS)),
            instance(),
            command(create=PRIVATE_KEY),
        ],
        [
            (instance(userData=f"#!/bin/sh\n{PRIVATE_KEY}"), "userData contains a private key in line 2"),
            (
                instance(userDataBase64=packed(f"export X={AWS_KEY}")),
                "userDataBase64 contains an AWS access key in line 1",
            ),
            (instance(userData=base64.b64encode(GITHUB_TOKEN.encode()).decode()), "a GitHub token"),
            (template(userData=packed(f"export X={AWS_KEY}")), "userData contains an AWS access key in line 1"),
            (instance(userData='\n  "client_secret": "c4nary",'), "a value for client_secret in line 2"),
            (instance(userData="DB_PASSWORD=c4n,ry$"), "a value for PASSWORD"),
            (instance(userData=json.dumps({"files": '{"password": "c4nary"}\n'})), "a value for password in line 1"),
            (instance(userData="passwd: $6$salt$c4naryc4nary"), "a value for passwd"),
            (instance(userData="--client-secret 'x'\nclientSecret: c4nary"), "a value for clientSecret in line 2"),
            (instance(userDataBase64=packed(yaml.safe_dump(OF_CLOUD_INIT))), "a private key"),
            (instance(userData=WRAPPED), "a private key"),
        ],
    ),
    "secrets-are-secure-strings": (
        [
            parameter("SecureString", value="c4nary"),
            parameter("String", "/teleport-eks/dev/github-connector", value='{"client_id": "Iv1.1"}'),
            parameter("String", "/teleport-eks/dev/roles/kube-acme-secretaries", value="{}"),
        ],
        [
            (
                parameter("String", value="c4nary"),
                "type is String, but by its name, /teleport-eks/dev/github-client-secret is a secret",
            ),
            (
                parameter("StringList", "/x/db-password", insecureValue="c4nary"),
                "by its name, /x/db-password is a secret",
            ),
            (
                parameter("String", "/teleport-eks/dev/github-connector", value='{"client_secret": "c4nary"}'),
                "type is String, but value contains a value for client_secret",
            ),
        ],
    ),
    "bots-are-jobs-of-one-repository": (
        [
            join_token(repository="acme/shop", environment="live"),
            join_token(repository="acme/shop", ref="refs/heads/main"),
        ],
        [
            (join_token(repository="acme/shop"), "the bot shop is more than one repository's environment or branch"),
            (join_token(repository_owner="acme", environment="live"), "the bot shop is more than"),
            (join_token("token", repository="acme/shop", environment="live"), "the bot shop is more than"),
        ],
    ),
    "protected-state": (
        [eip(True), Resource("aws:ebs/volume:Volume", "it", {}, True), instance()],
        [
            (eip(False), "the address is not protected"),
            (volume(encrypted=True), "the data volume is not protected"),
            (table(), "the table is not protected"),
        ],
    ),
    "recoverable-tables": (
        [table(pointInTimeRecovery={"enabled": True})],
        [
            (table(), "pointInTimeRecovery.enabled is not set; it must be true"),
            (table(pointInTimeRecovery={"enabled": False}), "enabled is false"),
        ],
    ),
    "guarded-buckets": (
        [bucket(), bucket({POLICY: {"policy": UNKNOWN_STRING_VALUE}}), eip(True)],
        [
            (bucket({POLICY: None}), "the bucket has no policy that denies everything without TLS"),
            (bucket({POLICY: {"policy": tls_only("arn").replace("Deny", "Allow")}}), "no policy that denies"),
            (bucket({POLICY: {"policy": tls_only("arn").replace("false", "true")}}), "no policy that denies"),
            (bucket({CLOSED: None}), "the bucket has no block of all public access"),
            (bucket({CLOSED: {**FOUR, "blockPublicPolicy": False}}), "no block of all public access"),
            (bucket({ENCRYPTION: None}), "the bucket has no encryption"),
        ],
    ),
}
ACCEPTED = [(name, good) for name, (all_good, _) in EXAMPLES.items() for good in all_good]
FOUND = [(name, bad, text) for name, (_, all_bad) in EXAMPLES.items() for bad, text in all_bad]


@pytest.fixture(scope="module")
def pack() -> dict[str, Any]:
    """The pack, as Pulumi starts it."""
    policies: list[Policy] = runpy.run_path(str(ROOT / "policy"), run_name="pack")["policies"]
    return {policy.name: policy for policy in policies}


def report(policy: Any, resource: Resource, config: dict[str, Any] | None = None) -> list[str]:
    """What the pack's policy reports of a resource as the engine sends it."""
    said: list[str] = []
    opts = PolicyResourceOptions(resource.protect, [], None, [], PolicyCustomTimeouts(0, 0, 0), [])
    props = unknown_checking_proxy(dict(resource.props))
    if BY_NAME[policy.name].whole_stack:
        whole = PolicyResource(resource.type, props, "urn:it::it", resource.name, opts, None, None, [], {})
        parts = [
            PolicyResource(
                *(part.type, unknown_checking_proxy(dict(part.props)), f"urn:it::{part.name}", part.name, opts),
                *(None, None, [whole], {"bucket": [whole]}),
            )
            for part in resource.parts
        ]
        policy.validate(StackValidationArgs([*parts, whole], config), lambda message, _=None: said.append(message))
        return said
    args = ResourceValidationArgs(resource.type, props, f"urn:it::{resource.name}", resource.name, opts, None, config)
    policy.validate(args, lambda message, _=None: said.append(message))
    return said


def test_the_pack_has_all_rules_and_each_has_examples_of_both_kinds(pack: dict[str, Any]) -> None:
    assert pack.keys() == BY_NAME.keys() == EXAMPLES.keys()
    assert all(good and bad for good, bad in EXAMPLES.values())
    # The rules that the sandbox turns off exist.
    assert json.loads((ROOT / "policy" / "sandbox.json").read_text()).keys() <= pack.keys()


@pytest.mark.parametrize(("name", "resource"), ACCEPTED)
def test_a_rule_accepts(pack: dict[str, Any], name: str, resource: Resource) -> None:
    assert report(pack[name], resource) == []


@pytest.mark.parametrize(("name", "resource", "text"), FOUND)
def test_a_rule_finds_and_says_what_to_do(pack: dict[str, Any], name: str, resource: Resource, text: str) -> None:
    violations = report(pack[name], resource)
    assert any(text in violation for violation in violations)
    assert all(v.startswith("it: ") and v.endswith(BY_NAME[name].remedy) for v in violations)
    # A message never repeats a secret.
    assert not [v for v in violations for secret in ("c4n", AWS_KEY, GITHUB_TOKEN) if secret in v]


def test_the_packs_configuration_can_allow_all_users_but_never_all_groups(pack: dict[str, Any]) -> None:
    policy = pack["scoped-impersonation"]
    anybody = cluster_role(resources=["users", "groups"], resourceNames=None)
    (found,) = report(policy, anybody, {"allowUnscopedUsers": True})
    assert "all groups" in found
    assert policy.config_schema.properties.keys() == {"allowUnscopedUsers"}


def with_one_unknown(value: Any) -> Iterator[Any]:
    """``value`` again and again, each time with another part of it that a preview does not know yet."""
    yield UNKNOWN_STRING_VALUE
    if isinstance(value, dict):
        yield from ({**value, key: other} for key, item in value.items() for other in with_one_unknown(item))
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from ([*value[:index], other, *value[index + 1 :]] for other in with_one_unknown(item))


def test_an_unknown_value_is_neither_a_finding_nor_an_error(pack: dict[str, Any]) -> None:
    tried = 0
    for name, resource in [*ACCEPTED, *((name, bad) for name, bad, _ in FOUND)]:
        for props in with_one_unknown(dict(resource.props)):
            if isinstance(props, dict):
                found = report(pack[name], replace(resource, props=props))
                assert not found or (name, resource) not in ACCEPTED
                tried += 1
    assert tried > 200
    # What is known to be wrong is still found.
    half = instance(metadataOptions={"httpTokens": "optional", "httpPutResponseHopLimit": UNKNOWN_STRING_VALUE})
    assert len(report(pack["metadata-by-token"], half)) == 1


# our own program


def declare(access_mode: str, **config: str) -> list[Resource]:
    """All that the program declares."""
    declared = record_proxy(config, site(access_mode, TOOLS))
    made = [Resource(r.typ, r.name, plain(r.inputs), declared.requests[r.name].protect) for r in declared.resources]

    def is_part(part: Resource, of: Resource) -> bool:
        urns = declared.requests[part.name].propertyDependencies["bucket"].urns
        return any(urn.endswith(f"::{of.name}") for urn in urns)

    return [replace(resource, parts=tuple(part for part in made if is_part(part, resource))) for resource in made]


@pytest.mark.parametrize("access_mode", ["access-entry", "aws-auth"])
def test_our_own_program_breaks_no_rule(access_mode: str) -> None:
    resources = declare(
        access_mode,
        adminCidrs='["203.0.113.7/32"]',
        teams=json.dumps([{**PLATFORM.model_dump(by_alias=True), "clusterRole": "edit"}]),
        bots=json.dumps([{**EXAMPLE_BOT, "environment": "rotate-token"}]),
        additionalClusters='[{"clusterName": "tools"}]',
        githubClientId="Iv1.1",
        githubClientSecret="c4nary",
        recordings="s3",
    )
    assert len(resources) > 20
    # Each rule had something to look at.
    types = {resource.type for resource in resources}
    assert types >= {*STATE} - {TABLE}
    assert types >= {*GUARDS, INSTANCE, "aws:iam/rolePolicy:RolePolicy", "aws:ssm/parameter:Parameter"}
    assert types >= {f"{RBAC}:ClusterRole", f"{RBAC}:ClusterRoleBinding"}
    assert [r.props["userDataBase64"][:4] for r in resources if r.type == INSTANCE] == ["H4sI"]
    assert [violation for resource in resources for rule in RULES for violation in rule.violations(resource)] == []


def test_an_unsafe_setting_of_the_program_breaks_its_rule() -> None:
    resources = declare(
        "aws-auth",
        allowOpenAdminCidrs="true",
        adminCidrs='["0.0.0.0/0"]',
        allowAnonymousImpersonation="true",
        kubernetesIdentity="person",
        protect="false",
    )
    found = {rule.name for rule in RULES for resource in resources if rule.violations(resource)}
    assert found == {"closed-admin-ports", "no-anonymous-subjects", "scoped-impersonation", "protected-state"}


def test_a_secret_in_any_file_of_the_user_data_is_found() -> None:
    host = next(r for r in declare("aws-auth") if r.type == INSTANCE)
    text = gzip.decompress(base64.b64decode(host.props["userDataBase64"])).decode()
    files = [file["content"] for file in yaml.safe_load(text)["write_files"]]
    assert len(files) > 10
    for content in files:
        leaking = text.replace(json.dumps(content), json.dumps(f"{content}export CLIENT_SECRET=c4nary\n"))
        assert leaking != text
        assert len(secrets_in(packed(leaking))) == 1
