"""`prompt_attention`: causal attention of many rows over a paged cache that holds their keys already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..core.memory import Layout
from ..core.requests import RequestColumn
from ..core.target import Target
from .base import CONSUMER_WARPS, Access, Array, Operand, Params, TaskKind

WARP_ROWS = 16
"""M of the tensor-core product m16n8k16: rows of one query head that a warp takes."""
TASK_ROWS = CONSUMER_WARPS * WARP_ROWS
"""Of all query heads of a task together."""
HEAD_SIZES = (32, 64, 128)
"""What its registers hold, and whose 32 columns are whole chunks of the output's layout."""
MOST_POSITIONS, MOST_ELEMENTS = 64, 4096
"""Of keys in a half of scratch; as many of values."""


@dataclass(frozen=True)
class PromptAttentionParams(Params):
    """Grid index is (block of rows, the last first; group of ``task_heads`` query heads of one KV head). The scores are
    those of `AttentionParams`; out is in `Layout.K_BLOCKS_64`. ``total_rows`` of the step, of ``batch`` requests."""

    heads: int
    kv_heads: int
    head_dim: int
    page_size: int
    batch: int
    task_heads: int
    total_rows: int
    scale: float
    softcap: float = 0.0
    window: int = 0

    @property
    def rows(self) -> int:
        """Of a task."""
        return TASK_ROWS // self.task_heads

    @property
    def blocks(self) -> int:
        """Of rows."""
        return -(-self.total_rows // self.rows)


class PromptAttention(TaskKind[PromptAttentionParams]):
    """Rows of several requests may meet in a task: each sees positions of its own request alone."""

    name = "prompt_attention"
    params_type = PromptAttentionParams
    operands = (
        Operand("q"),
        Operand("k_cache"),
        Operand("v_cache"),
        Operand("requests"),
        Operand("page_table"),
        Operand("row_count", optional=True, early=True),
        Operand("out", Access.WRITE, layout=Layout.K_BLOCKS_64),
    )

    def signature(self, params: PromptAttentionParams) -> str:
        shape = (params.heads, params.kv_heads, params.head_dim, params.page_size, params.batch)
        more = (params.task_heads, params.total_rows, params.window, params.softcap > 0)
        return f"mpk::PromptAttention<{', '.join(str(one).lower() for one in (*shape, *more))}>"

    def body_arguments(self, params: PromptAttentionParams) -> tuple[float, ...]:
        return (params.scale, params.softcap)

    def cost_us(self, params: PromptAttentionParams, target: Target) -> float:
        flops = 4 * TASK_ROWS * params.head_dim * (params.total_rows / 2)
        return flops / target.costs.prompt_attention_flops_per_us + target.task_overhead_us

    def scratch_bytes(self, params: PromptAttentionParams) -> int:
        return 2 * 2 * min(MOST_POSITIONS * params.head_dim, MOST_ELEMENTS)

    def reference(self, params: PromptAttentionParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        first = (params.blocks - 1 - index[0]) * params.rows
        for request, state in enumerate(views["requests"]):
            begin = int(state[RequestColumn.FIRST_ROW])
            rows = np.arange(max(begin, first), min(begin + int(state[RequestColumn.NUM_ROWS]), first + params.rows))
            if len(rows):
                positions = int(state[RequestColumn.CACHED]) + rows - begin
                views["out"][rows - first] = self._attend(params, views, request, rows - first, positions)

    def _attend(
        self, params: PromptAttentionParams, views: Mapping[str, Array], request: int, rows: Array, positions: Array
    ) -> Array:
        """[rows, columns of the task's heads]."""
        seen = np.arange(int(positions[-1]) + 1)
        pages, slots = views["page_table"][request, seen // params.page_size], seen % params.page_size
        keys, values = (views[name][pages, 0, slots] for name in ("k_cache", "v_cache"))
        q = views["q"][rows].reshape(len(rows), params.task_heads, params.head_dim)
        scores = np.einsum("rhd,pd->rhp", q, keys) * np.float32(params.scale)
        if params.softcap:
            scores = np.float32(params.softcap) * np.tanh(scores / np.float32(params.softcap))
        age = positions[:, None, None] - seen[None, None, :]
        scores = np.where((age >= 0) & (age < (params.window or len(seen))), scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return np.einsum("rhp,pd->rhd", weights, values).reshape(len(rows), -1)
