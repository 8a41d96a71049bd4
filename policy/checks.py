"""The safety rules as plain functions. Each takes a resource and yields what is wrong with it, without Pulumi.

A check yields one line per finding, with the wrong value. If a preview does not know a value yet, the value is UNKNOWN
and never a finding: the engine asks again, with all values, before it creates or changes the resource.

The rules share no constants with the program, because they would share its mistakes. They look only into the types
that the program declares. So `readable-types` refuses other types that do the same, such as a launch configuration.
"""

import base64
import gzip
import io
import ipaddress
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any


class _Unknown:
    def __repr__(self) -> str:
        return "(not known yet)"


UNKNOWN: Any = _Unknown()


@dataclass(frozen=True)
class Resource:
    """A resource as its provider gets it. ``props``: camelCase names with dicts, lists, scalars or UNKNOWN.

    ``parts``, only for rules of the whole stack: the resources whose property ``bucket`` is this one.
    """

    type: str
    name: str
    props: Mapping[str, Any]
    protect: bool = False
    parts: tuple["Resource", ...] = ()


Config = Mapping[str, Any]


def lookup(value: Any, *path: str) -> Any:
    """The value at ``path`` in nested dicts: None if it is not set, UNKNOWN if the preview does not know it yet."""
    for key in path:
        if value is UNKNOWN:
            return UNKNOWN
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def known_items(value: Any) -> list[Any]:
    """The known items of a list. A single value counts as a list of one, None as an empty list."""
    items = value if isinstance(value, list) else [] if value is None else [value]
    return [item for item in items if item is not UNKNOWN]


def display(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


Check = Callable[[Resource, Config], Iterator[str]]
RULES: list["Rule"] = []


@dataclass
class Rule:
    """Decorates a check, and so makes a rule of it; the check's docstring is the rule's description.

    ``types`` is a pattern. ``settings`` are JSON schemas of the rule's settings in a pack configuration.
    ``whole_stack``: the finding depends on more than one resource.
    """

    name: str
    types: str
    remedy: str
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    whole_stack: bool = False
    check: Check = field(init=False)

    def __call__(self, check: Check) -> Check:
        self.check = check
        RULES.append(self)
        return check

    def violations(self, resource: Resource, config: Config | None = None) -> list[str]:
        if not re.fullmatch(self.types, resource.type):
            return []
        return [f"{resource.name}: {finding}. {self.remedy}" for finding in self.check(resource, config or {})]


# what the rules can read


@Rule(
    "readable-types",
    r"aws:ec2/(defaultSecurityGroup|launchConfiguration|securityGroup|securityGroupRule"
    r"|spotInstanceRequest):\w+|kubernetes:(core|rbac\.authorization\.k8s\.io)/\w+:\w+List",
    "Declare each inbound rule as an aws.vpc.SecurityGroupIngressRule, each host as an aws.ec2.Instance or by an "
    "aws.ec2.LaunchTemplate, and each Kubernetes object by itself.",
)
def unread_types(resource: Resource, _: Config) -> Iterator[str]:
    """Inbound rules, hosts and Kubernetes objects are declared as the types that the other rules read."""
    if not resource.type.endswith(":SecurityGroup"):
        yield f"no other rule reads {resource.type}"
    elif resource.props.get("ingress"):
        yield "no other rule reads a group's ingress"


# the firewall

ADMIN_PORTS = {22: "SSH", 3022: "Teleport's SSH node", 3025: "Teleport's auth service"}
# A range with a shorter prefix than this is too wide to be one organization's. Two halves make the whole internet.
WIDEST = {4: 8, 6: 16}


@Rule(
    "closed-admin-ports",
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
    "Set adminCidrs to the networks that may reach them, or leave it empty: Session Manager needs no open port.",
)
def open_admin_ports(resource: Resource, _: Config) -> Iterator[str]:
    """The internet cannot reach SSH and Teleport's auth service."""
    ports = [f"{port} ({use})" for port, use in ADMIN_PORTS.items() if _lets_in(resource.props, port)]
    for key in ("cidrIpv4", "cidrIpv6"):
        for cidr in known_items(resource.props.get(key)):
            if ports and _is_wide(cidr):
                yield f"{cidr} can reach {', '.join(ports)}"


def _lets_in(rule: Mapping[str, Any], port: int) -> bool:
    protocol = display(rule.get("ipProtocol")).lower()
    if protocol in ("-1", "all"):
        return True
    low, high = rule.get("fromPort"), rule.get("toPort")
    if protocol not in ("tcp", "6") or low is UNKNOWN or high is UNKNOWN:
        return False
    if low is None or int(low) < 0:
        return True
    return int(low) <= port <= int(low if high is None else high)


def _is_wide(cidr: str) -> bool:
    with suppress(ValueError):  # the provider refuses what is not a range
        network = ipaddress.ip_network(cidr, strict=False)
        return network.prefixlen < WIDEST[network.version]
    return False


# hosts

INSTANCE, VOLUME = "aws:ec2/instance:Instance", "aws:ebs/volume:Volume"
TEMPLATE = "aws:ec2/launchTemplate:LaunchTemplate"


@Rule(
    "metadata-by-token",
    f"{INSTANCE}|{TEMPLATE}",
    'Set metadata_options={"http_tokens": "required", "http_put_response_hop_limit": 1}.',
)
def metadata_without_token(resource: Resource, _: Config) -> Iterator[str]:
    """Only the host can read instance metadata, with the role's credentials, and only with a token (IMDSv2)."""
    options = resource.props.get("metadataOptions")
    if lookup(options, "httpEndpoint") in ("disabled", UNKNOWN):
        return
    for name, wanted in {"httpTokens": "required", "httpPutResponseHopLimit": 1}.items():
        value = lookup(options, name)
        if value not in (wanted, UNKNOWN):
            yield f"metadataOptions.{name} is {display(value)}; it must be {wanted}"


@Rule(
    "encrypted-volumes",
    f"{VOLUME}|{INSTANCE}|{TEMPLATE}",
    "Set encrypted=True. To encrypt an existing volume, restore it from an encrypted copy of its snapshot.",
)
def unencrypted_volumes(resource: Resource, _: Config) -> Iterator[str]:
    """Every volume is encrypted, because one of them holds Teleport's CA."""
    if resource.type == VOLUME:
        volumes = {"encrypted": resource.props}
    elif resource.type == TEMPLATE:
        devices = resource.props.get("blockDeviceMappings")
        # Without one, the image decides.
        volumes = {} if devices else {"blockDeviceMappings": None}
        for device in known_items(devices):
            volumes[f"ebs.encrypted of {display(lookup(device, 'deviceName'))}"] = lookup(device, "ebs")
    else:
        volumes = {"rootBlockDevice.encrypted": resource.props.get("rootBlockDevice")}
        for device in known_items(resource.props.get("ebsBlockDevices")):
            volumes[f"ebsBlockDevices.encrypted of {display(lookup(device, 'deviceName'))}"] = device
    for where, volume in volumes.items():
        encrypted = lookup(volume, "encrypted")
        if encrypted not in (True, "true", UNKNOWN):  # text in a launch template
            yield f"{where} is {display(encrypted)}; it must be true"


# IAM

# Nobody knows the id of a change in advance. The permission only tells whether a change is complete.
ROUTE53_CHANGE = re.compile(r"arn:[\w-]+:route53:::change/\*")
# AWS's own policies with `*`. The last two can read all parameters of the account, and so all secrets in them.
TOO_WIDE = re.compile(
    r"arn:[\w-]+:iam::aws:policy/(.*/)?"
    r"(\w*FullAccess|AdministratorAccess|PowerUserAccess|AmazonSSMManagedInstanceCore|AmazonEC2RoleforSSM)"
)


@Rule(
    "named-permissions",
    r"aws:iam/.*",
    "List the actions, and the ARNs of the stack's own resources.",
)
def wide_permissions(resource: Resource, _: Config) -> Iterator[str]:
    """IAM policies list each action and each resource by name."""
    props = resource.props
    documents = [(key, props.get(key)) for key in ("policy", "assumeRolePolicy")]
    documents += [("inlinePolicies", lookup(policy, "policy")) for policy in known_items(props.get("inlinePolicies"))]
    for where, document in documents:
        for number, statement in enumerate(known_items(lookup(_parsed(document), "Statement")), 1):
            for finding in _wildcards(statement):
                yield f"{where}, statement {lookup(statement, 'Sid') or number}: {finding}"
    for arn in known_items(props.get("policyArn")) + known_items(props.get("managedPolicyArns")):
        if TOO_WIDE.fullmatch(arn):
            yield f"attaches {arn}"


def _parsed(document: Any) -> Any:
    """A policy document, which is text or already parsed."""
    with suppress(ValueError):  # the provider refuses what is not JSON
        return json.loads(document) if isinstance(document, str) else document
    return None


def _wildcards(statement: Any) -> Iterator[str]:
    if lookup(statement, "Effect") == "Deny":
        return
    for key in ("NotAction", "NotResource", "NotPrincipal"):
        if lookup(statement, key) is not None:
            yield f"{key} covers everything except {lookup(statement, key)}"
    for action in known_items(lookup(statement, "Action")):
        if re.search(r"[*?]", action):
            yield f"Action is {action}"
    for arn in known_items(lookup(statement, "Resource")):
        if _matches_everything(arn) and not _is_one_namespace(statement):
            yield f"Resource is {arn}"
    principal = lookup(statement, "Principal")
    for kind in principal.values() if isinstance(principal, Mapping) else [principal]:
        if "*" in known_items(kind):
            yield "Principal is *"


def _is_one_namespace(statement: Any) -> bool:
    """Metrics have no resource, so IAM limits who may write them by a condition."""
    namespace = lookup(statement, "Condition", "StringEquals", "cloudwatch:namespace")
    return known_items(lookup(statement, "Action")) == ["cloudwatch:PutMetricData"] and isinstance(namespace, str)


def _matches_everything(arn: str) -> bool:
    """Whether it is all resources, or all of one type: ``*``, ``arn:aws:s3:::*``, ``arn:aws:ssm:...:parameter/*``."""
    if ROUTE53_CHANGE.fullmatch(arn):
        return False
    parts = arn.split(":", 5)
    if len(parts) < 6:
        return "*" in arn
    service, rest = parts[2], parts[5]
    if service != "s3":  # an S3 ARN begins with the bucket's name, without a type
        rest = re.sub(r"^[\w-]+[/:]", "", rest)
    return not rest.strip("*?/:")


# the cluster

# Subjects that no binding should have, and who they are.
DANGEROUS_SUBJECTS = {
    "system:anonymous": "which is anyone who can reach the cluster's API",
    "system:unauthenticated": "which is anyone who can reach the cluster's API",
    "system:masters": "which nothing in the cluster can restrict",
}


def _label(resource: Resource) -> str:
    kind = resource.type.rpartition(":")[2].removesuffix("Patch")
    return f"{kind} {display(lookup(resource.props, 'metadata', 'name'))}"


@Rule(
    "no-anonymous-subjects",
    r"kubernetes:rbac\.authorization\.k8s\.io/.*RoleBinding(Patch)?",
    "Bind the role to a group of a team, or to teleport-group.",
)
def dangerous_subjects(resource: Resource, _: Config) -> Iterator[str]:
    """No role in the cluster is bound to anonymous users or to system:masters."""
    for subject in known_items(resource.props.get("subjects")):
        name = lookup(subject, "name")
        if name in DANGEROUS_SUBJECTS:
            role = display(lookup(resource.props, "roleRef", "name"))
            yield f"{_label(resource)} binds the role {role} to {name}, {DANGEROUS_SUBJECTS[name]}"


@Rule(
    "scoped-impersonation",
    r"kubernetes:rbac\.authorization\.k8s\.io/.*Role(Patch)?",
    "List the teams' groups and the shared user in resourceNames. If you need kubernetesIdentity: person, set "
    "allowUnscopedUsers in the pack configuration; anyone who controls the host is then as good as cluster-admin.",
    {"allowUnscopedUsers": {"type": "boolean", "default": False}},
)
def unscoped_impersonation(resource: Resource, config: Config) -> Iterator[str]:
    """The proxy can impersonate only the users and groups that its role lists by name."""
    for granted in known_items(resource.props.get("rules")):
        verbs, groups, resources = (set(known_items(lookup(granted, k))) for k in ("verbs", "apiGroups", "resources"))
        if not ({"impersonate", "*"} & verbs and {"", "*"} & groups):
            continue
        names = lookup(granted, "resourceNames")
        for kind in ("groups", "users", "serviceaccounts"):
            if not {kind, "*"} & resources:
                continue
            if not names and not (kind == "users" and config.get("allowUnscopedUsers")):
                yield f"{_label(resource)} may impersonate all {kind}"
            # Kubernetes' own users and groups are as powerful as system:masters.
            for name in known_items(names):
                if name.startswith("system:") and name != "system:authenticated":
                    yield f"{_label(resource)} may impersonate {name} ({kind})"


@Rule(
    "aws-auth-is-not-owned",
    r"kubernetes:core/.*:ConfigMap(Patch)?",
    "Remove it from the stack without deleting it (pulumi state delete). Use an access entry, or "
    "teleport_eks.aws_auth, which edits one item.",
)
def owned_aws_auth(resource: Resource, _: Config) -> Iterator[str]:
    """No stack owns the aws-auth map: others edit it too, and one wrong edit locks every node out."""
    name, namespace = (lookup(resource.props, "metadata", key) for key in ("name", "namespace"))
    # Without a namespace, the provider's default namespace counts, which may be kube-system.
    if name == "aws-auth" and namespace in ("kube-system", None):
        yield f"{resource.type} owns kube-system/aws-auth"


# secrets

_ASSIGNMENT = r"""
    (client[_-]?secret | secret[_-]?(?:access[_-]?)?key | passwo?r?d | passphrase | api[_-]?key
        | (?:access|auth|github|join)[_-]?token)
    ["']? [ \t]*[:=][ \t]*
    (?: ["'] (?![$<{/]) [^"'\n]{4,} ["']  # a variable, a template's placeholder or a path is not a secret,
        | (?![$<{(\[/] | (?:true|false|yes|no|null|none)\b) [^\s"'(]{4,} (?=[\s"']|$)  # and a call is not one either
        | ["']?\$\w\w?\$\S{8,}  # a password's hash
    )
"""
SECRETS = {
    "a private key": re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY"),
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a GitHub token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{22})"),
    "a signed token": re.compile(r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]+"),
    "a value for {}": re.compile(_ASSIGNMENT, re.IGNORECASE | re.VERBOSE),
}
# On lines of its own, as in a MIME part or a YAML block, or in one piece.
_BASE64 = re.compile(r"(?m)^[ \t]*((?:[A-Za-z0-9+/]{40,}\r?\n[ \t]*)+[A-Za-z0-9+/]+={0,2})[ \t]*$")
_BASE64_PIECE = re.compile(r"[A-Za-z0-9+/]{20,}={0,2}")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
_LIMIT = 2**24  # bytes, more than any user data unpacks to


def secrets_in(text: str) -> list[str]:
    """What looks like a secret in ``text``, also in base64 and gzip in it: its kind and line, never the secret."""
    found: dict[str, None] = {}
    for content in _texts(text.encode()):
        for kind, pattern in SECRETS.items():
            for match in pattern.finditer(content):
                line = content.count("\n", 0, match.start()) + 1
                found[f"{kind.format(*match.groups())} in line {line}"] = None
    return list(found)


def _texts(data: bytes, depth: int = 3) -> Iterator[str]:
    """The text, and every text that is packed in it."""
    if data.startswith(b"\x1f\x8b"):
        with suppress(OSError, EOFError, zlib.error):
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(_LIMIT)
    # In JSON and YAML, line ends and quotes are escaped with a backslash.
    text = re.sub(r"\\(.)", lambda escaped: _ESCAPES.get(escaped[1], escaped[1]), data.decode(errors="replace"))
    yield text
    if depth:
        for packed in _BASE64.findall(text) + _BASE64_PIECE.findall(text):
            packed = "".join(packed.split())
            with suppress(ValueError):
                yield from _texts(base64.b64decode(packed + "=" * (-len(packed) % 4)), depth - 1)


@Rule(
    "no-secrets-in-user-data",
    f"{INSTANCE}|{TEMPLATE}",
    "Store the secret in an SSM SecureString that the host reads. Then replace the secret, because others may have "
    "seen it.",
)
def secrets_in_user_data(resource: Resource, _: Config) -> Iterator[str]:
    """User data contains no secret, because anyone who may describe instances can read it."""
    for key in ("userData", "userDataBase64"):
        for text in known_items(resource.props.get(key)):
            yield from (f"{key} contains {secret}" for secret in secrets_in(text))


PARAMETER = "aws:ssm/parameter:Parameter"
SECRET_NAME = re.compile(
    r"(client[_-]?secret|password|passphrase|(private|eab|hmac)[_-]?key|[_-]token)s?$", re.IGNORECASE
)
NAMED_BY_GITHUB = re.compile(r"/(roles|bots|tokens)/[^/]+$")  # after teams, repositories and branches


@Rule(
    "secrets-are-secure-strings",
    PARAMETER,
    'Set type="SecureString", and pass the value as pulumi.Output.secret.',
)
def plain_secret_parameters(resource: Resource, _: Config) -> Iterator[str]:
    """Secrets in SSM are SecureStrings."""
    props = resource.props
    name, kind = props.get("name"), props.get("type")
    named = isinstance(name, str) and SECRET_NAME.search(name) and not NAMED_BY_GITHUB.search(name)
    secret = [f"by its name, {name} is a secret"] if named else []
    for key in ("value", "insecureValue"):
        secret += [f"{key} contains {found}" for text in known_items(props.get(key)) for found in secrets_in(text)]
    if kind not in ("SecureString", UNKNOWN):
        yield from (f"type is {display(kind)}, but {reason}" for reason in secret)


# bots


@Rule(
    "bots-are-jobs-of-one-repository",
    PARAMETER,
    "Name the repository, and the environment or the branch.",
)
def open_join_tokens(resource: Resource, _: Config) -> Iterator[str]:
    """A bot is the jobs of one GitHub repository, and there of one environment or branch."""
    if "/tokens/" not in str(resource.props.get("name")):
        return
    for text in known_items(resource.props.get("insecureValue")):
        spec = lookup(json.loads(text), "spec")
        for rule in lookup(spec, "github", "allow") or [{}]:
            if lookup(spec, "join_method") != "github" or not (
                rule.get("repository") and (rule.get("environment") or rule.get("ref"))
            ):
                yield f"the bot {display(lookup(spec, 'bot_name'))} is more than one repository's environment or branch"


# state

TABLE = "aws:dynamodb/table:Table"
STATE = {"aws:ec2/eip:Eip": "address", VOLUME: "data volume", TABLE: "table"}


@Rule(
    "protected-state",
    "|".join(STATE),
    "Set teleport-eks:protect: true. If a stack needs none, disable this rule in a pack configuration.",
)
def unprotected_state(resource: Resource, _: Config) -> Iterator[str]:
    """What holds the proxy's name, CA and recordings is protected: the address and the data volume, or the tables."""
    if not resource.protect:
        yield f"the {STATE[resource.type]} is not protected"


@Rule("recoverable-tables", TABLE, 'Set point_in_time_recovery={"enabled": True}.')
def unrecoverable_tables(resource: Resource, _: Config) -> Iterator[str]:
    """A table can be restored as it was at any time of the last weeks, because it holds Teleport's CA."""
    enabled = lookup(resource.props, "pointInTimeRecovery", "enabled")
    if enabled not in (True, UNKNOWN):
        yield f"pointInTimeRecovery.enabled is {display(enabled)}; it must be true"


# buckets


def _denies_plain_http(props: Mapping[str, Any]) -> bool:
    document = _parsed(props.get("policy"))
    return document is UNKNOWN or any(
        (lookup(s, "Effect"), lookup(s, "Principal"), lookup(s, "Action")) == ("Deny", "*", "s3:*")
        and lookup(s, "Condition") == {"Bool": {"aws:SecureTransport": "false"}}
        for s in known_items(lookup(document, "Statement"))
    )


def _closes(props: Mapping[str, Any]) -> bool:
    four = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
    return all(props.get(key) in (True, UNKNOWN) for key in four)


GUARDS: dict[str, tuple[str, Callable[[Mapping[str, Any]], bool]]] = {
    "aws:s3/bucketPolicy:BucketPolicy": ("policy that denies everything without TLS", _denies_plain_http),
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": ("block of all public access", _closes),
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": (
        "encryption",
        lambda props: bool(props.get("rules")),
    ),
}


@Rule(
    "guarded-buckets",
    "aws:s3/bucket:Bucket",
    "Declare all three beside it, as teleport_eks/recordings.py does.",
    whole_stack=True,
)
def unguarded_buckets(resource: Resource, _: Config) -> Iterator[str]:
    """Every bucket is encrypted, refuses requests without TLS, and can never be public."""
    for kind, (guard, is_right) in GUARDS.items():
        if not any(part.type == kind and is_right(part.props) for part in resource.parts):
            yield f"the bucket has no {guard}"
