"""`expert_sum`: the results of a row's experts, weighted and added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..core.target import Target
from .base import Access, Array, Operand, Params, TaskKind
from .math import active_rows


@dataclass(frozen=True)
class ExpertSumParams(Params):
    """``columns`` of ``total`` columns a task, of ``slots`` experts a row that lie side by side."""

    slots: int
    columns: int
    rows: int
    total: int


class ExpertSum(TaskKind[ExpertSumParams]):
    """Grid index is the block of columns. Adds in order of slots."""

    name = "expert_sum"
    params_type = ExpertSumParams
    operands = (
        Operand("x"),
        Operand("weights"),
        Operand("row_count", optional=True, early=True),
        Operand("y", Access.WRITE),
    )

    def signature(self, params: ExpertSumParams) -> str:
        return f"mpk::ExpertSum<{params.slots}, {params.columns}, {params.rows}, {params.total}>"

    def cost_us(self, params: ExpertSumParams, target: Target) -> float:
        return 2 * params.rows * params.columns * (params.slots + 1) / target.sm_bytes_per_us + target.task_overhead_us

    def reference(self, params: ExpertSumParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        rows = active_rows(views, params.rows)
        first = index[0] * params.columns
        mine = slice(first, min(first + params.columns, params.total))
        parts = views["x"][:rows].reshape(rows, params.slots, params.total)[:, :, mine]
        total = views["weights"][:rows, 0, None] * parts[:, 0]
        for slot in range(1, params.slots):
            total = total + views["weights"][:rows, slot, None] * parts[:, slot]
        views["y"][:rows] = total
