"""The command: ``python -m teleport_eks.aws_auth --help``."""

import argparse
import difflib
import shlex
import sys
from functools import partial

from teleport_eks.aws_auth.configmap import (
    NAME,
    Data,
    UnreachableError,
    connect,
    edit,
    status,
    suspicious_entries,
    with_entry,
    without_entry,
)
from teleport_eks.aws_auth.text import Entry, RefusedError, map_arn


def _diff(before: Data, after: Data) -> str:
    lines = []
    for key in after:
        old, new = before.get(key, "").splitlines(), after[key].splitlines()
        lines += difflib.unified_diff(old, new, f"{NAME}/{key}", f"{NAME}/{key} (new)", lineterm="")
    return "\n".join(lines)


def _left(args: argparse.Namespace) -> str:
    """What may be left in a cluster that does not answer, whether that matters, and how to remove it later."""
    groups = "".join(f" --group {shlex.quote(group)}" for group in args.group)
    return (
        f"If the cluster was deleted, nothing is left. Otherwise its aws-auth may still map {args.role_arn} to the "
        f"user {args.username} in {', '.join(args.group) or 'no group'}. Nobody can use the entry once the role is "
        "deleted, which `pulumi destroy` does next. To remove it, on a machine that reaches the cluster:\n"
        f"  .venv/bin/python -m teleport_eks.aws_auth remove --kubeconfig ~/.kube/config --role-arn {args.role_arn} "
        f"--username {shlex.quote(args.username)}{groups}"
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m teleport_eks.aws_auth", description="Adds, removes or shows one role's entry in aws-auth."
    )
    parser.add_argument("action", choices=["add", "remove", "show"])
    parser.add_argument("--kubeconfig", required=True, help="a path; /dev/stdin keeps it out of files")
    parser.add_argument("--role-arn", required=True, help="with or without its path")
    parser.add_argument("--username", required=True)
    parser.add_argument("--group", action="append", default=[], help="may be repeated")
    parser.add_argument(
        "--adopt", action="store_true", help="replace or remove an entry for this role that is not ours"
    )
    parser.add_argument(
        "--unreachable-ok", action="store_true", help="remove: only warn when the API server does not answer"
    )
    parser.add_argument("--dry-run", action="store_true", help="print a unified diff and write nothing")
    args = parser.parse_args(argv)
    try:
        entry = Entry(map_arn(args.role_arn), args.username, tuple(args.group))
        change = {"add": with_entry, "remove": without_entry}.get(args.action)
        changed = partial(change, entry=entry, adopt=args.adopt) if change else dict
        before, after = edit(connect(args.kubeconfig), changed, dry_run=args.dry_run)
        was, now = status(before, entry), status(after, entry)
        notes = suspicious_entries(after)
    except RefusedError as e:
        if isinstance(e, UnreachableError) and args.unreachable_ok and args.action == "remove":
            print(f"warning: {e}\n{_left(args)}", file=sys.stderr)
            return 0
        print(f"error: {e}", file=sys.stderr)
        return 1
    if args.action == "remove" and now != "absent":
        notes.append(f"{entry.role_arn} is mapped differently; left unchanged")
    for note in notes:
        print(f"warning: {note}", file=sys.stderr)
    if args.dry_run and after != before:
        print(_diff(before, after))
        return 0
    if after == before:
        done = {"add": "already there", "remove": "nothing to remove", "show": now}[args.action]
    elif args.action == "remove":
        done = "removed"
    else:
        done = {"different": "replaced", "mapUsers": "moved from mapUsers"}.get(was, "added")
    print(f"{done}: {entry.role_arn} as {entry.username} in {', '.join(entry.groups) or 'no group'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
