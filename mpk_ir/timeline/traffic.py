"""Bytes of device memory that each task moves, read off a program's tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..codegen.program import Program
from ..core.memory import STAGE_BYTES, Space
from ..core.ranks import TO_ALL
from ..tasks import task_kind
from ..tasks.work import Load, work_of

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Demand:
    """Per task: bytes that the loader streams ahead of the wait, and how many of the ring they occupy; whether it waits
    for the begin of the step with that; what the consumers then need (see `Work`), with the stores to other ranks;
    bytes that links carry of these, which are as many if one store reaches all; activations loaded again meanwhile."""

    streamed_bytes: FloatArray
    ring_bytes: FloatArray
    of_this_step: BoolArray
    cache_bytes: FloatArray
    activation_us: FloatArray
    compute_us: FloatArray
    tail_us: FloatArray
    pushed_bytes: FloatArray
    reread_bytes: FloatArray

    @staticmethod
    def none(tasks: int) -> Demand:
        """Of ``tasks`` that ask for nothing."""
        a, b, c, d, e, f, g, h = (np.zeros(tasks) for _ in range(8))
        return Demand(a, b, np.zeros(tasks, np.bool_), c, d, e, f, g, h)


def demand(program: Program, load: Load) -> Demand:
    """What every task of ``program`` asks of its SM under ``load``."""
    tasks = program.tasks
    found = Demand.none(len(tasks))
    rows_of = np.argsort(tasks["grid"], kind="stable")
    bounds = np.searchsorted(tasks["grid"][rows_of], np.arange(len(program.grids) + 1))
    for number, grid in enumerate(program.grids):
        mine = rows_of[bounds[number] : bounds[number + 1]]
        kind = task_kind(grid.kind)
        work = work_of(kind, kind.params_from(grid.params), tasks["index"][mine], load, program.target)
        found.compute_us[mine], found.activation_us[mine] = work.compute_us, work.activation_us
        found.tail_us[mine], found.of_this_step[mine] = work.tail_us, work.prefetched
        found.reread_bytes[mine] = work.reread_bytes
        (found.streamed_bytes if work.prefetched else found.cache_bytes)[mine] = work.cache_bytes
        for slot, operand in enumerate(grid.operands):
            buffer = program.buffers[operand.buffer]
            if operand.pushed:
                sizes = tasks["sizes"][mine, slot, :2].astype(np.int64)
                sent = np.minimum(sizes[:, 0], load.rows) * sizes[:, 1] * buffer.dtype.bytes
                reached = _others_reached(program, tasks["push_to"][mine])
                found.pushed_bytes[mine] += sent * reached
                stores = (
                    1.0 if operand.multicast else reached * program.ranks / (program.ranks - 1)
                )  # its own memory, too
                found.compute_us[mine] += sent * stores / program.target.costs.small_bytes_per_us
            if kind.operand(operand.name).streamed and buffer.space is Space.WEIGHT:  # caches are ``cache_bytes``
                sizes = tasks["sizes"][mine, slot, : len(buffer.shape)].astype(np.int64)
                found.streamed_bytes[mine] += sizes.prod(axis=1) * buffer.dtype.bytes
        if kind.streams:
            stages = kind.least_stages(kind.params_from(grid.params), tasks["index"][mine].astype(np.int64))
            found.ring_bytes[mine] = np.maximum(stages * STAGE_BYTES, found.streamed_bytes[mine])
    return found


def _others_reached(program: Program, push_to: np.ndarray[Any, Any]) -> FloatArray:
    """[tasks]: to how many other ranks each sends what it pushes; over all ranks, if it sends to one of them."""
    others = program.ranks - 1
    return np.where(push_to == TO_ALL, others, others / program.ranks)


def moved_bytes(program: Program, load: Load) -> FloatArray:
    """[tasks]: weights and caches that a task moves; activations stay in the second-level cache."""
    asked = demand(program, load)
    return asked.streamed_bytes + asked.cache_bytes
