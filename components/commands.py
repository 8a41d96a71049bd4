"""Shell commands that pulumi-command runs on the operator's machine."""

import shlex

# Relative to the project's directory, where commands run, so that a resource's inputs are the same on every machine.
# It is the environment that Pulumi.yaml names.
PYTHON = ".venv/bin/python"


def run_module(module: str, *arguments: str) -> str:
    """One of this project's modules as a shell command."""
    return shlex.join([PYTHON, "-m", module, *arguments])
