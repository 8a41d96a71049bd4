"""Shell commands that pulumi-command runs on the operator's machine."""

import os
import shlex
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

from teleport_eks.errors import ConfigurationError

# Relative to the project's directory, where commands run, so that a resource's inputs are the same on every machine.
# It is the environment that Pulumi.yaml names.
PYTHON = ".venv/bin/python"


def run_module(module: str, *arguments: str, options: Mapping[str, str]) -> str:
    """One of this project's modules as a shell command. ``options`` are written after the arguments, in their order."""
    return shlex.join([PYTHON, "-m", module, *arguments, *chain.from_iterable(options.items())])


def check_environment(system: str = os.name) -> None:
    """Raises ConfigurationError if such commands cannot run here, so that a preview says it and not half an update."""
    if system == "nt":
        raise ConfigurationError("Windows has no /bin/sh, which the stack's commands need: run Pulumi in WSL 2.")
    if not Path(PYTHON).exists():
        raise ConfigurationError(
            f"{Path.cwd() / PYTHON} does not exist, and the stack's commands need it. In a clone, type `make setup`. "
            "In a program of your own, create the environment as .venv beside Pulumi.yaml."
        )
