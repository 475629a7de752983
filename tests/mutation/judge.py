"""Is a damaged plan unsafe? Plain loops over all tasks, and runs of the simulator; no code of the checker."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from itertools import product

import numpy as np
import torch

from mpk_ir.codegen.abi import TaskFlag
from mpk_ir.codegen.program import Program
from mpk_ir.core.dtype import round_to_bf16
from mpk_ir.core.errors import VerificationError
from mpk_ir.runtime.interleaving import Interleaving, Lagging, Priorities, RandomOrder, RunAhead, StarvedSm
from mpk_ir.runtime.simulator import Simulator, SimulatorOptions
from tests.sm.oracle import NaivePlan, Touch
from tests.sm.plans import ROWS, GraphPlan, build, random_params


def _lacks_order(program: Program, plan: NaivePlan) -> bool:
    """Whether two tasks of a queue touch the same unpolled bytes, one writing, and no task from behind the first to the
    second has the flag that makes the warps of the block meet."""
    row_of = sorted(range(len(program.tasks)), key=lambda n: (program.tasks["grid"][n], *program.tasks["index"][n]))
    flagged = [bool(program.tasks["flags"][row] & int(TaskFlag.ORDERED)) for row in row_of]
    touched: dict[int, list[tuple[Hashable, Touch]]] = defaultdict(list)
    for key, touches in plan.touches.items():
        for touch in touches if not plan.buffers[key].polled else []:
            touched[touch.task].append((key, touch))
    for queue in plan.queues.values():
        together: list[tuple[Hashable, Touch]] = []  # what was touched since the warps met
        for task in queue:
            together = [] if flagged[task] else together
            for (key, one), (other, two) in product(touched[task], together):
                if one.grid != two.grid and (one.writes or two.writes) and _same_bytes(plan, (key, one), (other, two)):
                    return True
            together += touched[task]
    return False


def _same_bytes(plan: NaivePlan, one: tuple[Hashable, Touch], other: tuple[Hashable, Touch]) -> bool:
    if one[0] == other[0]:
        return one[1].meets(other[1])
    first, second = plan.buffers[one[0]], plan.buffers[other[0]]
    if first.begin is None or first.end is None or second.begin is None or second.end is None:
        return False
    return first.begin < second.end and second.begin < first.end


def why_unsafe(program: Program) -> str | None:
    """The reason why the tables must not run, None if they may."""
    for number, grid in enumerate(program.grids):
        rows = program.tasks[program.tasks["grid"] == number]["index"].tolist()
        if sorted(tuple(row[: len(grid.extent)]) for row in rows) != list(product(*map(range, grid.extent))):
            return "incomplete"
    busy = len(set(program.tasks["sm"].tolist()))
    if f"kStepArrivals = {busy};" not in program.headers.get("mpk/config.cuh", f"kStepArrivals = {busy};"):
        return "step arrivals"
    plan = NaivePlan.of_tables(program)
    return plan.broken_rule() or ("unordered warps" if _lacks_order(program, plan) else None)


def adversaries() -> list[SimulatorOptions]:
    """Orders and memories that bring faults to light."""
    orders: list[Interleaving] = [
        RandomOrder(0),
        RunAhead(),
        Lagging(most=True),
        StarvedSm(0, RunAhead()),
        StarvedSm(3),
        Priorities(1),
    ]
    strong = [SimulatorOptions(order, shared_arena=True) for order in orders]
    return [*strong, *(SimulatorOptions(o, shared_arena=True, delayed_writes=True) for o in (Lagging(), RunAhead()))]


def run(program: Program, drawn: GraphPlan, options: SimulatorOptions, *, ordered: bool = True) -> np.ndarray | None:
    """Result of two steps; None if the simulator stops. ``ordered=False``: events count but order no memory."""
    params = {name: torch.from_numpy(value) for name, value in random_params(build(drawn), 0).items()}
    x = np.random.default_rng(0).standard_normal((ROWS, drawn.width)).astype(np.float32)
    try:
        simulator = Simulator(program, params, options)
        if simulator._delayed is not None:
            simulator._delayed.ordered = ordered
        simulator.write_state(next(b.name for b in program.buffers if b.space == "input"), round_to_bf16(x))
        simulator.run(3)  # memory and counters are used again
    except (VerificationError, ValueError):  # a buffer outside the arena has no view
        return None
    return simulator.read_state("result0")


def shown_wrong(program: Program, drawn: GraphPlan, expected: np.ndarray) -> bool:
    """Whether some run stops or gives another result than the plan before damage."""
    for options in adversaries():
        found = run(program, drawn, options)
        if found is None or not np.array_equal(found, expected, equal_nan=True):
            return True
    return False
