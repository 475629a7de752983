"""`attention`: one request, one KV head, one split of the positions; optionally norms, rotates and appends first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..core.requests import RequestColumn
from ..core.target import Target
from .base import CONSUMER_WARPS, Access, Array, Operand, Params, TaskKind
from .math import prepared_heads

HEAD_SIZES = range(16, 257, 16)
"""Columns of a head: whole tensor-core products, in a warp's lanes of 8."""
SPLIT_BLOCK = 16
"""Positions a split is a multiple of."""
MMA_HEADS = 8
"""Query heads of one tensor-core product."""


@dataclass(frozen=True)
class AttentionParams(Params):
    """Grid index is (request, KV head, split). With ``splits`` > 1 a task writes its unnormalised sum and (max, sum of
    exponents) per query head for `attention_merge`; else the finished output.

    ``append``: keys and values of the step's rows come from ``k`` and ``v`` and are stored in the cache by the split
    that holds their position. ``norm``: q and k are RMS-normed per head; ``rotary``: rotated by position. Scores s
    become softcap * tanh(s / softcap), and only the latest ``window`` positions are seen, where these are not 0.
    ``out_panel``: rows of a panel of the finished output.
    """

    heads: int
    kv_heads: int
    head_dim: int
    page_size: int
    max_pages: int
    splits: int
    rows: int
    scale: float
    append: bool
    norm: bool
    eps: float
    rotary: bool
    rotary_scaling: float
    softcap: float = 0.0
    window: int = 0
    out_panel: int = 1

    @property
    def group(self) -> int:
        """Query heads per KV head."""
        return self.heads // self.kv_heads


def split_range(length: int, splits: int, split: int) -> tuple[int, int]:
    """Positions [begin, end) of ``split`` when a cache of ``length`` is divided at run time."""
    chunk = -(-length // splits)
    chunk = -(-chunk // SPLIT_BLOCK) * SPLIT_BLOCK
    return min(split * chunk, length), min((split + 1) * chunk, length)


class Attention(TaskKind[AttentionParams]):
    """Causal grouped-query attention over a paged cache, rows of one request against its own positions."""

    name = "attention"
    params_type = AttentionParams
    stages_at_once = 2
    operands = (
        Operand("q", polled=True),
        Operand("k", optional=True, polled=True),
        Operand("v", optional=True, polled=True),
        Operand("k_cache", Access.READ_WRITE, streamed=True, appends=True),
        Operand("v_cache", Access.READ_WRITE, streamed=True, appends=True),
        Operand("requests", early=True),
        Operand("page_table"),
        Operand("q_norm", optional=True),
        Operand("k_norm", optional=True),
        Operand("inv_freq", optional=True, early=True),
        Operand("out", Access.WRITE, polled=True, panel="out_panel"),
        Operand("max_sum", Access.WRITE, optional=True, polled=True),
        Operand("row_count", optional=True, early=True),
    )

    def signature(self, params: AttentionParams) -> str:
        shape = (params.heads, params.kv_heads, params.head_dim, params.page_size, params.splits, params.rows)
        flags = (params.append, params.norm, params.rotary, params.out_panel)
        more = (params.window, params.softcap > 0) if params.window or params.softcap else ()
        return f"mpk::Attention<{', '.join(str(one).lower() for one in (*shape, *flags, *more))}>"

    def body_arguments(self, params: AttentionParams) -> tuple[float, ...]:
        numbers = (params.scale, params.eps, params.rotary_scaling)
        return (*numbers, params.softcap) if params.softcap else numbers

    def cost_us(self, params: AttentionParams, target: Target) -> float:
        cache_bytes = 2 * params.max_pages * params.page_size * params.head_dim * 2 / params.splits
        return cache_bytes / target.sm_bytes_per_us + target.task_overhead_us

    def scratch_bytes(self, params: AttentionParams) -> int:
        new_heads = params.group + (2 if params.append else 0)
        bf16_bytes = 2 * (new_heads + params.group + 2) * params.head_dim
        return bf16_bytes + 4 * CONSUMER_WARPS * min(params.group, MMA_HEADS) * (params.head_dim + 2) + 16

    def reference(self, params: AttentionParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        split = index[2]
        state = views["requests"][0]
        first, count = int(state[RequestColumn.FIRST_ROW]), int(state[RequestColumn.NUM_ROWS])
        if count == 0:
            return
        rows, positions = slice(first, first + count), int(state[RequestColumn.CACHED]) + np.arange(count)
        begin, end = split_range(int(positions[-1]) + 1, params.splits, split)
        pages, slots = self._slots(params, views, np.arange(begin, end))
        k_cache, v_cache = (views[name][:, 0] for name in ("k_cache", "v_cache"))
        if params.append:
            new = (positions >= begin) & (positions < end)
            target = pages[positions[new] - begin], slots[positions[new] - begin]
            k_cache[target] = prepared_heads(params, views, views["k"][rows][new, None], "k_norm", positions[new])[:, 0]
            v_cache[target] = views["v"][rows][new]
        q = views["q"][rows].reshape(count, params.group, params.head_dim)
        q = prepared_heads(params, views, q, "q_norm", positions)
        scores = np.einsum("rgd,pd->rgp", q, k_cache[pages, slots]) * np.float32(params.scale)
        if params.softcap:
            scores = np.float32(params.softcap) * np.tanh(scores / np.float32(params.softcap))
        age = positions[:, None, None] - np.arange(begin, end)[None, None, :]
        visible = (age >= 0) & (age < (params.window or int(positions[-1]) + 1))
        scores = np.where(visible, scores, -np.inf)
        self._store(params, views, rows, scores, v_cache[pages, slots])

    def _slots(self, params: AttentionParams, views: Mapping[str, Array], positions: Array) -> tuple[Array, Array]:
        page_of = views["page_table"][0]
        return page_of[positions // params.page_size], positions % params.page_size

    def _store(
        self, params: AttentionParams, views: Mapping[str, Array], rows: slice, scores: Array, values: Array
    ) -> None:
        highest = scores.max(axis=-1, initial=-np.inf, keepdims=True)
        weights = np.exp(scores - np.where(np.isfinite(highest), highest, 0.0))
        total = weights.sum(axis=-1, keepdims=True)
        out = np.einsum("rgp,pd->rgd", weights, values)
        count = scores.shape[0]
        if params.splits == 1:
            views["out"][rows] = (out / total).reshape(count, -1)
        else:
            views["out"][rows] = out.reshape(count, -1)
            views["max_sum"][rows] = np.concatenate([highest, total], axis=-1).reshape(count, -1)
