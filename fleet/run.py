"""Runs one operation on many stacks, some at a time. If one stack fails, the others go on."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulumi import automation

# Acts on one stack and returns how many resources of each kind of change there are; an exception is that stack's
# failure. The second argument prints a line of progress.
Operation = Callable[[str, Callable[[str], None]], dict[str, int]]
# What the engine counts as well, but does not count as a change (HasChanges in its pkg/engine).
UNCHANGED = ("same", "read", "discard", "read-replacement")


@dataclass(frozen=True)
class Result:
    """How one stack went: ``changes`` counts resources by kind of change; ``error`` is empty unless it failed."""

    stack: str
    seconds: float
    changes: dict[str, int]
    error: str = ""

    def summary(self) -> str:
        if self.error:
            lines = [line.strip() for line in self.error.splitlines() if line.strip()]
            # The error holds all that Pulumi printed. The first line that says "error: " is the cause.
            return f"FAILED: {next((line for line in lines if line.startswith('error: ')), lines[-1])}"
        return ", ".join(f"{kind} {count}" for kind, count in sorted(self.changes.items())) or "no changes"


def run(names: Sequence[str], operation: Operation, say: Callable[[str], None], *, parallel: int) -> list[Result]:
    """Runs ``operation`` on each stack, at most ``parallel`` at once, and returns the results in the order of names."""

    def one(name: str) -> Result:
        began = time.monotonic()
        say(f"{name}: started")
        try:
            changes = operation(name, lambda line: say(f"{name}: {line}"))
        except Exception as error:  # whatever it is, the other stacks go on
            return Result(name, time.monotonic() - began, {}, str(error) or type(error).__name__)
        return Result(name, time.monotonic() - began, {k: n for k, n in changes.items() if n and k not in UNCHANGED})

    results = {}
    with ThreadPoolExecutor(parallel) as pool:
        for done in as_completed(pool.submit(one, name) for name in names):
            result = done.result()
            results[result.stack] = result
            say(f"{result.stack}: {result.summary()} ({result.seconds:.0f} s; {len(results)} of {len(names)})")
    return [results[name] for name in names]


def table(results: Iterable[Result]) -> str:
    rows = [(result.stack, f"{result.seconds:.0f} s", result.summary()) for result in results]
    width = max((len(row[0]) for row in rows), default=0)
    return "\n".join(f"  {stack:<{width}}  {seconds:>6}  {summary}" for stack, seconds, summary in rows)


def pulumi(
    verb: str,
    open_stack: Callable[[str], AbstractContextManager[automation.Stack]],
    logs: Path,
    options: Mapping[str, Any],
    show: Callable[[str], None] | None = None,
) -> Operation:
    """Runs Pulumi through the Automation API. What it prints goes to a log per stack and, if given, to ``show``.

    Outputs stay out of both: they hold addresses, and a workflow's log may be public.
    """
    logs.mkdir(parents=True, exist_ok=True)

    def operate(name: str, say: Callable[[str], None]) -> dict[str, int]:
        with (logs / f"{name}.log").open("w") as log, open_stack(name) as stack:

            def keep(line: str) -> None:
                log.write(f"{line}\n")
                if show:
                    show(line)
                elif line.lstrip().startswith("error:"):
                    say(line.strip())

            common: dict[str, Any] = {"on_output": keep, "suppress_outputs": True, "suppress_progress": True}
            common |= {"color": "never", **options}
            if verb == "up":
                changes = stack.up(**common, show_secrets=False).summary.resource_changes or {}
            else:
                changes = stack.preview(**common, refresh=verb == "drift").change_summary
            return {str(kind): count for kind, count in changes.items()}

    return operate


def unfinished(names: Sequence[str], record: Path) -> list[str]:
    """Those of ``names`` that the last run, kept in ``record``, did not finish."""
    done = set(json.loads(record.read_text())) if record.exists() else set()
    return [name for name in names if name not in done]
