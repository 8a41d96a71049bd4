"""``python -m fleet new|preview|up|drift|who``: people and workflows run stacks with this. ``--help`` says more."""

import argparse
import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from pulumi import automation

from fleet.new_stack import write_stack
from fleet.run import pulumi, run, table, unfinished
from fleet.stacks import all_stacks, existing
from fleet.who import who
from sandbox import engine
from sandbox.account import made_up
from sandbox.binaries import ServersMissingError
from sandbox.engine import ROOT

LOGS = ROOT / ".fleet"
RECORD = LOGS / "done.json"
FAILED, DRIFTED = 1, 3  # exit codes; argparse uses 2
VERBS = {
    "preview": "show what `up` would change",
    "up": "create and update what the stacks declare",
    "drift": f"compare the stacks with what is really there; exit {DRIFTED} if they differ",
}

OpenStack = Callable[[str], AbstractContextManager[automation.Stack]]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fleet", description="Run many stacks at once.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    new = verbs.add_parser("new", help="write the file of a new stack, for a cluster in your account")
    new.add_argument("cluster")
    new.add_argument("--region", required=True)
    new.add_argument("--email", default="", help="for Let's Encrypt's account; you can fill it in later")
    access = verbs.add_parser("who", help="which people have access now: the stack's file, SSM and Teleport")
    access.add_argument("stack")
    access.add_argument("--json", action="store_true")
    for verb, what in VERBS.items():
        runs = verbs.add_parser(verb, help=what, description=f"{what[0].upper()}{what[1:]}.")
        runs.add_argument("stacks", nargs="*", help="default: all that have a file")
        runs.add_argument("--parallel", type=int, default=4, metavar="N", help="stacks at a time; default: 4")
        runs.add_argument(
            "--diff", action="store_true", default=verb == "drift", help="show each property that changes"
        )
        runs.add_argument("--policy-pack", action="append", metavar="FOLDER", help="fail if this policy is violated")
        if verb == "preview":
            text = "evaluate the stack's file against a throwaway fake account; needs no credentials"
            runs.add_argument("--stand-ins", action="store_true", help=text)
        if verb == "up":
            runs.add_argument("--resume", action="store_true", help="only stacks that the last `up` did not finish")
    return parser.parse_args()


def main() -> int:
    args = parse()
    if args.verb == "new":
        print(write_stack(ROOT, args.cluster, args.region, args.email))
        return 0
    if args.verb == "who":
        existing([args.stack], ROOT)
        require_pulumi()
        return 0 if who(args.stack, as_json=args.json) else FAILED
    names = existing(args.stacks, ROOT) or all_stacks(ROOT)
    if args.verb == "up" and args.resume:
        names = unfinished(names, RECORD)
    if not names:
        print("no stack to run: `make stack CLUSTER=name REGION=region` writes the file of one")
        return 0

    def say(line: str) -> None:
        # One write per line, because several stacks print at once.
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    def show(line: str) -> None:
        if not engine.is_noise(line):
            say(line)

    options = {"diff": args.diff, "policy_packs": args.policy_pack}
    where = on_stand_ins(names) if args.verb == "preview" and args.stand_ins else in_the_account()
    with where as open_stack:
        operation = pulumi(args.verb, open_stack, LOGS, options, show=show if len(names) == 1 else None)
        results = run(names, operation, say, parallel=args.parallel)
    print(f"\n{table(results)}\n\nPulumi's whole output is in {LOGS.name}/")
    if args.verb == "up":
        RECORD.write_text(json.dumps([result.stack for result in results if not result.error]))
    if any(result.error for result in results):
        return FAILED
    return DRIFTED if args.verb == "drift" and any(result.changes for result in results) else 0


def require_pulumi() -> None:
    if not shutil.which("pulumi"):
        sys.exit("the Pulumi CLI is not on PATH: https://www.pulumi.com/docs/install/")


@contextmanager
def in_the_account() -> Iterator[OpenStack]:
    """The stacks themselves, with the shell's credentials."""
    require_pulumi()
    yield lambda name: nullcontext(automation.select_stack(name, work_dir=str(ROOT)))


def clusters(config: Mapping[str, Any]) -> Iterator[str]:
    """The clusters of a stack's file. What is no name there is left to the program's own message."""
    yield config.get("teleport-eks:clusterName") or "demo"
    additional = config.get("teleport-eks:additionalClusters")
    for item in additional if isinstance(additional, list) else ():
        if isinstance(item, dict) and isinstance(name := item.get("clusterName"), str):
            yield name


@contextmanager
def on_stand_ins(names: Sequence[str]) -> Iterator[OpenStack]:
    """New stacks from the same files, in one fake account that has a cluster of each name in those files."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    configs = {name: engine.configuration(name) | engine.NO_CLUSTER for name in names}
    try:
        engine.install()
    except ServersMissingError as error:
        sys.exit(str(error))
    with made_up(sorted({cluster for config in configs.values() for cluster in clusters(config)})) as account:
        yield lambda name: engine.throwaway(name, account, configs[name])


if __name__ == "__main__":
    sys.exit(main())
