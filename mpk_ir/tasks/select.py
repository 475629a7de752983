"""`select`: the chunks of an argmax put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..core.target import Target
from .base import Access, Array, Operand, Params, TaskKind


@dataclass(frozen=True)
class SelectParams(Params):
    """``chunks`` of the vocabulary, each with its best value and column, the same number from each of ``ranks``.
    Columns of a chunk count from the first of its rank, which holds ``rank_columns``."""

    chunks: int
    rows: int
    ranks: int = 1
    rank_columns: int = 0


class Select(TaskKind[SelectParams]):
    """One task. Chunks are in order of columns, so the first of equal values wins here too."""

    name = "select"
    params_type = SelectParams
    operands = (
        Operand("value", polled=True, tells=True),
        Operand("column", polled=True, tells=True),
        Operand("row_count", optional=True, early=True),
        Operand("y", Access.WRITE, polled=True, tells=True),
    )

    def signature(self, params: SelectParams) -> str:
        ranks = f", {params.chunks // params.ranks}, {params.rank_columns}" if params.ranks > 1 else ""
        return f"mpk::Select<{params.chunks}, {params.rows}{ranks}>"

    def cost_us(self, params: SelectParams, target: Target) -> float:
        return 8 * params.rows * params.chunks / target.sm_bytes_per_us + target.task_overhead_us

    def reference(self, params: SelectParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        best = views["value"].argmax(axis=1)
        first = best // (params.chunks // params.ranks) * params.rank_columns
        views["y"][...] = views["column"][range(params.rows), best] + first
