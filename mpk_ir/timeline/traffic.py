"""Bytes of device memory that each task moves, read off a program's tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..codegen.program import Program
from ..core.memory import Space
from ..tasks import task_kind
from ..tasks.work import Load, work_of

FloatArray = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Demand:
    """Per task: bytes of weights the loader streams ahead of the wait; what the consumers then need (see `Work`)."""

    streamed_bytes: FloatArray
    cache_bytes: FloatArray
    activation_us: FloatArray
    compute_us: FloatArray


def demand(program: Program, load: Load) -> Demand:
    """What every task of ``program`` asks of its SM under ``load``."""
    tasks = program.tasks
    found = Demand(*(np.zeros(len(tasks)) for _ in range(4)))
    rows_of = np.argsort(tasks["grid"], kind="stable")
    bounds = np.searchsorted(tasks["grid"][rows_of], np.arange(len(program.grids) + 1))
    for number, grid in enumerate(program.grids):
        mine = rows_of[bounds[number] : bounds[number + 1]]
        kind = task_kind(grid.kind)
        work = work_of(kind, kind.params_from(grid.params), tasks["index"][mine], load, program.target)
        found.compute_us[mine], found.activation_us[mine] = work.compute_us, work.activation_us
        found.cache_bytes[mine] = work.cache_bytes
        for slot, operand in enumerate(grid.operands):
            buffer = program.buffers[operand.buffer]
            if kind.operand(operand.name).streamed and buffer.space is Space.WEIGHT:  # caches are ``cache_bytes``
                sizes = tasks["sizes"][mine, slot, : len(buffer.shape)].astype(np.int64)
                found.streamed_bytes[mine] += sizes.prod(axis=1) * buffer.dtype.bytes
    return found


def moved_bytes(program: Program, load: Load) -> FloatArray:
    """[tasks]: weights and caches that a task moves; activations stay in the second-level cache."""
    asked = demand(program, load)
    return asked.streamed_bytes + asked.cache_bytes
