"""`rms_norm`: groups of ``width`` columns, each normed by its root mean square."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..core.target import Target
from .base import Access, Array, Operand, Params, TaskKind
from .math import rms_scale


@dataclass(frozen=True)
class RmsNormParams(Params):
    """A task norms ``groups`` neighbouring groups of ``width`` columns in every row."""

    width: int
    groups: int
    rows: int
    eps: float


class RmsNorm(TaskKind[RmsNormParams]):
    """Grid index is the block of groups."""

    name = "rms_norm"
    params_type = RmsNormParams
    operands = (
        Operand("x"),
        Operand("weight"),
        Operand("row_count", optional=True, early=True),
        Operand("y", Access.WRITE),
    )

    def signature(self, params: RmsNormParams) -> str:
        return f"mpk::RmsNorm<{params.width}, {params.groups}, {params.rows}>"

    def body_arguments(self, params: RmsNormParams) -> tuple[float, ...]:
        return (params.eps,)

    def cost_us(self, params: RmsNormParams, target: Target) -> float:
        return 4 * params.rows * params.width * params.groups / target.sm_bytes_per_us + target.task_overhead_us

    def reference(self, params: RmsNormParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        x = views["x"].reshape(params.rows, params.groups, params.width)
        y = x * rms_scale(x, params.eps) * views["weight"]
        views["y"][...] = y.reshape(params.rows, -1)
