"""`kv_append`: keys or values of the step's rows stored in a paged cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..core.requests import RowColumn
from ..core.target import Target
from .base import Access, Array, Operand, Params, TaskKind


@dataclass(frozen=True)
class KvAppendParams(Params):
    """One KV head of ``head_dim`` columns."""

    head_dim: int
    page_size: int
    rows: int


class KvAppend(TaskKind[KvAppendParams]):
    """Grid index is the KV head."""

    name = "kv_append"
    params_type = KvAppendParams
    operands = (
        Operand("cache", Access.READ_WRITE, appends=True),
        Operand("new"),
        Operand("rows"),
        Operand("page_table"),
    )

    def signature(self, params: KvAppendParams) -> str:
        return f"mpk::KvAppend<{params.head_dim}, {params.page_size}, {params.rows}>"

    def cost_us(self, params: KvAppendParams, target: Target) -> float:
        return 4 * params.rows * params.head_dim / target.sm_bytes_per_us + target.task_overhead_us

    def reference(self, params: KvAppendParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        rows = views["rows"]
        active = np.flatnonzero(rows[:, RowColumn.REQUEST] >= 0)
        request, position = rows[active, RowColumn.REQUEST], rows[active, RowColumn.POSITION]
        page = views["page_table"][request, position // params.page_size]
        views["cache"][page, 0, position % params.page_size] = views["new"][active]
