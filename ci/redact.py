"""Takes out of a text what must not be published.

Pulumi shows its secrets as ``[secret]`` already. This is for what other programs may say in between:
credentials of the environment that the preview runs in, and what looks like a credential.
"""

import re
from collections.abc import Mapping

SECRET_VARIABLES = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "PULUMI_ACCESS_TOKEN",
    "PULUMI_CONFIG_PASSPHRASE",
    "GITHUB_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
)
SHORTEST = 6  # characters: a shorter value is no secret, and would take pieces out of words
LOOKS_SECRET = re.compile(
    r"""
    -----BEGIN\ [A-Z\ ]*PRIVATE\ KEY-----.*?(?:-----END\ [A-Z\ ]*PRIVATE\ KEY-----|\Z)
    | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b                          # AWS access key id
    | \bgh[oprsu]_[A-Za-z0-9_.-]{20,} | \bgithub_pat_\w{20,}  # GitHub
    | \bpul-[0-9a-f]{40}\b                                   # Pulumi
    | \bk8s-aws-v1\.[\w-]{20,}                               # an EKS token
    | \beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*                   # a JSON web token
    """,
    re.VERBOSE | re.DOTALL,
)


def redact(text: str, environment: Mapping[str, str]) -> str:
    """``text`` without the values of the secret variables, and without what looks like a credential."""
    # The longest first: one may be a part of another.
    for value in sorted((environment.get(name, "") for name in SECRET_VARIABLES), key=len, reverse=True):
        if len(value) >= SHORTEST:
            text = text.replace(value, "[secret]")
    return LOOKS_SECRET.sub("[secret]", text)
