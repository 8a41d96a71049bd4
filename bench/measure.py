"""How the benchmarks measure: figures and curves, and what a run of other processes takes."""

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")

TICK = 0.1  # seconds between two looks at the processes; what is read there only grows


@dataclass(frozen=True)
class Goal:
    """``at`` most, or at least."""

    at: float
    least: bool = False

    def is_met(self, value: float) -> bool:
        return value >= self.at if self.least else value <= self.at

    def __str__(self) -> str:
        return f"{'≥' if self.least else '≤'} {self.at:g}"


@dataclass(frozen=True)
class Figure:
    name: str
    value: float
    unit: str
    goal: Goal | None = None

    def __str__(self) -> str:
        return f"{self.name} {self.amount} {self.unit}"

    @property
    def amount(self) -> str:
        return f"{self.value:.0f}" if self.value >= 1000 else f"{self.value:.3g}"


@dataclass(frozen=True)
class Curve:
    """One plot: by the name of each line, its points."""

    name: str
    title: str
    x: str
    y: str
    lines: dict[str, list[tuple[float, float]]]


@dataclass
class Results:
    figures: list[Figure] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)

    def add(self, name: str, value: float, unit: str, *, most: float | None = None, least: float | None = None) -> None:
        """Prints a figure at once. ``most`` or ``least`` is its goal."""
        goal = Goal(most) if most is not None else Goal(least, least=True) if least is not None else None
        self.figures.append(Figure(name, value, unit, goal))
        print(self.figures[-1], flush=True)

    def curve(self, curve: Curve) -> None:
        self.curves.append(curve)

    def median(self, name: str, values: Sequence[float], unit: str, **goal: float) -> None:
        self.add(name, statistics.median(values), unit, **goal)


@dataclass(frozen=True)
class Cost:
    """What a run took: seconds by the clock, and of its processes the CPU seconds and the largest memory in MiB.

    ``memory`` is that of the processes whose command line has the word that the caller is interested in.
    """

    wall: float
    cpu: float
    memory: float


def cost(run: Callable[[], object], of: str = "") -> Cost:
    """What ``run`` takes in the processes that it starts, directly or not. ``of``: whose memory counts, see Cost."""
    me, before = psutil.Process(), {p.pid for p in psutil.Process().children(recursive=True)}
    cpu: dict[int, float] = {}
    memory: dict[int, float] = {}
    done = threading.Event()

    def watch() -> None:
        while True:
            last = done.is_set()
            for process in me.children(recursive=True):
                try:
                    if process.pid in before:
                        continue
                    times = process.cpu_times()
                    cpu[process.pid] = times.user + times.system
                    if of in " ".join(process.cmdline()):
                        status = Path(f"/proc/{process.pid}/status").read_text()
                        memory[process.pid] = int(status.partition("VmHWM:")[2].split()[0]) / 1024
                except (psutil.Error, OSError, IndexError):
                    continue  # it has just ended
            if last:
                return
            done.wait(TICK)

    watcher = threading.Thread(target=watch)
    began = time.monotonic()
    watcher.start()
    try:
        run()
        wall = time.monotonic() - began
    finally:
        done.set()
        watcher.join()
    return Cost(wall, sum(cpu.values()), max(memory.values(), default=0))


def side_by_side(runs: Sequence[Callable[[], T]], times: int) -> list[list[T]]:
    """The results of each of ``runs``, which take turns, so that another load on the machine falls on all of them."""
    found: list[list[T]] = [[] for _ in runs]
    for turn in range(times):
        for index in range(len(runs)) if turn % 2 == 0 else reversed(range(len(runs))):
            found[index].append(runs[index]())
    return found


def ratio(ones: Sequence[float], others: Sequence[float]) -> float:
    """The median of the ratios of each pair."""
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))
