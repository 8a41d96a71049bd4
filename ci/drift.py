"""One issue for each stack that is not as its code says, as long as that is so.

    python3 -m ci.drift DIRECTORY --stacks JSON [--details URL]

Reads what ``ci/preview --drift --output DIRECTORY`` wrote. A stack that drifted has an issue opened or brought up to
date, and one that is clean has it closed. A preview that failed says nothing about drift, so it changes no issue.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ci.comment import LIMIT, Preview, block, read
from ci.github import Repository, is_ours

LABEL = "drift"


def marker(stack: str) -> str:
    return f"<!-- teleport-eks: drift of {stack} -->"


def body(preview: Preview, details: str) -> str:
    head = (
        f"{marker(preview.stack)}\n"
        f"What is there is not what the code says. `pulumi up --refresh -s {preview.stack}` puts it back; "
        f"if it is the code that is wrong, change that. This is closed by itself once they agree."
        f"{f' [Details]({details})' if details else ''}\n\n"
    )
    return head + block(preview.text, LIMIT - len(head))


def report(previews: Sequence[Preview], repository: Repository, details: str = "") -> list[str]:
    """Does to the issues what the previews say; returns a line for each thing done."""
    issues = list(repository.all(f"issues?state=open&labels={LABEL}"))
    done = []
    for preview in previews:
        mine = [issue for issue in issues if is_ours(issue, marker(preview.stack))]
        if preview.status == "changes" and mine:
            repository.send("PATCH", f"issues/{mine[0]['number']}", body=body(preview, details))
            done.append(f"{preview.stack}: has drifted, as #{mine[0]['number']} says")
        elif preview.status == "changes":
            title = f"Drift: {preview.stack}"
            made = repository.send("POST", "issues", title=title, body=body(preview, details), labels=[LABEL])
            done.append(f"{preview.stack}: has drifted, opened #{made['number']}")
        elif preview.status == "same":
            for issue in mine:
                repository.send("PATCH", f"issues/{issue['number']}", state="closed", state_reason="completed")
                done.append(f"{preview.stack}: is clean, closed #{issue['number']}")
    return done


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python3 -m ci.drift", description="Keeps an issue for each drifting stack.")
    parser.add_argument("folder", type=Path, metavar="DIRECTORY")
    parser.add_argument("--stacks", type=json.loads, required=True, help="the names, as JSON")
    parser.add_argument("--details", default="", metavar="URL", help="where the whole previews are")
    args = parser.parse_args(argv)
    for line in report(read(args.folder, args.stacks), Repository(), args.details):
        print(line)


if __name__ == "__main__":
    main()
