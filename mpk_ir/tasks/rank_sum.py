"""`rank_sum`: what all ranks wrote, added in the order of ranks, so that each of them gets the same bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..core.target import Target
from .base import Access, Array, Operand, Params, TaskKind


@dataclass(frozen=True)
class RankSumParams(Params):
    """``columns`` of every row a task sums, the last task up to ``total``. The rows of rank r begin at row r *
    ``rows`` of the slots. Sums are in f32; with ``residual`` it is added behind the ranks. ``y_panel``: rows
    of a panel of residual and y."""

    ranks: int
    columns: int
    rows: int
    total: int
    residual: bool
    y_panel: int = 1


class RankSum(TaskKind[RankSumParams]):
    """Grid index is the block of columns. All operands are bf16."""

    name = "rank_sum"
    params_type = RankSumParams
    operands = (
        Operand("slots", polled=True, tells=True),
        Operand("residual", optional=True, polled=True, tells=True, panel="y_panel"),
        Operand("row_count", optional=True, early=True),
        Operand("y", Access.WRITE, polled=True, tells=True, panel="y_panel"),
    )

    def signature(self, params: RankSumParams) -> str:
        shape = f"{params.ranks}, {params.columns}, {params.rows}, {params.total}"
        return f"mpk::RankSum<{shape}, {str(params.residual).lower()}, {params.y_panel}>"

    def cost_us(self, params: RankSumParams, target: Target) -> float:
        moved_bytes = 2 * (params.ranks + 1) * params.rows * params.columns
        return moved_bytes / target.sm_bytes_per_us + target.task_overhead_us

    def reference(self, params: RankSumParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        slots = views["slots"].reshape(params.ranks, params.rows, -1)
        total = slots[0].astype(np.float32)
        for slot in slots[1:]:
            total = total + slot
        views["y"][...] = total + views["residual"] if params.residual else total
