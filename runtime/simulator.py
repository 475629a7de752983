"""A program on virtual SMs: the GPU's own tables, bodies in numpy, turns taken in any order the events allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from ..codegen.memory_model import orders_memory
from ..codegen.program import Grid, Program
from ..core.dtype import BF16, round_to_bf16
from ..core.errors import VerificationError
from ..tasks import task_kind
from .engine import host_buffer, host_names, require_shape
from .interleaving import Interleaving, RandomOrder
from .simulated_memory import SimulatedMemory
from .timeout import event_name, task_name
from .turns import Blocked, QueuedTask, Turns
from .visibility import DelayedVisibility, Target
from .weights import Parameters

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class SimulatorOptions:
    """``storage_rounding``: what a task writes to a bf16 buffer is rounded, as on the GPU. ``shared_arena``: scratch
    buffers overlap as planned, so that memory reused too early shows; else each is its own. ``delayed_writes``: an SM
    sees what another wrote when an event orders it and no earlier, so that a missing wait or fence shows."""

    interleaving: Interleaving = field(default_factory=RandomOrder)
    storage_rounding: bool = False
    shared_arena: bool = False
    delayed_writes: bool = False


class Simulator:
    """An `Engine` on the CPU. Raises CheckpointError for weights that don't fit; `run` raises VerificationError."""

    def __init__(self, program: Program, parameters: Parameters, options: SimulatorOptions | None = None) -> None:
        self.program = program
        self.options = options or SimulatorOptions()
        self._memory = SimulatedMemory.allocate(program, parameters, shared_arena=self.options.shared_arena)
        self._delayed: DelayedVisibility | None = None
        if self.options.delayed_writes:
            self._delayed = DelayedVisibility(self._memory, program, ordered=orders_memory(program.headers))
        self._params = [task_kind(grid.kind).params_from(grid.params) for grid in program.grids]
        bounds = program.queue_begin.tolist()
        queues = [
            [self._task(number, sm, first=number == begin) for number in range(begin, end)]
            for sm, (begin, end) in enumerate(pairwise(bounds))
        ]
        step_wait = (program.step_event, int(program.event_count[program.step_event]))
        counters, order = len(program.event_count), self.options.interleaving
        end_step = self._memory.poison if self._delayed is None else lambda: None  # views are poisoned one by one
        self._turns = Turns(queues, counters, step_wait, order, end_step)

    @property
    def device_name(self) -> str:
        return f"simulator of {len(self._turns.queues)} SMs"

    def names(self) -> tuple[str, ...]:
        return host_names(self.program)

    def read_state(self, name: str) -> Array:
        return self._memory.arrays[host_buffer(self.program, name).name].copy()

    def write_state(self, name: str, values: Array) -> None:
        buffer = host_buffer(self.program, name)
        require_shape(buffer, values)
        self._memory.arrays[name][...] = round_to_bf16(values) if buffer.dtype == BF16 else values

    def run(self, num_steps: int) -> None:
        """Run ``num_steps`` steps. Raises VerificationError if SMs wait for each other, or a body fails."""
        self._memory.poison()
        if self._delayed is not None:
            self._delayed.begin_run()
        with np.errstate(all="ignore"):  # rows without a request hold anything
            stuck = self._turns.run(num_steps)
        if self._delayed is not None:
            self._delayed.end_run()
        if stuck:
            raise _stall(self.program, stuck)

    def synchronize(self) -> None:
        """Nothing to wait for: `run` returns when its steps are done."""

    def _task(self, number: int, sm: int, *, first: bool) -> QueuedTask:
        row = self.program.tasks[number]
        num_waits, num_signals = row["num_waits"], row["num_signals"]
        waits = tuple(zip(row["wait_event"][:num_waits].tolist(), row["wait_count"][:num_waits].tolist(), strict=True))
        signals = tuple(row["signal_event"][:num_signals].tolist())
        grid, delayed = self.program.grids[row["grid"]], self._delayed
        boxes = self._boxes(grid, row, self._memory if delayed is None else delayed.views[sm])
        if delayed is None:
            return QueuedTask(number, self._body(number, grid, row, boxes), waits, signals)
        declared = task_kind(grid.kind)
        early = {o.name: boxes[o.name].copy() for o in grid.operands if declared.operand(o.name).early}
        body, targets = self._body(number, grid, row, boxes | early), self._targets(grid, row)

        def run() -> None:
            if first:
                delayed.begin_step(sm, self.program.step_event)
            for name, copy in early.items():  # the body reads these before it waits
                copy[...] = boxes[name]
            delayed.acquire(sm, [event for event, _ in waits])
            delayed.run(sm, body, targets)
            delayed.release(sm, signals)

        return QueuedTask(number, run, waits, signals)

    def _targets(self, grid: Grid, row: Any) -> list[Target]:
        return [
            Target(
                self.program.buffers[operand.buffer].name,
                self._slices(operand.buffer, row["offsets"][position], row["sizes"][position]),
                partial=any(dim >= 0 for dim in operand.along),
            )
            for position, operand in enumerate(grid.operands)
            if operand.access.writes
        ]

    def _boxes(self, grid: Grid, row: Any, memory: SimulatedMemory) -> dict[str, Array]:
        """Per operand the part of ``memory`` that the task touches."""
        return {
            operand.name: memory.arrays[self.program.buffers[operand.buffer].name][
                self._slices(operand.buffer, row["offsets"][position], row["sizes"][position])
            ]
            for position, operand in enumerate(grid.operands)
        }

    def _body(self, number: int, grid: Grid, row: Any, boxes: dict[str, Array]) -> Callable[[], None]:
        index = tuple(row["index"][: len(grid.extent)].tolist())
        meaning = partial(task_kind(grid.kind).reference, self._params[row["grid"]], boxes, index)
        rounded: list[Array] = []
        if self.options.storage_rounding:
            stored = [o for o in grid.operands if o.access.writes and self.program.buffers[o.buffer].dtype == BF16]
            rounded = [boxes[operand.name] for operand in stored]
        return partial(_run_body, self.program, number, meaning, rounded)

    def _slices(self, buffer: int, offsets: Array, sizes: Array) -> tuple[slice, ...]:
        begin, end = offsets.tolist(), (offsets + sizes).tolist()
        return tuple(slice(begin[axis], end[axis]) for axis in range(len(self.program.buffers[buffer].shape)))


def _run_body(program: Program, number: int, meaning: Callable[[], None], rounded: list[Array]) -> None:
    try:
        meaning()
    except (IndexError, ValueError) as error:  # what garbage indices and misshapen boxes raise
        raise VerificationError(f"{task_name(program, number)} failed: {error}") from error
    for box in rounded:
        box[...] = round_to_bf16(box)


def _stall(program: Program, stuck: list[Blocked]) -> VerificationError:
    lines = [
        f"  SM {b.sm}, step {b.step}: {task_name(program, -1 if b.task is None else b.task)} waits for event "
        f"{event_name(program, b.event)}: count {b.count}, target {b.target}"
        for b in stuck
    ]
    return VerificationError("\n".join([f"deadlock: {len(stuck)} SMs cannot go on", *lines]))
