"""`block_rows`: rows, normed or as they are, in the order in which wgmma takes them from shared memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..core.memory import Layout
from ..core.target import Target
from .base import Access, Array, Operand, Params, TaskKind
from .math import rms_scale


@dataclass(frozen=True)
class BlockRowsParams(Params):
    """``rows`` of ``total_rows`` a task, each of ``columns``; with ``norm`` divided by their root mean square, times
    the weight. y is in `Layout.K_BLOCKS_64`."""

    columns: int
    rows: int
    total_rows: int
    norm: bool
    eps: float


class BlockRows(TaskKind[BlockRowsParams]):
    """Grid index is the block of rows."""

    name = "block_rows"
    params_type = BlockRowsParams
    operands = (
        Operand("x"),
        Operand("weight", optional=True),
        Operand("row_count", optional=True, early=True),
        Operand("y", Access.WRITE, layout=Layout.K_BLOCKS_64),
    )

    def signature(self, params: BlockRowsParams) -> str:
        shape = f"{params.columns}, {params.rows}, {params.total_rows}"
        return f"mpk::BlockRows<{shape}, {str(params.norm).lower()}>"

    def body_arguments(self, params: BlockRowsParams) -> tuple[float, ...]:
        return (params.eps,)

    def cost_us(self, params: BlockRowsParams, target: Target) -> float:
        return 4 * params.rows * params.columns / target.sm_bytes_per_us + target.task_overhead_us

    def reference(self, params: BlockRowsParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        x = views["x"]
        views["y"][...] = x * rms_scale(x, params.eps) * views["weight"] if params.norm else x
