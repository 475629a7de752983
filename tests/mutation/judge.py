"""Is a damaged plan unsafe? Plain loops over all tasks, and runs of the simulator; no code of the checker."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch

from mpk_ir.codegen.abi import TaskFlag
from mpk_ir.codegen.program import Program
from mpk_ir.core.dtype import round_to_bf16
from mpk_ir.core.errors import VerificationError
from mpk_ir.runtime.interleaving import Interleaving, Lagging, Priorities, RandomOrder, RunAhead, StarvedSm
from mpk_ir.runtime.simulator import Simulator, SimulatorOptions
from tests.sm.oracle import NaivePlan
from tests.sm.plans import ROWS, GraphPlan, build, random_params


def _lacks_order(program: Program) -> bool:
    """Whether a task touches unpolled memory that a grid before wrote, or writes what one read, without the flag."""
    for row in program.tasks:
        if row["flags"] & int(TaskFlag.ORDERED):
            continue
        earlier = [operand for grid in program.grids[: row["grid"]] for operand in grid.operands]
        for mine, other in product(program.grids[row["grid"]].operands, earlier):
            shared = mine.buffer == other.buffer and not program.buffers[mine.buffer].polled
            if shared and (mine.access.writes or other.access.writes):
                return True
    return False


def why_unsafe(program: Program) -> str | None:
    """The reason why the tables must not run, None if they may."""
    for number, grid in enumerate(program.grids):
        rows = program.tasks[program.tasks["grid"] == number]["index"].tolist()
        if sorted(tuple(row[: len(grid.extent)]) for row in rows) != list(product(*map(range, grid.extent))):
            return "incomplete"
    if _lacks_order(program):
        return "unordered warps"
    return NaivePlan.of_tables(program).broken_rule()


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
