"""`rope`: rotary position embedding of some heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..core.requests import RowColumn
from ..core.target import Target
from .base import Access, Array, Operand, Params, TaskKind
from .math import rope


@dataclass(frozen=True)
class RopeParams(Params):
    """``heads`` of a task, ``head_dim`` columns each; ``scaling`` multiplies cosine and sine. Neighbours are turned
    against each other if ``interleaved``, else halves."""

    heads: int
    head_dim: int
    rows: int
    scaling: float
    interleaved: bool = False


class Rope(TaskKind[RopeParams]):
    """Grid index is the block of heads."""

    name = "rope"
    params_type = RopeParams
    operands = (
        Operand("x"),
        Operand("rows"),
        Operand("inv_freq"),
        Operand("row_count", optional=True, early=True),
        Operand("y", Access.WRITE),
    )

    def signature(self, params: RopeParams) -> str:
        return f"mpk::Rope<{params.heads}, {params.head_dim}, {params.rows}, {str(params.interleaved).lower()}>"

    def body_arguments(self, params: RopeParams) -> tuple[float, ...]:
        return (params.scaling,)

    def cost_us(self, params: RopeParams, target: Target) -> float:
        return 4 * params.rows * params.heads * params.head_dim / target.sm_bytes_per_us + target.task_overhead_us

    def reference(self, params: RopeParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        x = views["x"].reshape(params.rows, params.heads, params.head_dim)
        y = rope(x, views["rows"][:, RowColumn.POSITION], views["inv_freq"], params.scaling, params.interleaved)
        views["y"][...] = y.reshape(params.rows, -1)
