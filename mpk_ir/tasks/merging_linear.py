"""`merging_linear`: a product of what attention's splits left, which it merges in passing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .attention import active_splits
from .base import Array, Operand
from .linear import Linear, LinearParams


@dataclass(frozen=True)
class MergingLinearParams(LinearParams):
    """x[rows, k] is the merge of ``splits`` attentions: x holds, of each KV head, split after split the outputs of its
    ``group`` query heads of ``head_dim`` columns; log_sum[rows, heads * splits], in the same order, their weights'
    logarithms (base 2)."""

    splits: int = 1
    group: int = 1
    head_dim: int = 0


class MergingLinear(Linear):
    """One row uses one of eight columns of a tensor-core product: here the others are its splits. Each lane scales what
    it reads by its split's weight, and columns are added when the product is done, so that the merge of splits costs no
    task and no hand-off of its own."""

    name = "merging_linear"
    params_type: ClassVar[type[LinearParams]] = MergingLinearParams
    operands = (
        Operand("x", polled=True),
        *Linear.operands[1:],
        Operand("log_sum", polled=True),
    )

    def signature(self, params: LinearParams) -> str:
        assert isinstance(params, MergingLinearParams)
        base = super().signature(params).removeprefix("mpk::Linear<").removesuffix(">")
        total_rows = "" if params.total_rows else ", 0"
        splits = f"mpk::Splits<{params.splits}, {params.group}, {params.head_dim}>"
        return f"mpk::Linear<{base}{total_rows}, {splits}>"

    def reference(self, params: LinearParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        assert isinstance(params, MergingLinearParams)
        super().reference(params, {**views, "x": merged(params, views)}, index)


def merged(params: MergingLinearParams, views: Mapping[str, Array]) -> Array:
    """[rows, k] of all splits that the step uses; zero in rows that it does not."""
    count = int(views["row_count"][0]) if "row_count" in views else params.rows
    used = active_splits(params.splits, count)
    parts = views["x"][:count].reshape(count, -1, params.splits, params.group, params.head_dim)[:, :, :used]
    logs = views["log_sum"][:count].reshape(count, -1, params.splits, params.group, 1)[:, :, :used]
    weights = np.exp2(logs - logs.max(axis=2, keepdims=True, initial=-np.inf))
    x = np.zeros((views["x"].shape[0], params.k), np.float32)
    x[:count] = (parts * weights / weights.sum(axis=2, keepdims=True)).sum(axis=2).reshape(count, -1)
    return x
