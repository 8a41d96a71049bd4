"""The emulated account, made strict: moto takes nearly everything, AWS does not.

Each request meets one check before moto sees it, whoever sent it. What it may hold is in botocore's own service
models: required members, lengths, patterns, enumerations, ranges. What those lack and AWS refuses in practice is
below, in ``BY_HAND`` and ``LIMITS``.

It imports nothing of the project, so that it is also a program, ``command``.
"""

import base64
import functools
import re
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import flask
from botocore.exceptions import UnknownServiceError
from botocore.model import OperationNotFoundError
from moto.autoscaling.responses import AutoScalingResponse
from moto.backends import get_backend
from moto.core.exceptions import ServiceException
from moto.core.parse import RequestParserError
from moto.core.responses import ActionResult, BaseResponse
from moto.core.utils import get_service_model
from moto.ec2.models.launch_templates import LaunchTemplate
from moto.ec2.responses import instances
from moto.ec2.utils import parse_user_data
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

EC2_TEXT = {
    "pattern": r"[a-zA-Z0-9. _\-:/()#,@\[\]+=&;{}!$*]{0,255}",
    "words": "Valid are strings less than 256 characters from the following set: a-zA-Z0-9. _-:/()#,@[]+=&;{}!$*",
}
EC2_DESCRIBED = (
    "CreateSecurityGroupRequest", "IpRange", "Ipv6Range", "PrefixListId", "UserIdGroupPair", "SecurityGroupRuleRequest",
    "SecurityGroupRuleDescription",
)  # fmt: skip
NOT_AWS = {"pattern": r"(?is)(?!aws:).*", "words": "Tag keys starting with 'aws:' are reserved for internal use"}

# As in a service's model: by service, structure and member; "key" is a map's. "words" is what AWS says instead of the
# pattern.
BY_HAND: dict[str, dict[str, Any]] = {
    **{f"ec2.{shape}.Description": EC2_TEXT for shape in EC2_DESCRIBED},
    "ec2.CreateSecurityGroupRequest.GroupName": EC2_TEXT | {"pattern": f"(?!sg-){EC2_TEXT['pattern']}", "min": 1},
    "ec2.Tag.Key": NOT_AWS | {"min": 1, "max": 128},
    "ec2.Tag.Value": {"max": 256},
    "ec2.BlobAttributeValue.Value": {"max": 16384},  # user data; what a new instance gets is in LIMITS
    "eks.TagMap.key": NOT_AWS,
    "iam.Tag.Key": NOT_AWS,
    "ssm.PutParameterRequest.Name": {
        "max": 1011,
        "pattern": r"(?i)(?!/?(aws|ssm))/?[a-z0-9_.-]+(/[a-z0-9_.-]+){0,14}",
        "words": "Parameter name must be of a-zA-Z0-9_.-/, have at most 15 levels, and not begin with aws or ssm",
    },
    "ssm.PutParameterRequest.Tags": {"max": 50},
    "ssm.Tag.Key": NOT_AWS,
}


class Refused(ServiceException):
    """A code of AWS's, and what it says. A class of our own: by its module, moto takes an exception for a service's."""


def _parse_user_data(value: Any) -> Any:
    """moto takes an instance's new user data for base64, although it has decoded it already."""
    return parse_user_data(base64.b64encode(value) if isinstance(value, bytes) else value)


setattr(instances, "parse_user_data", _parse_user_data)  # noqa: B010 - moto does not export it


def _create_version(self: LaunchTemplate, data: dict[str, Any], description: str) -> Any:
    """moto reads the user data of a template's first version only, and starts no instance with a later one."""
    if isinstance(data.get("UserData"), str):
        data["UserData"] = parse_user_data(data["UserData"])
    return _create_version_as_it_is(self, data, description)


def _start_instance_refresh(self: AutoScalingResponse) -> ActionResult:
    """moto has none. Its instances are up at once, so the refresh is over when this returns."""
    backend = self.autoscaling_backend
    (group,) = backend.describe_auto_scaling_groups([self._get_param("AutoScalingGroupName")])
    for state in list(group.instance_states):
        backend.terminate_instance(state.instance.id, should_decrement=False)
    return ActionResult({"InstanceRefreshId": "00000000-0000-4000-8000-000000000000"})


_create_version_as_it_is = LaunchTemplate.create_version
setattr(LaunchTemplate, "create_version", _create_version)  # noqa: B010 - moto has no hook for it
setattr(AutoScalingResponse, "start_instance_refresh", _start_instance_refresh)  # noqa: B010 - nor for this


def _user_data(parameters: dict[str, Any], _call: BaseResponse) -> Refused | None:
    try:
        size = len(base64.b64decode(parameters.get("UserData") or "", validate=True))
    except ValueError:
        return Refused("InvalidParameterValue", "Invalid BASE64 encoding of user data.")
    return Refused("InvalidParameterValue", "User data is limited to 16384 bytes") if size > 16384 else None


def _group_twice(parameters: dict[str, Any], call: BaseResponse) -> Refused | None:
    """To moto, two rules for one security group are different if their descriptions are."""
    group = get_backend("ec2")[call.current_account][call.region].get_security_group_from_id(
        parameters.get("GroupId", "")
    )
    rules = [
        (permission["IpProtocol"], str(permission.get("FromPort")), str(permission.get("ToPort")), pair.get("GroupId"))
        for permission in parameters.get("IpPermissions", ())
        for pair in permission.get("UserIdGroupPairs", ())
    ]
    rules += [
        (rule.ip_protocol, str(rule.from_port), str(rule.to_port), rule.source_group["GroupId"])
        for rule in (group.ingress_rules if group else ())
        if rule.source_group
    ]
    twice = len(set(rules)) < len(rules)
    return Refused("InvalidPermission.Duplicate", "the specified rule already exists") if twice else None


def _parameter(parameters: dict[str, Any], _call: BaseResponse) -> Refused | None:
    tier = parameters.get("Tier", "Standard")
    most = 4096 if tier == "Standard" else 8192
    words = f"{tier} tier parameters support a maximum parameter value of {most} characters."
    return Refused("ValidationException", words) if len(parameters["Value"].encode()) > most else None


def _policy(most: int, quota: str, parameters: dict[str, Any], _call: BaseResponse) -> Refused | None:
    document = parameters.get("AssumeRolePolicyDocument") or parameters["PolicyDocument"]
    return _too_large(f"Cannot exceed quota for {quota}: {most}", most, document)


def _inline_policies(parameters: dict[str, Any], call: BaseResponse) -> Refused | None:
    name, iam = parameters["RoleName"], get_backend("iam")[call.current_account][call.partition]
    others = next((role.policies for role in iam.roles.values() if role.name == name), {})
    documents = {**others, parameters["PolicyName"]: parameters["PolicyDocument"]}.values()
    return _too_large(f"Maximum policy size of 10240 bytes exceeded for role {name}", 10240, *documents)


def _no_agent(_parameters: dict[str, Any], call: BaseResponse) -> Refused:
    """No instance of moto's boots, so Session Manager's agent runs on none."""
    return Refused("InvalidInstanceId", f"Instances not in a valid state for account {call.current_account}")


def _too_large(words: str, most: int, *documents: str) -> Refused | None:
    """Blanks do not count, and it is the sum that does."""
    size = sum(len("".join(document.split())) for document in documents)
    return Refused("LimitExceeded", words) if size > most else None


# By operation: what takes more than one parameter to say, or a look at what is there.
LIMITS: dict[str, Callable[[dict[str, Any], BaseResponse], Refused | None]] = {
    "ec2.AuthorizeSecurityGroupIngress": _group_twice,
    "ec2.RunInstances": _user_data,
    "iam.CreatePolicy": functools.partial(_policy, 6144, "PolicySize"),
    "iam.CreatePolicyVersion": functools.partial(_policy, 6144, "PolicySize"),
    "iam.CreateRole": functools.partial(_policy, 2048, "ACLSizePerRole"),
    "iam.PutRolePolicy": _inline_policies,
    "iam.UpdateAssumeRolePolicy": functools.partial(_policy, 2048, "ACLSizePerRole"),
    "ssm.PutParameter": _parameter,
    "ssm.SendCommand": _no_agent,
}


def violations(shape: Any, value: Any, path: str = "", by_hand: str = "") -> Iterator[tuple[str, Any, str]]:
    """The place, the value and AWS's words for all that is wrong with ``value``; ``by_hand`` is its key there."""
    rule = {**shape.metadata, **BY_HAND.get(by_hand, {})}
    service = by_hand.partition(".")[0]
    kind, shown = shape.type_name, "***" if rule.get("sensitive") else value
    if kind == "structure":
        for name in shape.required_members:
            if name not in value:
                yield _join(path, name), None, "Member must not be null"
        for name, item in value.items():
            yield from violations(shape.members[name], item, _join(path, name), f"{service}.{shape.name}.{name}")
    elif kind == "list":
        for number, item in enumerate(value, 1):
            yield from violations(shape.member, item, f"{path}.{number}.member", f"{service}.{shape.name}.member")
    elif kind == "map":
        for key, item in value.items():
            yield from violations(shape.key, key, path, f"{service}.{shape.name}.key")
            yield from violations(shape.value, item, f"{path}.{key}", f"{service}.{shape.name}.value")
    elif kind == "string":
        if not isinstance(value, str):
            yield path, shown, "Member must be a string"
        elif shape.enum and value not in shape.enum:
            yield path, shown, f"Member must satisfy enum value set: [{', '.join(shape.enum)}]"
        elif "pattern" in rule and not _compiled(rule["pattern"]).fullmatch(value):
            pattern = f"Member must satisfy regular expression pattern: {rule['pattern']}"
            yield path, shown, rule.get("words", pattern)

    sized = kind in ("list", "map", "string", "blob")
    if not sized and kind not in ("integer", "long", "float", "double"):
        return
    size, what = (len(value), "length") if sized and hasattr(value, "__len__") else (value, "value")
    for bound, wrong, words in (("min", int.__lt__, "greater"), ("max", int.__gt__, "less")):
        if bound in rule and wrong(int(size), int(rule[bound])):
            yield path, shown, f"Member must have {what} {words} than or equal to {rule[bound]}"


def _join(path: str, name: str) -> str:
    return f"{path}{'.' if path else ''}{name[0].lower()}{name[1:]}"


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """The models' patterns are Java's. Exact for ASCII; all that is beyond counts as letters."""
    kinds = {
        "L": r"a-zA-Z\x80-\U0010ffff", "N": "0-9", "Z": " ", "P": r"!-/:-@\[-`{-~", "M": "", "all": r"\s\S",
    }  # fmt: skip
    # In Java, two escapes are one character beyond U+FFFF.
    pattern = pattern.replace(r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010ffff")
    return re.compile(re.sub(r"\\p\{(\w+)\}", lambda found: kinds[found[1]], pattern), re.ASCII)


def _refusal(operation: Any, problems: list[tuple[str, Any, str]]) -> Refused:
    """As each service says it."""
    protocol = operation.service_model.metadata["protocol"]
    if protocol == "ec2":
        path, value, words = problems[0]
        if value is None:
            return Refused("MissingParameter", f"The request must contain the parameter {path}")
        return Refused("InvalidParameterValue", f"Value ({value}) for parameter {path} is invalid. {words}")
    declared = {error.name for error in operation.error_shapes}
    own = declared & {"InvalidParameterException", "InvalidInput"} if protocol.startswith("rest") else None
    count = f"{len(problems)} validation error{'s' if len(problems) > 1 else ''} detected"
    said = "; ".join(
        f"Value {'null' if value is None else repr(value)} at '{path}' failed to satisfy constraint: {words}"
        for path, value, words in problems
    )
    code = own.pop() if own else "ValidationError" if protocol == "query" else "ValidationException"
    return Refused(code, f"{count}: {said}")


def _check(service: str) -> flask.Response | None:
    """Flask's hook before each request: an answer ends it, None lets moto have it."""
    request = cast(Any, flask.request)
    # Two services have one endpoint, and differ in the version that a request names.
    service = "elbv2" if service == "elb" and request.values.get("Version") == "2015-12-01" else service
    call = BaseResponse(service)
    call.setup_class(request, request.url, request.headers)
    try:
        operation = get_service_model(call.boto3_service_name).operation_model(call._get_action())
    except (UnknownServiceError, OperationNotFoundError, KeyError):
        return None  # moto's own pages, or what moto itself has to refuse
    try:
        call.parse_parameters(request)
    except (AttributeError, TypeError, ValueError, RequestParserError) as error:
        refusal = _refusal(operation, [("request", "", str(error))])
    else:
        parameters: Any = call.params
        shape, limit = operation.input_shape, LIMITS.get(f"{service}.{operation.name}")
        problems = list(violations(shape, parameters, by_hand=service)) if shape else []
        refusal = _refusal(operation, problems) if problems else limit(parameters, call) if limit else None
    if not refusal:
        return None
    status, headers, body = call.serialized(ActionResult(refusal))
    return flask.Response(body, status, headers)


def _in_turn(answer: Callable[..., Any]) -> Callable[..., Any]:
    """moto looks at the condition of a write, and then writes, while another request does the same."""
    turn = threading.Lock()

    def answer_in_turn(*request: Any) -> Any:
        with turn:
            return answer(*request)

    return answer_in_turn


def _strict_app(service: Any) -> flask.Flask:
    app = create_backend_app(service)
    if service == "dynamodb":
        app.wsgi_app = _in_turn(app.wsgi_app)
    if service != "s3":  # its requests are files, and the program has none there
        app.before_request(functools.partial(_check, service))
    return app


def server(port: int = 0) -> BaseWSGIServer:
    """The account at ``port`` of this machine's loopback, or at a free one; run its ``serve_forever``."""
    return make_server("127.0.0.1", port, DomainDispatcherApplication(_strict_app), threaded=True)


def command(port: int) -> list[str]:
    """How to run it as a process of its own. -P, because modules of this directory must not hide installed ones."""
    return [sys.executable, "-P", __file__, str(port)]


if __name__ == "__main__":
    server(int(sys.argv[1])).serve_forever()
