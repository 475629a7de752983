"""`rope_append`: of some rows of a qkv product, norms and rotates queries in place, and stores keys and values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..core.requests import RowColumn
from ..core.target import Target
from .base import Access, Array, Operand, Params, TaskKind
from .math import prepared_heads


@dataclass(frozen=True)
class RopeAppendParams(Params):
    """``rows`` a task. A row of qkv holds the heads of queries, then of keys, then of values. ``norm``: queries and
    keys are RMS-normed per head; ``rotary``: rotated by position."""

    heads: int
    kv_heads: int
    head_dim: int
    page_size: int
    rows: int
    norm: bool
    eps: float
    rotary: bool
    rotary_scaling: float


class RopeAppend(TaskKind[RopeAppendParams]):
    """Grid index is the block of rows."""

    name = "rope_append"
    params_type = RopeAppendParams
    operands = (
        Operand("qkv", Access.READ_WRITE),
        Operand("k_cache", Access.READ_WRITE, appends=True),
        Operand("v_cache", Access.READ_WRITE, appends=True),
        Operand("rows"),
        Operand("page_table"),
        Operand("q_norm", optional=True),
        Operand("k_norm", optional=True),
        Operand("inv_freq", optional=True, early=True),
        Operand("row_count", optional=True, early=True),
    )

    def signature(self, params: RopeAppendParams) -> str:
        shape = (params.heads, params.kv_heads, params.head_dim, params.page_size, params.rows)
        flags = (params.norm, params.rotary)
        return f"mpk::RopeAppend<{', '.join(str(one).lower() for one in (*shape, *flags))}>"

    def body_arguments(self, params: RopeAppendParams) -> tuple[float, ...]:
        return (params.eps, params.rotary_scaling)

    def cost_us(self, params: RopeAppendParams, target: Target) -> float:
        columns = (params.heads + 2 * params.kv_heads) * params.head_dim
        return 4 * params.rows * columns / target.sm_bytes_per_us + target.task_overhead_us

    def reference(self, params: RopeAppendParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        active = np.flatnonzero(views["rows"][:, RowColumn.REQUEST] >= 0)
        state = views["rows"][active]
        request, position = state[:, RowColumn.REQUEST], state[:, RowColumn.POSITION]
        total = params.heads + 2 * params.kv_heads
        heads = views["qkv"][active].reshape(len(active), total, params.head_dim)
        q, k, v = np.split(heads, [params.heads, params.heads + params.kv_heads], axis=1)
        q, k = (prepared_heads(params, views, *one, position) for one in ((q, "q_norm"), (k, "k_norm")))
        views["qkv"][active, : params.heads * params.head_dim] = q.reshape(len(active), params.heads * params.head_dim)
        page = views["page_table"][request, position // params.page_size]
        for name, new in (("k_cache", k), ("v_cache", v)):
            views[name][page, :, position % params.page_size] = new
