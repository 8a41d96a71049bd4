"""Runs one operation on many stacks, some at a time; a stack that fails stops no other."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from pulumi import automation

# What an operation on one stack does: given a way to tell how it goes, it returns how many resources of each kind of
# change there are. What it raises is the stack's failure.
Operation = Callable[[str, Callable[[str], None]], dict[str, int]]


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
            # Pulumi's error is all that it printed; what went wrong first is what to look at.
            return f"FAILED: {next((line for line in lines if line.startswith('error: ')), lines[-1])}"
        changed = {kind: count for kind, count in sorted(self.changes.items()) if kind != "same" and count}
        return ", ".join(f"{kind} {count}" for kind, count in changed.items()) or "no changes"


def run(names: Sequence[str], operation: Operation, say: Callable[[str], None], *, parallel: int) -> list[Result]:
    """Runs ``operation`` on each stack, at most ``parallel`` at once, and returns the results in the order of names."""

    def one(name: str) -> Result:
        began = time.monotonic()
        say(f"{name}: started")
        try:
            changes = operation(name, lambda line: say(f"{name}: {line}"))
        except Exception as error:  # whatever it is, the other stacks go on
            return Result(name, time.monotonic() - began, {}, str(error) or type(error).__name__)
        return Result(name, time.monotonic() - began, changes)

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


def pulumi(project: Path, verb: str, logs: Path) -> Operation:
    """``pulumi preview`` or ``pulumi up`` through the Automation API; all that it prints goes to a log per stack."""
    logs.mkdir(parents=True, exist_ok=True)

    def operate(name: str, say: Callable[[str], None]) -> dict[str, int]:
        stack = automation.select_stack(name, work_dir=str(project))
        with (logs / f"{name}.log").open("w") as log:

            def keep(line: str) -> None:
                log.write(f"{line}\n")
                if line.lstrip().startswith("error:"):
                    say(line.strip())

            if verb == "preview":
                changes = stack.preview(on_output=keep).change_summary
            else:
                changes = stack.up(on_output=keep).summary.resource_changes or {}
            return {str(kind): count for kind, count in changes.items()}

    return operate


def unfinished(names: Sequence[str], record: Path) -> list[str]:
    """Those of ``names`` that the last run, kept in ``record``, did not bring to a good end."""
    done = set(json.loads(record.read_text())) if record.exists() else set()
    return [name for name in names if name not in done]
