"""Tests wait for facts, and do not sleep."""

import time
from collections.abc import Callable


def wait_for(fact: Callable[[], object], problem: str) -> None:
    """Returns when the fact is true. The limit only stops a test that would never end, so it is long."""
    deadline = time.monotonic() + 60
    while not fact():
        assert time.monotonic() < deadline, problem
        time.sleep(0.05)
