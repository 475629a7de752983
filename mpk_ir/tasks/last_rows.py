"""`last_rows`: of each request that has rows in the step, the last one: from it the next token is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..core.memory import Layout
from ..core.requests import last_rows
from ..core.target import Target
from .base import Access, Array, Operand, Params, TaskKind


@dataclass(frozen=True)
class LastRowsParams(Params):
    """``columns`` of ``batch`` requests. ``block_rows``: those of a block of x, if x is in `Layout.K_BLOCKS_64`."""

    columns: int
    batch: int
    block_rows: int = 0


class LastRows(TaskKind[LastRowsParams]):
    """One task. Row i of y is the last row of the i-th request that has any; rows behind those are zero."""

    name = "last_rows"
    params_type = LastRowsParams
    operands = (
        Operand("x"),
        Operand("requests"),
        Operand("row_count", optional=True, early=True),
        Operand("y", Access.WRITE),
    )

    def layout(self, params: LastRowsParams, operand: Operand) -> Layout:
        blocked = params.block_rows > 0 and operand.name == "x"
        return Layout.K_BLOCKS_64 if blocked else super().layout(params, operand)

    def signature(self, params: LastRowsParams) -> str:
        return f"mpk::LastRows<{params.columns}, {params.batch}, {params.block_rows}>"

    def cost_us(self, params: LastRowsParams, target: Target) -> float:
        return 4 * params.batch * params.columns / target.sm_bytes_per_us + target.task_overhead_us

    def reference(self, params: LastRowsParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        chosen = last_rows(views["requests"])
        views["y"][...] = 0.0
        views["y"][: len(chosen)] = views["x"][chosen]
