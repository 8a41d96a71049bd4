"""The policy pack: what no stack may do, whatever the stack's configuration says.

    pulumi preview --policy-pack policy
    pulumi preview --policy-pack policy --policy-pack-config policy/sandbox.json

To make an exception, write a pack configuration such as ``policy/sandbox.json``. It maps a rule's name to
``"disabled"``, ``"advisory"``, or the rule's settings:
``{"scoped-impersonation": {"enforcementLevel": "mandatory", "allowUnscopedUsers": true}}``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

# Pulumi runs this directory as a program, so `checks` is a top-level module here.
from checks import RULES, UNKNOWN, Resource, Rule
from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyConfigSchema,
    PolicyPack,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError


def plain(value: Any) -> Any:
    """Plain dicts and lists, with UNKNOWN for each value that the preview does not know yet.

    If the rule read such a value, pulumi_policy would raise and end the rule, even if other values are wrong.
    """

    def item(key: Any) -> Any:
        try:
            return plain(value[key])
        except UnknownValueError:
            return UNKNOWN

    if isinstance(value, Mapping):
        return {key: item(key) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [item(index) for index in range(len(value))]
    return value


def policy(rule: Rule) -> ResourceValidationPolicy:
    def validate(args: ResourceValidationArgs, report_violation: ReportViolation) -> None:
        resource = Resource(args.resource_type, args.name, plain(args.props), args.opts.protect)
        for violation in rule.violations(resource, args.get_config()):
            report_violation(violation, None)

    return ResourceValidationPolicy(
        name=rule.name,
        description=rule.check.__doc__ or "",
        validate=validate,
        config_schema=PolicyConfigSchema(rule.settings) if rule.settings else None,
        remediation_steps=rule.remedy,
    )


def stack_policy(rule: Rule) -> StackValidationPolicy:
    def validate(args: StackValidationArgs, report_violation: ReportViolation) -> None:
        parts: dict[str, list[Resource]] = {}
        for found in args.resources:
            for bucket in found.property_dependencies.get("bucket", []):
                part = Resource(found.resource_type, found.name, plain(found.props))
                parts.setdefault(bucket.urn, []).append(part)
        for found in args.resources:
            its = tuple(parts.get(found.urn, ()))
            resource = Resource(found.resource_type, found.name, plain(found.props), found.opts.protect, its)
            for violation in rule.violations(resource, args.get_config()):
                report_violation(violation, found.urn)

    return StackValidationPolicy(
        name=rule.name, description=rule.check.__doc__ or "", validate=validate, remediation_steps=rule.remedy
    )


policies: list[Policy] = [stack_policy(rule) if rule.whole_stack else policy(rule) for rule in RULES]

if __name__ == "__main__":
    PolicyPack("teleport-eks", policies, EnforcementLevel.MANDATORY)
