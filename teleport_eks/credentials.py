"""The AWS credentials that the stack's configuration asks for, in the form that the AWS CLI takes.

The AWS provider reads ``aws:profile`` and ``aws:assumeRoles`` from the stack's file. The AWS CLI, which signs in to the
cluster and reads the host's console, does not, so it needs them as options.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from teleport_eks.errors import Problem

# The AWS CLI has no options for these.
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
    """A profile of the AWS CLI, and a role to assume with it. Without them, the CLI uses the environment."""

    profile: str | None = None
    role_arn: str | None = None


def credentials(config: Mapping[str, str]) -> tuple[Credentials, list[Problem]]:
    """The credentials in ``config``, the keys under ``aws:``, and a problem for each key that the CLI cannot use."""
    roles: Sequence[dict[str, Any]] = json.loads(config.get("assumeRoles") or "[]")
    if legacy := json.loads(config.get("assumeRole") or "{}"):
        roles = [legacy, *roles]
    problems = [_problem(key, "(set)", "works in the AWS provider only") for key in PROVIDER_ONLY if config.get(key)]
    if len(roles) > 1:
        problems.append(_problem("assumeRoles", f"{len(roles)} roles", "has more than one role"))
    for role in roles[:1]:
        # The CLI has an option for the ARN only. The session's name and length do not change permissions.
        limits = sorted(set(role) - {"roleArn", "sessionName", "duration"})
        if limits:
            problems.append(_problem("assumeRoles", role.get("roleArn", ""), f"has {', '.join(limits)}"))
    role_arn = roles[0].get("roleArn") if len(roles) == 1 else None
    return Credentials(config.get("profile") or None, role_arn), problems


def _problem(key: str, value: str, what: str) -> Problem:
    return Problem(
        f"aws:{key}",
        value,
        f"{what}, but `aws eks get-token`, which signs in to the cluster, cannot use that: put it into a profile of "
        "~/.aws/config and name the profile here, or set teleport-eks:kubeconfig",
        "aws:profile: NAME",
    )
