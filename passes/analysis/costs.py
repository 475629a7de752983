"""What the tasks of a grid take: the cost model, task by task."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from ...core.dtype import dtype_of
from ...core.memory import Space
from ...core.target import Target
from ...dialects.sm import BufferOp, BufferType, GraphOp, GridOp
from ...dialects.sm.expansion import box_bounds, task_indices
from ...tasks.work import Load, work_of

FloatArray: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


class TaskCosts:
    """Costs of grids under one load, computed once for equal ones: layers repeat."""

    def __init__(self, target: Target, load: Load) -> None:
        self._target, self._load = target, load
        self._known: dict[tuple[Any, ...], tuple[FloatArray, FloatArray]] = {}

    def of(self, grid: GridOp) -> tuple[FloatArray, FloatArray]:
        """([tasks], [tasks]): microseconds that weights and caches take to stream, and the consumers' work."""
        key = (grid.kind, grid.params, grid.extent, grid.boxes, tuple(value.type for value in grid.data))
        if key not in self._known:
            kind, count = grid.task_kind, grid.num_tasks
            work = work_of(kind, grid.task_params, task_indices(grid), self._load, self._target)
            work_us = np.broadcast_to(np.asarray(work.activation_us + work.compute_us, np.float64), (count,))
            moved = np.broadcast_to(np.asarray(work.cache_bytes, np.float64), (count,)) + _weight_bytes(grid)
            self._known[key] = moved / self._target.sm_bytes_per_us, work_us
        return self._known[key]


def load_of(graph: GraphOp, context: int) -> Load:
    """The load of a step of ``graph``: a row for each of its requests, ``context`` positions in each one's cache."""
    rows: Any = graph.metadata.data.get("batch")
    return Load(rows.value.data if rows is not None else 1, context)


def _weight_bytes(grid: GridOp) -> FloatArray:
    """[tasks]: weights that the loader brings."""
    total = np.zeros(grid.num_tasks)
    for operand, (name, value) in enumerate(zip(grid.operand_names, grid.data, strict=True)):
        if not grid.task_kind.operand(name.data).streamed:
            continue
        if isinstance(value.owner, BufferOp) and value.owner.space.data is Space.STATE:  # as much as is filled
            continue
        assert isinstance(value.type, BufferType)
        low, high = box_bounds(grid, operand)
        total += (high - low).prod(axis=1) * dtype_of(str(value.type.element_type)).bytes
    return total
