"""The policy pack: what no stack may do, whatever its configuration says.

    pulumi preview --policy-pack policy
    pulumi preview --policy-pack policy --policy-pack-config policy/sandbox.json

A file such as ``policy/sandbox.json`` makes an exception, by a rule's name: ``"disabled"``, ``"advisory"``, or the
rule's own settings, as in ``{"scoped-impersonation": {"enforcementLevel": "mandatory", "allowUnscopedUsers": true}}``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

# Pulumi runs this directory, so the checks are not in a package here.
from checks import RULES, UNKNOWN, Resource, Rule
from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyConfigSchema,
    PolicyPack,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError


def known(value: Any) -> Any:
    """Plain dicts and lists, with UNKNOWN where a preview cannot say.

    pulumi_policy raises when such a value is read, which would end the whole
    rule, also for what is known to be wrong.
    """

    def item(key: Any) -> Any:
        try:
            return known(value[key])
        except UnknownValueError:
            return UNKNOWN

    if isinstance(value, Mapping):
        return {key: item(key) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [item(index) for index in range(len(value))]
    return value


def policy(rule: Rule) -> ResourceValidationPolicy:
    def validate(args: ResourceValidationArgs, report_violation: ReportViolation) -> None:
        resource = Resource(args.resource_type, args.name, known(args.props), args.opts.protect)
        for violation in rule.violations(resource, args.get_config()):
            report_violation(violation, None)

    return ResourceValidationPolicy(
        name=rule.name,
        description=rule.description,
        validate=validate,
        config_schema=PolicyConfigSchema(rule.settings) if rule.settings else None,
        remediation_steps=rule.remedy,
    )


policies: list[Policy] = [policy(rule) for rule in RULES]

if __name__ == "__main__":
    PolicyPack("teleport-eks", policies, EnforcementLevel.MANDATORY)
