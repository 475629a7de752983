"""How much of a block's shared memory bodies need as scratch, and how many stages of a ring the rest holds."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from ...core.memory import MAX_STAGES, STAGE_BYTES, Space, shared_bytes
from ...core.target import target_of
from ...dialects.sm import BufferOp, GraphOp, GridOp
from ...dialects.sm.expansion import task_indices

IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
SCRATCH_ALIGNMENT_BYTES = 128


def scratch_bytes(graph: GraphOp) -> int:
    """Of one half: what the body that needs most needs."""
    most = max((grid.task_kind.scratch_bytes(grid.task_params) for grid in graph.grids), default=0)
    return -(-most // SCRATCH_ALIGNMENT_BYTES) * SCRATCH_ALIGNMENT_BYTES


def ring_stages(graph: GraphOp) -> int:
    """The most that fit beside both halves of scratch and are of use."""
    limit_bytes = target_of(graph.target.data).shared_memory_bytes
    return min(MAX_STAGES, (limit_bytes - shared_bytes(0, STAGE_BYTES, scratch_bytes(graph))) // STAGE_BYTES)


def least_stages(grid: GridOp) -> IntArray:
    """[tasks]: the fewest stages that the loader fills for each."""
    kind = grid.task_kind
    if not kind.streams:
        return np.zeros(grid.num_tasks, np.int64)
    return np.asarray(kind.least_stages(grid.task_params, task_indices(grid)), np.int64)


def streams_state(grid: GridOp) -> bool:
    """Whether the loader of a task of ``grid`` waits for the step before."""
    return any(
        grid.task_kind.operand(name.data).streamed
        and isinstance(value.owner, BufferOp)
        and value.owner.space.data is Space.STATE
        for name, value in zip(grid.operand_names, grid.data, strict=True)
    )
