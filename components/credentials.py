"""Which AWS credentials the stack's configuration asks for, for what runs beside the AWS provider.

The provider reads ``aws:profile`` and ``aws:assumeRoles`` from the stack's file. The AWS CLI, which signs kubectl in
and reads the host's console, does not, and would be somebody else.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.errors import Problem

# What the AWS CLI has no option for.
PROVIDER_ONLY = (
    "accessKey",
    "secretKey",
    "token",
    "assumeRoleWithWebIdentity",
    "sharedConfigFiles",
    "sharedCredentialsFiles",
)


KEYS = ("profile", "assumeRole", "assumeRoles", *PROVIDER_ONLY)


@dataclass(frozen=True)
class Credentials:
    """A profile of the AWS CLI, and a role to assume with it; without either, what the environment has."""

    profile: str | None = None
    role_arn: str | None = None


def credentials(config: Mapping[str, str]) -> tuple[Credentials, list[Problem]]:
    """What can be handed on of ``config``, which has the keys of the namespace ``aws``, and what cannot."""
    roles: Sequence[dict[str, Any]] = json.loads(config.get("assumeRoles") or "[]")
    if legacy := json.loads(config.get("assumeRole") or "{}"):
        roles = [legacy, *roles]
    problems = [_problem(key, "(set)", "is known to the AWS provider only") for key in PROVIDER_ONLY if config.get(key)]
    if len(roles) > 1:
        problems.append(_problem("assumeRoles", f"{len(roles)} roles", "has more than one role"))
    for role in roles[:1]:
        # Only the role's ARN has an option; the session's name and length change nobody's permissions.
        limits = sorted(set(role) - {"roleArn", "sessionName", "duration"})
        if limits:
            problems.append(_problem("assumeRoles", role.get("roleArn", ""), f"has {', '.join(limits)}"))
    role_arn = roles[0].get("roleArn") if len(roles) == 1 else None
    return Credentials(config.get("profile") or None, role_arn), problems


def _problem(key: str, value: str, what: str) -> Problem:
    return Problem(
        f"aws:{key}",
        value,
        f"{what}, and `aws eks get-token`, which signs in to the cluster, cannot do the same: put it into a profile of "
        "~/.aws/config and name that; or set teleport-eks:kubeconfig",
        "aws:profile: NAME",
    )
