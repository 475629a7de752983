"""A task kind and a program small enough to check by hand, for the simulator and the GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mpk_ir.codegen import abi
from mpk_ir.codegen.program import TASK, Buffer, Grid, GridOperand, Launch, Pack, Program
from mpk_ir.core.dtype import F32
from mpk_ir.core.memory import Space
from mpk_ir.core.target import SIM, Target
from mpk_ir.tasks import register
from mpk_ir.tasks.base import Access, Array, Operand, Params, TaskKind

ROWS, COLUMNS = 4, 64


@dataclass(frozen=True)
class ToyAxpyParams(Params):
    factor: float


class ToyAxpy(TaskKind[ToyAxpyParams]):
    """y = factor * a + b, b being optional."""

    name = "toy_axpy"
    params_type = ToyAxpyParams
    operands = (Operand("a"), Operand("b", optional=True), Operand("y", Access.WRITE))

    def signature(self, params: ToyAxpyParams) -> str:
        return "mpk::ToyAxpy"

    def cost_us(self, params: ToyAxpyParams, target: Target) -> float:
        return target.task_overhead_us

    def reference(self, params: ToyAxpyParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        views["y"][...] = params.factor * views["a"] + views.get("b", 0)


register(ToyAxpy())

BUFFERS = (
    Buffer("x", Space.STATE, (ROWS, COLUMNS), F32),
    Buffer("bias", Space.WEIGHT, (ROWS, COLUMNS), F32, pack=Pack(("p.bias",))),
    Buffer("doubled", Space.SCRATCH, (ROWS, COLUMNS), F32, offset_bytes=0),
    Buffer("shifted", Space.SCRATCH, (ROWS, COLUMNS), F32, offset_bytes=ROWS * COLUMNS * 4),
    Buffer("out", Space.OUTPUT, (ROWS, COLUMNS), F32),
)
GRIDS = (
    ("double", 2.0, {"a": "x", "y": "doubled"}),
    ("shift", 1.0, {"a": "doubled", "b": "bias", "y": "shifted"}),
    ("store", 1.0, {"a": "shifted", "y": "out"}),
    ("keep", 1.0, {"a": "shifted", "y": "x"}),
)
PARAMETERS = {"p.bias": np.arange(ROWS * COLUMNS, dtype=np.float32).reshape(ROWS, COLUMNS)}
END = 2
"""The event that ends a step; event g < END counts the finished tasks of grid g."""


def expected(x: Array, num_steps: int) -> Array:
    """What ``num_steps`` steps make of ``x``: each doubles it, adds the bias and moves every row down by one."""
    for _ in range(num_steps):
        x = np.roll(2 * x + PARAMETERS["p.bias"], 1, axis=0)
    return x


def toy_program(num_sms: int = 3, target: Target = SIM, source: str = "") -> Program:
    """One task per row and grid. `store` and `keep` read the row before theirs, so they wait for all of `shift`."""
    names = [buffer.name for buffer in BUFFERS]
    access = {"a": Access.READ, "b": Access.READ, "y": Access.WRITE}
    grids = tuple(
        Grid(
            name=name,
            kind="toy_axpy",
            params={"factor": factor},
            body=number,
            extent=(ROWS,),
            operands=tuple(GridOperand(o, names.index(buffer), access[o]) for o, buffer in operands.items()),
        )
        for number, (name, factor, operands) in enumerate(GRIDS)
    )
    places = [(number, row) for number in range(len(grids)) for row in range(ROWS)]
    tasks = np.concatenate([_task(grids[number], number, row, (number + row) % num_sms) for number, row in places])
    tasks = tasks[np.argsort(tasks["sm"], kind="stable")]
    return Program(
        name="toy",
        target=target,
        buffers=BUFFERS,
        grids=grids,
        bodies=("double", "shift", "store", "keep"),
        tasks=tasks,
        queue_begin=np.searchsorted(tasks["sm"], np.arange(num_sms + 1)).astype(np.int32),
        event_count=np.array([ROWS, ROWS, 2 * ROWS], np.int32),
        event_polled=np.zeros(3, np.bool_),
        event_shared=np.zeros(3, np.bool_),
        event_names=("doubled", "shifted", "step"),
        step_event=END,
        arena_bytes=2 * ROWS * COLUMNS * 4,
        source=source,
        headers={"mpk/abi.cuh": abi.header()},
        launch=Launch("toy", num_sms, 64, 4096, 0),
    )


def _task(grid: Grid, number: int, row: int, sm: int) -> Array:
    task = np.zeros(1, TASK)
    task["grid"], task["index"][0, 0], task["sm"] = number, row, sm
    for position, operand in enumerate(grid.operands):
        reads_row_before = number >= END and operand.name == "a"
        task["offsets"][0, position, 0] = (row - 1) % ROWS if reads_row_before else row
        task["sizes"][0, position, :2] = (1, COLUMNS)
    if number > 0:
        task["num_waits"] = 1
        task["wait_event"][0, 0], task["wait_count"][0, 0] = min(number, END) - 1, ROWS
    task["num_signals"], task["signal_event"][0, 0] = 1, min(number, END)
    return task


def without_wait(program: Program, grid: str) -> Program:
    """``program`` with the waits of one grid's tasks dropped: an unsafe plan."""
    tasks = program.tasks.copy()
    number = next(n for n, g in enumerate(program.grids) if g.name == grid)
    tasks["num_waits"][tasks["grid"] == number] = 0
    return replace(program, tasks=tasks)
