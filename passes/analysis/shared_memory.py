"""How much of a block's shared memory bodies need as scratch, and how many stages of a ring the rest holds."""

from __future__ import annotations

from ...core.memory import MAX_STAGES, STAGE_BYTES, shared_bytes
from ...core.target import target_of
from ...dialects.sm import GraphOp

SCRATCH_ALIGNMENT_BYTES = 128


def scratch_bytes(graph: GraphOp) -> int:
    """Of one half: what the body that needs most needs."""
    most = max((grid.task_kind.scratch_bytes(grid.task_params) for grid in graph.grids), default=0)
    return -(-most // SCRATCH_ALIGNMENT_BYTES) * SCRATCH_ALIGNMENT_BYTES


def ring_stages(graph: GraphOp) -> int:
    """The most that fit beside both halves of scratch and are of use."""
    limit_bytes = target_of(graph.target.data).shared_memory_bytes
    return min(MAX_STAGES, (limit_bytes - shared_bytes(0, STAGE_BYTES, scratch_bytes(graph))) // STAGE_BYTES)
