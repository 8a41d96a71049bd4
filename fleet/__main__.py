"""``python -m fleet preview|up [STACK...]`` and ``python -m fleet stack CLUSTER``."""

import argparse
import json
import shutil
import sys

from ci.stacks import all_stacks
from fleet.new_stack import write_stack
from fleet.run import pulumi, run, table, unfinished
from sandbox.engine import ROOT

LOGS = ROOT / ".fleet"
RECORD = LOGS / "done.json"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fleet")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("preview", "up"):
        runs = verbs.add_parser(verb)
        runs.add_argument("stacks", nargs="*", help="all that have a file, without any")
        runs.add_argument("--parallel", type=int, default=4)
        runs.add_argument("--resume", action="store_true", help="only those that the last `up` did not finish")
    new = verbs.add_parser("stack")
    new.add_argument("cluster")
    new.add_argument("--region", required=True)
    new.add_argument("--email", default="", help="Let's Encrypt's account; else left to be filled in")
    args = parser.parse_args()

    if args.verb == "stack":
        print(write_stack(ROOT, args.cluster, args.region, args.email))
        return 0
    if not shutil.which("pulumi"):
        sys.exit("the Pulumi CLI is not on PATH: https://www.pulumi.com/docs/install/")
    names = args.stacks or all_stacks(ROOT)
    if args.resume:
        names = unfinished(names, RECORD)
    if not names:
        print("no stack to run: `make stack CLUSTER=name REGION=region` writes the file of one")
        return 0

    def say(line: str) -> None:
        # In one piece, since several stacks talk at once.
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    results = run(names, pulumi(ROOT, args.verb, LOGS), say, parallel=args.parallel)
    print(f"\n{table(results)}\n\nWhat each printed is in {LOGS.name}/")
    if args.verb == "up":
        RECORD.write_text(json.dumps([result.stack for result in results if not result.error]))
    return 1 if any(result.error for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
