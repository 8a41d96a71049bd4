"""The safety rules as plain functions: a resource in, what is wrong with it out. They know nothing of Pulumi.

A check yields one line per finding, with the value that is wrong. A value that a
preview does not know is UNKNOWN, and never a finding: the engine asks again,
with all values, before it creates or changes the resource.

The rules share no constant with the program: they would share its mistakes.
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

import yaml


class _Unknown:
    def __repr__(self) -> str:
        return "(not known yet)"


UNKNOWN: Any = _Unknown()


@dataclass(frozen=True)
class Resource:
    """A resource as its provider gets it. ``props``: camelCase names, and dicts, lists, scalars and UNKNOWN."""

    type: str
    name: str
    props: Mapping[str, Any]
    protect: bool = False


Config = Mapping[str, Any]


def at(value: Any, *path: str) -> Any:
    """What is at ``path`` in nested dicts: None when it is not set, UNKNOWN when that is not known."""
    for key in path:
        if value is UNKNOWN:
            return UNKNOWN
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def each(value: Any) -> list[Any]:
    """The items of a list, or the one that stands for a list, as far as they are known."""
    items = value if isinstance(value, list) else [] if value is None else [value]
    return [item for item in items if item is not UNKNOWN]


def shown(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


# the firewall

ADMIN_PORTS = {22: "SSH", 3022: "Teleport's SSH node", 3025: "Teleport's auth service"}
# A range with a shorter prefix is nobody's own network: two halves of the internet are the internet.
WIDEST = {4: 8, 6: 16}


def open_admin_ports(resource: Resource, _: Config) -> Iterator[str]:
    for rule in _ingress(resource):
        ports = [f"{port} ({use})" for port, use in ADMIN_PORTS.items() if _lets_in(rule, port)]
        for key in ("cidrIpv4", "cidrIpv6", "cidrBlocks", "ipv6CidrBlocks"):
            for cidr in each(rule.get(key)):
                if ports and _is_wide(cidr):
                    yield f"{cidr} reaches {', '.join(ports)}"


def _ingress(resource: Resource) -> list[Mapping[str, Any]]:
    """The rules by which somebody gets in, with ``protocol``, ``fromPort``, ``toPort`` and ranges."""
    props = resource.props
    match resource.type:
        case "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule":
            return [{**props, "protocol": props.get("ipProtocol")}]
        case "aws:ec2/securityGroupRule:SecurityGroupRule" if props.get("type") == "ingress":
            return [props]
        case "aws:ec2/securityGroup:SecurityGroup" | "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup":
            return each(props.get("ingress"))
    return []


def _lets_in(rule: Mapping[str, Any], port: int) -> bool:
    protocol = shown(rule.get("protocol")).lower()
    if protocol in ("-1", "all"):
        return True
    low, high = rule.get("fromPort"), rule.get("toPort")
    if protocol not in ("tcp", "6") or low is UNKNOWN or high is UNKNOWN:
        return False
    if low is None or int(low) < 0:
        return True
    return int(low) <= port <= int(low if high is None else high)


def _is_wide(cidr: str) -> bool:
    with suppress(ValueError):  # no range is the provider's to refuse
        network = ipaddress.ip_network(cidr, strict=False)
        return network.prefixlen < WIDEST[network.version]
    return False


# hosts

LAUNCH_TEMPLATE = "aws:ec2/launchTemplate:LaunchTemplate"
HOSTS = (
    LAUNCH_TEMPLATE,
    "aws:ec2/instance:Instance",
    "aws:ec2/launchConfiguration:LaunchConfiguration",
    "aws:ec2/spotInstanceRequest:SpotInstanceRequest",
)


def metadata_without_token(resource: Resource, _: Config) -> Iterator[str]:
    options = resource.props.get("metadataOptions")
    if resource.type not in HOSTS or at(options, "httpEndpoint") in ("disabled", UNKNOWN):
        return
    for name, wanted in {"httpTokens": "required", "httpPutResponseHopLimit": 1}.items():
        value = at(options, name)
        if value not in (wanted, UNKNOWN):
            yield f"metadataOptions.{name} is {shown(value)}, and should be {wanted}"


def unencrypted_volumes(resource: Resource, _: Config) -> Iterator[str]:
    for where, encrypted in _volumes(resource):
        # A launch template has it as text.
        if encrypted not in (True, "true", UNKNOWN):
            yield f"{where} is {shown(encrypted)}, and should be true"


def _volumes(resource: Resource) -> Iterator[tuple[str, Any]]:
    """Each volume's property, and whether it is encrypted."""
    props = resource.props
    if resource.type == "aws:ebs/volume:Volume":
        yield "encrypted", props.get("encrypted")
    elif resource.type == LAUNCH_TEMPLATE:
        if not props.get("blockDeviceMappings"):  # then it is as the image has it
            yield "blockDeviceMappings", None
        for device in each(props.get("blockDeviceMappings")):
            if at(device, "ebs"):
                yield f"ebs.encrypted of {shown(at(device, 'deviceName'))}", at(device, "ebs", "encrypted")
    elif resource.type in HOSTS:
        yield "rootBlockDevice.encrypted", at(props, "rootBlockDevice", "encrypted")
        for device in each(props.get("ebsBlockDevices")):
            yield f"ebsBlockDevices' encrypted of {shown(at(device, 'deviceName'))}", at(device, "encrypted")


# IAM

DOCUMENTS = (
    "aws:iam/groupPolicy:GroupPolicy",
    "aws:iam/policy:Policy",
    "aws:iam/rolePolicy:RolePolicy",
    "aws:iam/userPolicy:UserPolicy",
)
# The id of a change is not known before the change, and tells no more than whether it is through.
ROUTE53_CHANGE = re.compile(r"arn:[\w-]+:route53:::change/\*")
# AWS's own policies with `*`; the last two read all parameters of the account, and so all of its secrets there.
TOO_WIDE = re.compile(
    r"arn:[\w-]+:iam::aws:policy/(.*/)?"
    r"(\w*FullAccess|AdministratorAccess|PowerUserAccess|AmazonSSMManagedInstanceCore|AmazonEC2RoleforSSM)"
)


def wide_permissions(resource: Resource, _: Config) -> Iterator[str]:
    if not resource.type.startswith("aws:iam/"):
        return
    for where, document in _documents(resource):
        for number, statement in enumerate(each(at(document, "Statement")), 1):
            for finding in _wildcards(statement):
                yield f"{where}, statement {at(statement, 'Sid') or number}: {finding}"
    for arn in each(resource.props.get("policyArn")) + each(resource.props.get("managedPolicyArns")):
        if TOO_WIDE.fullmatch(arn):
            yield f"attaches {arn}"


def _documents(resource: Resource) -> Iterator[tuple[str, Any]]:
    """The policy documents that a resource writes, parsed."""
    props, texts = resource.props, []
    if resource.type in DOCUMENTS:
        texts.append(("policy", props.get("policy")))
    elif resource.type == "aws:iam/role:Role":
        texts.append(("assumeRolePolicy", props.get("assumeRolePolicy")))
        texts += [("inlinePolicies", at(policy, "policy")) for policy in each(props.get("inlinePolicies"))]
    for where, text in texts:
        with suppress(ValueError):  # no JSON is the provider's to refuse
            yield where, json.loads(text) if isinstance(text, str) else text


def _wildcards(statement: Any) -> Iterator[str]:
    if at(statement, "Effect") == "Deny":
        return
    for key in ("NotAction", "NotResource", "NotPrincipal"):
        if at(statement, key) is not None:
            yield f"{key} is all but {at(statement, key)}"
    for action in each(at(statement, "Action")):
        if re.search(r"[*?]", action):
            yield f"Action is {action}"
    for arn in each(at(statement, "Resource")):
        if _names_nothing(arn):
            yield f"Resource is {arn}"
    principal = at(statement, "Principal")
    for kind in principal.values() if isinstance(principal, Mapping) else [principal]:
        if "*" in each(kind):
            yield "Principal is *"


def _names_nothing(arn: str) -> bool:
    """Whether it is all resources, or all of a type: ``*``, ``arn:aws:s3:::*``, ``arn:aws:ssm:...:parameter/*``."""
    if ROUTE53_CHANGE.fullmatch(arn):
        return False
    parts = arn.split(":", 5)
    if len(parts) < 6:
        return "*" in arn
    service, rest = parts[2], parts[5]
    if service != "s3":  # there the bucket's name comes first, and no type
        rest = re.sub(r"^[\w-]+[/:]", "", rest)
    return not rest.strip("*?/:")


# the cluster

# Who is behind a name that no binding should have.
NOBODY = {
    "system:anonymous": "whoever can reach the cluster's API",
    "system:unauthenticated": "whoever can reach the cluster's API",
    "system:masters": "whom nothing in the cluster can restrict",
}


def _objects(resource: Resource, *kinds: str) -> Iterator[Mapping[str, Any]]:
    """The Kubernetes objects of these kinds that a resource declares: itself, a list's items, or those in YAML."""
    if not resource.type.startswith("kubernetes:"):
        return
    kind = resource.type.rpartition(":")[2].removesuffix("Patch")
    found = [{**resource.props, "kind": kind}]
    if resource.type.startswith("kubernetes:yaml"):
        found = each(resource.props.get("objs"))
        for text in each(resource.props.get("yaml")):
            with suppress(yaml.YAMLError):  # the provider's to refuse
                found += yaml.safe_load_all(text)
    while found:
        item = found.pop()
        kind = str(at(item, "kind"))
        if kind in kinds:
            yield item
        if kind.endswith("List"):
            # In a typed list the items may leave out what they are.
            entries = (entry for entry in each(at(item, "items")) if isinstance(entry, Mapping))
            found += [{"kind": kind.removesuffix("List"), **entry} for entry in entries]


def _where(item: Any) -> str:
    return f"{at(item, 'kind')} {shown(at(item, 'metadata', 'name'))}"


def bound_to_nobody(resource: Resource, _: Config) -> Iterator[str]:
    for binding in _objects(resource, "ClusterRoleBinding", "RoleBinding"):
        for subject in each(at(binding, "subjects")):
            name = at(subject, "name")
            if name in NOBODY:
                role = shown(at(binding, "roleRef", "name"))
                yield f"{_where(binding)} gives the role {role} to {name}, {NOBODY[name]}"


def unscoped_impersonation(resource: Resource, config: Config) -> Iterator[str]:
    for role in _objects(resource, "ClusterRole", "Role"):
        for rule in each(at(role, "rules")):
            if not {"impersonate", "*"} & set(each(at(rule, "verbs"))):
                continue
            if not {"", "*"} & set(each(at(rule, "apiGroups"))):
                continue
            names, resources = at(rule, "resourceNames"), each(at(rule, "resources"))
            for kind in ("groups", "users", "serviceaccounts"):
                if not {kind, "*"} & set(resources):
                    continue
                if not names and not (kind == "users" and config.get("allowUnscopedUsers")):
                    yield f"{_where(role)} may impersonate any of {kind}"
                # The control plane's own names are as good as system:masters.
                for name in each(names):
                    if name.startswith("system:") and name != "system:authenticated":
                        yield f"{_where(role)} may impersonate {name} of {kind}"


def owned_aws_auth(resource: Resource, _: Config) -> Iterator[str]:
    for item in _objects(resource, "ConfigMap"):
        name, namespace = at(item, "metadata", "name"), at(item, "metadata", "namespace")
        # Without a namespace it is the provider's own, which may be this one.
        if name == "aws-auth" and namespace in ("kube-system", None):
            yield f"{resource.type} owns kube-system/aws-auth"


# secrets

_ASSIGNMENT = r"""
    (client[_-]?secret | secret[_-]?(?:access[_-]?)?key | passwo?r?d | passphrase | api[_-]?key
        | (?:access|auth|github|join)[_-]?token)
    ["']? [ \t]*[:=][ \t]*
    (?: ["'] (?![$<{/]) [^"'\n]{4,} ["']  # a variable, a template's placeholder or a path is no secret itself,
        | (?![$<{(\[/] | (?:true|false|yes|no|null|none)\b) [^\s"'(]{4,} (?=[\s"']|$)  # and neither is a call
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
# In lines of their own, as in a mail's part or a YAML block; or in one piece.
_BASE64 = re.compile(r"(?m)^[ \t]*((?:[A-Za-z0-9+/]{40,}\r?\n[ \t]*)+[A-Za-z0-9+/]+={0,2})[ \t]*$")
_BASE64_PIECE = re.compile(r"[A-Za-z0-9+/]{20,}={0,2}")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
_LIMIT = 2**24  # bytes: more than user data ever unpacks to


def secrets_in(text: str) -> list[str]:
    """What of ``text``, or of the base64 and gzip in it, looks like a secret. Says where, and never the secret."""
    found: dict[str, None] = {}
    for content in _texts(text.encode()):
        for kind, pattern in SECRETS.items():
            for match in pattern.finditer(content):
                line = content.count("\n", 0, match.start()) + 1
                found[f"{kind.format(*match.groups())} in line {line}"] = None
    return list(found)


def _texts(data: bytes, depth: int = 3) -> Iterator[str]:
    """The text, and all that is packed in it."""
    if data.startswith(b"\x1f\x8b"):
        with suppress(OSError, EOFError, zlib.error):
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(_LIMIT)
    # Files in JSON or YAML have their line ends and quotes behind a backslash.
    text = re.sub(r"\\(.)", lambda escaped: _ESCAPES.get(escaped[1], escaped[1]), data.decode(errors="replace"))
    yield text
    if depth:
        for packed in _BASE64.findall(text) + _BASE64_PIECE.findall(text):
            packed = "".join(packed.split())
            with suppress(ValueError):
                yield from _texts(base64.b64decode(packed + "=" * (-len(packed) % 4)), depth - 1)


def secrets_in_user_data(resource: Resource, _: Config) -> Iterator[str]:
    if resource.type in HOSTS:
        for key in ("userData", "userDataBase64"):
            for text in each(resource.props.get(key)):
                yield from (f"{key} holds {secret}" for secret in secrets_in(text))


SECRET_NAME = re.compile(r"(client[_-]?secret|password|passphrase|private[_-]?key|[_-]token)s?$", re.IGNORECASE)


def plain_secret_parameters(resource: Resource, _: Config) -> Iterator[str]:
    props = resource.props
    if resource.type != "aws:ssm/parameter:Parameter":
        return
    name, kind = props.get("name"), props.get("type")
    secret = [f"{name} is called a secret"] if isinstance(name, str) and SECRET_NAME.search(name) else []
    for key in ("value", "insecureValue"):
        secret += [f"{key} holds {found}" for text in each(props.get(key)) for found in secrets_in(text)]
    if kind not in ("SecureString", UNKNOWN):
        yield from (f"type is {shown(kind)}, but {reason}" for reason in secret)


# state

STATE = {"aws:ec2/eip:Eip": "address", "aws:ebs/volume:Volume": "data volume"}


def unprotected_state(resource: Resource, _: Config) -> Iterator[str]:
    if resource.type in STATE and not resource.protect:
        yield f"protect of the {STATE[resource.type]} is false"


@dataclass(frozen=True)
class Rule:
    """``settings``: JSON schemas of what a pack's configuration may say to the rule."""

    name: str
    description: str
    remedy: str
    check: Callable[[Resource, Config], Iterator[str]]
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)

    def violations(self, resource: Resource, config: Config | None = None) -> list[str]:
        return [f"{resource.name}: {finding}. {self.remedy}" for finding in self.check(resource, config or {})]


RULES = (
    Rule(
        "closed-admin-ports",
        "SSH and Teleport's auth service are closed to the internet.",
        "Name the networks that may reach them in adminCidrs, or none: Session Manager needs no open port.",
        open_admin_ports,
    ),
    Rule(
        "metadata-by-token",
        "Instance metadata, and with it the role's credentials, is given to the host only, and by token (IMDSv2).",
        'Set metadata_options={"http_tokens": "required", "http_put_response_hop_limit": 1}.',
        metadata_without_token,
    ),
    Rule(
        "encrypted-volumes",
        "Every volume is encrypted: Teleport's CA is on one.",
        "Set encrypted=True; a volume that is there is encrypted by way of a snapshot.",
        unencrypted_volumes,
    ),
    Rule(
        "named-permissions",
        "IAM policies name each action and what it is for.",
        "List the actions, and the ARNs of the stack's own resources.",
        wide_permissions,
    ),
    Rule(
        "no-anonymous-subjects",
        "No role in the cluster is bound to the anonymous, or to system:masters.",
        "Bind the role to a group of the teams', or to teleport-group.",
        bound_to_nobody,
    ),
    Rule(
        "scoped-impersonation",
        "What the proxy may impersonate is listed by name.",
        "List the teams' groups and the shared user in resourceNames; a pack's configuration may set "
        "allowUnscopedUsers, which is as good as cluster-admin to who has the host.",
        unscoped_impersonation,
        {"allowUnscopedUsers": {"type": "boolean", "default": False}},
    ),
    Rule(
        "aws-auth-is-not-owned",
        "The aws-auth map is everybody's: one wrong edit locks every node out.",
        "Take it out of the stack without deleting it (pulumi state delete), and use an access entry, or "
        "components.aws_auth, which edits one item.",
        owned_aws_auth,
    ),
    Rule(
        "no-secrets-in-user-data",
        "User data holds no secret: whoever may describe instances can read it.",
        "Put it into an SSM SecureString that the host reads, and make another one: this one has been seen.",
        secrets_in_user_data,
    ),
    Rule(
        "secrets-are-secure-strings",
        "Secrets in SSM are SecureStrings.",
        'Set type="SecureString" and the value as pulumi.Output.secret.',
        plain_secret_parameters,
    ),
    Rule(
        "protected-state",
        "The address and the data volume are protected: they are the proxy's name, CA and recordings.",
        "Set teleport-eks:protect: true; where that is not meant, say so in the pack's configuration.",
        unprotected_state,
    ),
)
