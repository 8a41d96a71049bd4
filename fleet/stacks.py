"""Which stacks there are, and which of them a change touches.

    git diff -z --name-only --no-renames HEAD^1 | python3 -m fleet.stacks [--all | --only NAME]

Reads the changed files from standard input, separated by NUL, and prints the stacks as JSON, for a workflow's matrix.
It needs nothing but Python, so the workflows run it before they install anything.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

STACK_FILE = re.compile(r"Pulumi\.([A-Za-z0-9_-][A-Za-z0-9._-]*)\.ya?ml")
# The sandbox's stack is in no account; `make test` brings it up.
SANDBOX = "dev"
# No stack is made of these. Everything else counts as code, so that a new folder is previewed, not forgotten.
NOT_CODE = (
    "docs/",
    "examples/",
    "tests/",
    "bench/",
    "fleet/",
    "sandbox/",
    "ci/roles/",
    ".github/",
    ".ci/",
    ".gitignore",
)


def all_stacks(folder: Path) -> list[str]:
    """The stacks that have a file in ``folder``, by name, without the sandbox's."""
    return sorted(name for name in _files(folder) if name != SANDBOX)


def existing(names: Iterable[str], folder: Path) -> list[str]:
    """``names``. Ends the process with a message if one of them has no file in ``folder``."""
    names = list(names)
    for name in names:
        if name not in _files(folder):
            sys.exit(f"there is no Pulumi.{name}.yaml; there are: {', '.join(all_stacks(folder)) or 'none'}")
    return names


def touched(changed: Iterable[str], stacks: Iterable[str]) -> list[str]:
    """Those of ``stacks`` that a change of these files can change: one by its file, all by the code."""
    stacks, changed = list(stacks), list(changed)
    if any(_is_code(path) for path in changed):
        return stacks
    named = {found[1] for path in changed if (found := STACK_FILE.fullmatch(path))}
    return [stack for stack in stacks if stack in named]


def _files(folder: Path) -> set[str]:
    return {found[1] for path in folder.iterdir() if (found := STACK_FILE.fullmatch(path.name))}


def _is_code(path: str) -> bool:
    return not (path.startswith(NOT_CODE) or path.endswith(".md") or STACK_FILE.fullmatch(path))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python3 -m fleet.stacks", description="Print the stacks a change touches.")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="all stacks; do not read standard input")
    which.add_argument("--only", metavar="NAME", help="this stack; do not read standard input")
    args = parser.parse_args(argv)

    stacks = all_stacks(Path.cwd())
    if args.only:
        stacks = existing([args.only], Path.cwd())
    elif not args.all:
        stacks = touched(filter(None, sys.stdin.read().split("\0")), stacks)
    print(json.dumps(stacks))


if __name__ == "__main__":
    main()
