"""A shell in a copy of the project, and the commands that the documents have for one."""

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sandbox.engine import ROOT


def copy_of_the_project(directory: Path) -> Path:
    """What is in the project's folder, with the same environment, but without a sandbox."""
    copy = directory / "project"
    left_out = shutil.ignore_patterns(".git", ".venv", ".sandbox", "__pycache__", ".*_cache", ".hypothesis", "tests")
    shutil.copytree(ROOT, copy, ignore=left_out)
    (copy / ".venv").symlink_to(sys.prefix)
    return copy


@dataclass
class Shell:
    project: Path
    environment: dict[str, str]

    def run(self, commands: str, instead: Mapping[str, str] | None = None, stdin: str = "", code: int = 0) -> str:
        """What the commands print. ``code``: their exit status. ``instead``: what is here for what is written."""
        for written, here in (instead or {}).items():
            commands = commands.replace(written, here)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=self.project,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == code, f"{commands}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout


@dataclass(frozen=True)
class Block:
    document: str
    line: int
    commands: str
    needs_an_account: bool


def blocks(document: Path) -> list[Block]:
    """The document's shell commands, block by block."""
    text, found = document.read_text(), []
    for block in re.finditer(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        section = re.split(r"^#+ ", text[: block.start()], flags=re.MULTILINE)[-1]
        line = text[: block.start()].count("\n") + 1
        found.append(Block(str(document.relative_to(ROOT)), line, block[1], "real account" in section))
    return found
