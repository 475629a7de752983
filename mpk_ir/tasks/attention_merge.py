"""`attention_merge`: the splits of one query head's attention put together, in order of position."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..core.target import Target
from .base import CONSUMER_THREADS, Access, Array, Operand, Params, TaskKind
from .math import active_rows


@dataclass(frozen=True)
class AttentionMergeParams(Params):
    """``group`` query heads of one KV head; per split the partial holds [group, head_dim], max_sum [group, 2], of which
    a task takes the part of its own head, in ``rows`` rows. ``out_panel``: rows of a panel of the output."""

    group: int
    head_dim: int
    splits: int
    rows: int
    out_panel: int = 1


class AttentionMerge(TaskKind[AttentionMergeParams]):
    """Grid index is the query head, then the block of rows. The order of the sum is fixed, so that the same splits give
    the same bits."""

    name = "attention_merge"
    params_type = AttentionMergeParams
    operands = (
        Operand("partial", polled=True),
        Operand("max_sum", polled=True),
        Operand("row_count", optional=True, early=True),
        Operand("out", Access.WRITE, polled=True, tells=True, panel="out_panel"),
    )

    def signature(self, params: AttentionMergeParams) -> str:
        shape = f"{params.group}, {params.head_dim}, {params.splits}, {params.rows}"
        return f"mpk::AttentionMerge<{shape}, {params.out_panel}>"

    def cost_us(self, params: AttentionMergeParams, target: Target) -> float:
        partial_bytes = params.rows * params.splits * (params.head_dim + 2) * 4
        return partial_bytes / target.sm_bytes_per_us + target.task_overhead_us

    def scratch_bytes(self, params: AttentionMergeParams) -> int:
        parts = CONSUMER_THREADS // (-(-params.head_dim // 64) * 32)
        return parts * (params.head_dim // 2 * 8 + 8)

    def reference(self, params: AttentionMergeParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        head, block = index
        first = block * params.rows
        count = max(active_rows(views, first + params.rows) - first, 0)
        partial = views["partial"][:count].reshape(count, params.splits, params.group, params.head_dim)[
            :, :, head % params.group
        ]
        max_sum = views["max_sum"][:count].reshape(count, params.splits, params.group, 2)[:, :, head % params.group]
        highest, total = max_sum[..., :1], max_sum[..., 1:]
        weight = np.exp(highest - highest.max(axis=1, keepdims=True))
        merged = (partial * weight).sum(axis=1) / (total * weight).sum(axis=1)
        views["out"][:count] = merged
