"""The one comment that a pull request gets for the previews of all stacks.

    python3 -m ci.comment DIRECTORY --stacks JSON [--commit SHA] [--details URL]

Prints Markdown, made of the files that ``ci/preview --output DIRECTORY`` wrote.
"""

import argparse
import functools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# By this line the comment is found again.
MARKER = "<!-- teleport-eks: preview -->"
LIMIT = 65_000  # characters; GitHub refuses more than 65,536
LONGEST_LINE = 400  # characters: a changed user data would be 20,000
COLUMNS = ("create", "update", "replace", "delete")
# "    +-2 to replace" is how Pulumi says it, "25 resources to create" the sandbox.
COUNT = re.compile(r"^\s*[+~-]{0,2}\s*([1-9]\d*) (?:resources )?to (create|update|replace|delete)", re.MULTILINE)
MARK = re.compile(r"^(\s+)([+~-])(?=[+-]?\s)")
WORDS = {"same": "no change", "changes": "changes", "failed": "**failed**", "missing": "**no preview**"}


@dataclass(frozen=True)
class Preview:
    """``status`` is same, changes or failed, or missing where the job ended before there was a preview."""

    stack: str
    status: str
    text: str

    @functools.cached_property
    def counts(self) -> dict[str, int]:
        """How many resources there are to create, update, ..."""
        found = COUNT.findall(self.text)
        return {kind: sum(int(number) for number, of in found if of == kind) for kind in COLUMNS}


def read(folder: Path, stacks: Sequence[str]) -> list[Preview]:
    """The previews of these stacks, in this order."""
    previews = []
    for stack in stacks:
        files = [folder / f"{stack}.status", folder / f"{stack}.txt"]
        found = [file.read_text(errors="replace") for file in files if file.exists()]
        how, text = found if len(found) == len(files) else ("missing", "The job ended before the preview.")
        previews.append(Preview(stack, how if how in WORDS else "failed", text))
    return previews


def comment(previews: Sequence[Preview], commit: str = "", details: str = "") -> str:
    """The whole comment. However much the previews say, it is at most LIMIT characters."""
    return "\n".join(
        [
            MARKER,
            f"### Preview{f' of {commit[:10]}' if commit else ''}",
            "",
            *(_table(previews) if previews else ["This change touches no stack."]),
            "",
            *_texts(previews, details),
        ]
    )[:LIMIT]


def block(text: str, room: int) -> str:
    """``text`` as a Markdown code block of at most ``room`` characters: its begin and its end, if it is longer."""
    lines = [_line(line) for line in text.strip("\n").splitlines()]
    # Whatever is in the text, it cannot end the block: the fence is longer than any run of backticks in it.
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    begin, end = f"{fence}diff\n", f"\n{fence}"
    body = _middle_out(lines, room - len(begin) - len(end))
    return f"{begin}{body}{end}"


def _table(previews: Sequence[Preview]) -> list[str]:
    rows = [f"| stack | result | {' | '.join(COLUMNS)} |", f"|---|---|{'--:|' * len(COLUMNS)}"]
    for preview in previews:
        numbers = " | ".join(str(preview.counts[kind] or "") for kind in COLUMNS)
        rows.append(f"| {preview.stack} | {WORDS[preview.status]} | {numbers} |")
    return rows


def _texts(previews: Sequence[Preview], details: str) -> list[str]:
    """The previews that say something, folded; the room is shared out, so that a long one takes it from no other."""
    shown = sorted((p for p in previews if p.status != "same"), key=lambda p: len(p.text))
    where = f"[All of it]({details})" if details else ""
    room = LIMIT - 2000 - len(where) - sum(len(row) + 1 for row in _table(previews))
    texts = {}
    for number, preview in enumerate(shown):
        head, foot = f"<details><summary>{preview.stack}</summary>\n\n", "\n\n</details>\n"
        share = room // (len(shown) - number) - len(head) - len(foot)
        # Rather none than a few words of each; the whole is in the artifacts.
        if share < min(len(preview.text) + 50, 200):
            break
        texts[preview.stack] = f"{head}{block(preview.text, share)}{foot}"
        room -= len(texts[preview.stack])
    return [*(texts[p.stack] for p in previews if p.stack in texts), where]


def _line(line: str) -> str:
    """A line that is not too long, with its mark in front, where GitHub colours it: ``!`` is its ``~``."""
    line = MARK.sub(lambda found: f"{found[2].replace('~', '!')}{found[1]}", line)
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}… ({len(line)} characters)"


def _middle_out(lines: list[str], room: int) -> str:
    """All lines, or as many from both ends as there is room for: errors and the summary are at the end."""
    if len("\n".join(lines)) <= room:
        return "\n".join(lines)
    room -= len(f"… {len(lines)} lines are left out …\n")
    first, last = 0, len(lines)
    while first < last:
        line = lines[first] if first <= len(lines) - last else lines[last - 1]
        room -= len(line) + 1
        if room < 0:
            break
        first, last = (first + 1, last) if first <= len(lines) - last else (first, last - 1)
    return "\n".join([*lines[:first], f"… {last - first} lines are left out …", *lines[last:]])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python3 -m ci.comment", description="The comment for a pull request.")
    parser.add_argument("folder", type=Path, metavar="DIRECTORY")
    parser.add_argument("--stacks", type=json.loads, required=True, help="the names, as JSON")
    parser.add_argument("--commit", default="")
    parser.add_argument("--details", default="", metavar="URL", help="where the whole previews are")
    args = parser.parse_args(argv)
    print(comment(read(args.folder, args.stacks), args.commit, args.details))


if __name__ == "__main__":
    main()
