"""A preview without changes: ours, and a flat program that declares the same resources.

The flat program is made of our stack's state, see ``bench.flat``. It is the least that a preview of these resources can
cost, because it looks up only the cluster and the image, validates nothing and knows all other values.
"""

import tempfile
from pathlib import Path

from pulumi import automation

from bench.flat import flat
from bench.measure import Cost, Results, cost, ratio, side_by_side
from sandbox import engine
from sandbox.control_plane import ControlPlane
from tests.e2e.world import new_world

TIMES = 5


def measure(results: Results) -> None:
    engine.install()
    with (
        tempfile.TemporaryDirectory() as folder,
        ControlPlane.start(Path(folder, "control-plane")) as plane,
        new_world(plane, Path(folder, "calls")) as world,
    ):
        world.stack.up()
        state = world.stack.export_stack()
        program, flat_state = flat(state.deployment or {})
        project = Path(folder, "flat")
        project.mkdir()
        (project / "__main__.py").write_text(program)
        (project / "Pulumi.yaml").write_text(f"name: {engine.PROJECT}\nruntime: python\n")
        config = {key: value for key, value in engine.configuration("dev").items() if "teleport-eks:" not in key}
        with engine.throwaway("dev", world.account, config, project) as other:
            other.import_stack(automation.Deployment(state.version, flat_state))
            ours, theirs = side_by_side([lambda: _preview(world.stack), lambda: _preview(other)], TIMES)
    for name, unit in (("wall", "s"), ("cpu", "s"), ("memory", "MiB")):
        ones, others = ([getattr(each, name) for each in runs] for runs in (ours, theirs))
        results.median(f"preview.{name}", ones, unit)
        most = {"wall": 1.05, "memory": 1.10}.get(name)
        results.add(f"preview.{name}-to-flat", ratio(ones, others), "ratio", most=most)


def _preview(stack: automation.Stack) -> Cost:
    def run() -> None:
        changes = stack.preview().change_summary
        if set(changes) != {automation.OpType.SAME}:
            raise RuntimeError(f"a preview without changes has changes: {changes}")

    # Of the processes, the one that runs the program is the language host, or is started by it.
    return cost(run, of="language")
