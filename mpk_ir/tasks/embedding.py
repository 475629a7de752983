"""`embedding`: the table row of each row's token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..core.memory import Layout
from ..core.requests import RowColumn
from ..core.target import Target
from .base import Access, Array, Operand, Params, TaskKind
from .math import active_rows


@dataclass(frozen=True)
class EmbeddingParams(Params):
    """``rows`` and ``columns`` a task. ``stride`` is the number of columns of ``ids``, whose buffer may have more;
    ``packed``: the table is in `Layout.MMA_ROWS_16`, because it is the weight of the output head too. ``y_panel``: rows
    of a panel."""

    columns: int
    rows: int
    stride: int
    packed: bool
    y_panel: int = 1


class Embedding(TaskKind[EmbeddingParams]):
    """Grid index is (block of rows, block of columns). A token outside the table is a bug of the caller: ids are
    checked there."""

    name = "embedding"
    params_type = EmbeddingParams
    operands = (
        Operand("table"),
        Operand("ids"),
        Operand("row_count", optional=True, early=True),
        Operand("y", Access.WRITE, polled=True, tells=True, panel="y_panel"),
    )

    def layout(self, params: EmbeddingParams, operand: Operand) -> Layout:
        packed = params.packed and operand.name == "table"
        return Layout.MMA_ROWS_16 if packed else super().layout(params, operand)

    def signature(self, params: EmbeddingParams) -> str:
        return f"mpk::Embedding<{params.columns}, {params.rows}, {str(params.packed).lower()}, {params.y_panel}>"

    def cost_us(self, params: EmbeddingParams, target: Target) -> float:
        return 2 * params.rows * params.columns * 2 / target.sm_bytes_per_us + target.task_overhead_us

    def reference(self, params: EmbeddingParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        ids = views["ids"].reshape(-1, params.stride)[:, RowColumn.TOKEN]
        first_row = index[0] * params.rows
        count = max(active_rows(views, first_row + params.rows) - first_row, 0)
        first = index[1] * params.columns
        views["y"][:count] = views["table"][ids[:count], first : first + params.columns]
