"""Previews of many stacks at once, as `make fleet-preview` runs them, against one preview alone."""

import os
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bench.measure import Cost, Curve, Results, cost
from fleet.run import Result, pulumi, run
from sandbox import engine
from sandbox.account import Account, made_up

SIZES = (1, 10, 50)
PARALLEL = os.cpu_count() or 1


def measure(results: Results) -> None:
    engine.install()
    good = engine.configuration("dev") | engine.NO_CLUSTER
    bad = good | {f"{engine.PROJECT}:acmeEmail": "nobody"}
    with made_up() as account:
        _, mixed = _preview(account, [good, bad, good, bad])
        (expected, *_), failed = mixed, [bool(result.error) for result in mixed]
        wrong = failed != [False, True, False, True] or mixed[2].changes != expected.changes
        results.add("fleet.wrong-summaries-when-some-fail", wrong, "summaries", most=0)
        took = {size: _preview(account, [good] * size)[0] for size in SIZES}
        alone = sorted((took[1], *(_preview(account, [good])[0] for _ in range(4))), key=lambda each: each.cpu)[2]
    results.add("fleet.1-stack.cpu", alone.cpu, "s")
    for size in SIZES[1:]:
        many = took[size]
        results.add(f"fleet.{size}-stacks.wall", many.wall, "s")
        results.add(f"fleet.{size}-stacks.throughput-per-core-to-one", alone.cpu * size / many.cpu, "ratio", least=0.9)
        results.add(f"fleet.{size}-stacks.memory-of-a-worker-to-one", many.memory / alone.memory, "ratio", most=1.05)
    points = [(float(size), each.wall) for size, each in took.items()]
    title = f"Previews of many stacks, {PARALLEL} at a time"
    results.curve(Curve("fleet", title, "stacks", "s", {"ours": points}))


def _preview(account: Account, configs: list[Mapping[str, Any]]) -> tuple[Cost, list[Result]]:
    opened = {f"stack-{number}": partial(engine.throwaway, config=config) for number, config in enumerate(configs)}
    found: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        operation = pulumi("preview", lambda name: opened[name](name, account), Path(folder), {})
        took = cost(
            lambda: found.extend(run([*opened], operation, lambda _: None, parallel=PARALLEL)),
            of="language",
        )
    return took, found
