"""What is wrong with a stack's configuration, told to the operator in one message."""

from dataclasses import dataclass
from typing import Any

import pulumi
import yaml

NAMESPACE = "teleport-eks"  # of the stack's keys


class ConfigurationError(pulumi.RunError):
    """The stack cannot be brought up as it is configured. Pulumi prints the message, without a traceback."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: the key, its value, the rule, and the YAML or the command that fixes it."""

    key: str
    value: str
    rule: str
    fix: str

    def __str__(self) -> str:
        fix = self.fix.replace("\n", "\n           ")
        return f"  {self.key}\n    value: {self.value}\n    rule:  {self.rule}\n    write: {fix}"


def refuse(problems: list[Problem], stack: str) -> None:
    """Raises one ConfigurationError with all ``problems``, if there are any."""
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        listed = "\n\n".join(str(problem) for problem in problems)
        raise ConfigurationError(f"{count} in Pulumi.{stack}.yaml. Nothing was created or changed.\n\n{listed}\n")


def as_yaml(key: str, value: Any) -> str:
    """``key`` with its value, as it is written in a stack's file."""
    text = yaml.safe_dump(value, sort_keys=False, default_flow_style=None).removesuffix("...\n").rstrip()
    block = isinstance(value, list) and any(isinstance(item, dict) for item in value)
    return f"{key}:\n{text}" if block else f"{key}: {text}"
