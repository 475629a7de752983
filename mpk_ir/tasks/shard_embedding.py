"""`shard_embedding`: the table row of each row's token where this rank holds it, else zeros."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..core.memory import Layout
from ..core.requests import RowColumn
from ..core.target import Target
from .base import Access, Array, Operand, Params, TaskKind
from .math import active_rows


@dataclass(frozen=True)
class ShardEmbeddingParams(Params):
    """``rows`` and ``columns`` a task. ``stride`` is the number of columns of ``ids``, whose buffer may have more;
    ``packed``: the table is in `Layout.MMA_ROWS_16`. This rank holds ``tokens`` rows of the table, from the one that
    operand ``first`` [1] names."""

    columns: int
    rows: int
    stride: int
    packed: bool
    tokens: int


class ShardEmbedding(TaskKind[ShardEmbeddingParams]):
    """Grid index is (block of rows, block of columns)."""

    name = "shard_embedding"
    params_type = ShardEmbeddingParams
    operands = (
        Operand("table"),
        Operand("ids"),
        Operand("first"),
        Operand("row_count", optional=True, early=True),
        Operand("y", Access.WRITE, polled=True, tells=True),
    )

    def layout(self, params: ShardEmbeddingParams, operand: Operand) -> Layout:
        packed = params.packed and operand.name == "table"
        return Layout.MMA_ROWS_16 if packed else super().layout(params, operand)

    def signature(self, params: ShardEmbeddingParams) -> str:
        shape = f"{params.columns}, {params.rows}, {str(params.packed).lower()}"
        return f"mpk::ShardEmbedding<{shape}, {params.tokens}>"

    def cost_us(self, params: ShardEmbeddingParams, target: Target) -> float:
        return 2 * params.rows * params.columns * 2 / target.sm_bytes_per_us + target.task_overhead_us

    def reference(self, params: ShardEmbeddingParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        ids = views["ids"].reshape(-1, params.stride)[:, RowColumn.TOKEN]
        first_row = index[0] * params.rows
        count = max(active_rows(views, first_row + params.rows) - first_row, 0)
        local = ids[:count] - int(views["first"][0])
        mine = (local >= 0) & (local < params.tokens)
        first = index[1] * params.columns
        rows = views["table"][np.where(mine, local, 0), first : first + params.columns]
        views["y"][:count] = np.where(mine[:, None], rows, np.float32(0))
