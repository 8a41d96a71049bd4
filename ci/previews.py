"""Previews stacks one after the other, as the pull request workflow does.

    ci/preview [--drift | --stand-ins] [--output DIRECTORY] STACK...

Writes STACK.txt, what Pulumi said, and STACK.status, one word: ``same``, ``changes`` or ``failed``. Without --output it
ends with the comment that a pull request would get. With --drift each stack is compared with what is really there. With
--stand-ins it is previewed in a made-up account, as dev always is. Exit 1 if a preview failed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ci.comment import COUNT, comment, read
from ci.redact import redact
from ci.stacks import SANDBOX

ROOT = Path(__file__).parent.parent
TIMEOUT = 20 * 60  # seconds
UNEXPECTED = "no changes were expected"


def command(stack: str, *, drift: bool = False, stand_ins: bool = False) -> list[str]:
    if stand_ins or stack == SANDBOX:
        return [".venv/bin/python", "-m", "sandbox", "preview", stack]
    line = ["pulumi", "preview", "--stack", stack, "--non-interactive", "--color", "never", "--diff"]
    line.append("--suppress-outputs")  # they follow from the resources, and hold addresses
    if drift:
        return [*line, "--refresh", "--expect-no-changes"]
    return [*line, "--policy-pack", "policy"]


def preview(stack: str, **how: bool) -> tuple[str, str]:
    """What the preview says, without secrets, and its status."""
    try:
        done = subprocess.run(
            command(stack, **how),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            # Without a terminal in between, nothing is ever asked.
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        return f"{error.filename} is not installed", "failed"
    except subprocess.TimeoutExpired:
        return f"the preview was not done after {TIMEOUT // 60} minutes", "failed"
    return redact(done.stdout, os.environ), status(done.returncode, done.stdout)


def status(returncode: int, text: str) -> str:
    if returncode and UNEXPECTED not in text:
        return "failed"
    return "changes" if returncode or COUNT.search(text) else "same"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="ci/preview", description="Previews stacks as the workflow does.")
    against = parser.add_mutually_exclusive_group()
    against.add_argument("--drift", action="store_true", help="compare with what is really there")
    against.add_argument("--stand-ins", action="store_true", help="preview in a made-up account")
    parser.add_argument("--output", type=Path, metavar="DIRECTORY", help="where the previews go")
    parser.add_argument("stacks", nargs="+", metavar="STACK")
    args = parser.parse_args(argv)

    with tempfile.TemporaryDirectory() as temporary:
        folder = args.output or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for stack in args.stacks:
            print(f"previewing {stack}", file=sys.stderr, flush=True)
            text, outcome = preview(stack, drift=args.drift, stand_ins=args.stand_ins)
            (folder / f"{stack}.txt").write_text(text)
            (folder / f"{stack}.status").write_text(outcome)
            if args.output:
                print(text, flush=True)
        previews = read(folder, args.stacks)
    if not args.output:
        print(comment(previews))
    return 1 if any(preview.status == "failed" for preview in previews) else 0


if __name__ == "__main__":
    sys.exit(main())
