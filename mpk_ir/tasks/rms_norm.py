"""`rms_norm`: groups of ``width`` columns, each normed by its root mean square, and perhaps a residual added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..core.target import Target
from .base import CONSUMER_WARPS, Access, Array, Operand, Params, TaskKind
from .math import rms_scale


@dataclass(frozen=True)
class RmsNormParams(Params):
    """A task norms ``groups`` neighbouring groups of ``width`` columns, a multiple of 8, in every row, and adds the
    ``residual`` in f32. ``x_panel``, ``y_panel``: rows of a panel of x, of residual and y."""

    width: int
    groups: int
    rows: int
    eps: float
    residual: bool = False
    x_panel: int = 1
    y_panel: int = 1


class RmsNorm(TaskKind[RmsNormParams]):
    """Grid index is the block of groups."""

    name = "rms_norm"
    params_type = RmsNormParams
    operands = (
        Operand("x", polled=True, tells=True, panel="x_panel"),
        Operand("weight"),
        Operand("residual", optional=True, polled=True, tells=True, panel="y_panel"),
        Operand("row_count", optional=True, early=True),
        Operand("y", Access.WRITE, polled=True, tells=True, panel="y_panel"),
    )

    def signature(self, params: RmsNormParams) -> str:
        shape = f"{params.width}, {params.groups}, {params.rows}, {str(params.residual).lower()}"
        return f"mpk::RmsNorm<{shape}, {params.x_panel}, {params.y_panel}>"

    def body_arguments(self, params: RmsNormParams) -> tuple[float, ...]:
        return (params.eps,)

    def cost_us(self, params: RmsNormParams, target: Target) -> float:
        moved_bytes = (6 if params.residual else 4) * params.rows * params.width * params.groups
        return moved_bytes / target.sm_bytes_per_us + target.task_overhead_us

    def scratch_bytes(self, params: RmsNormParams) -> int:
        return 4 * CONSUMER_WARPS

    def reference(self, params: RmsNormParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        x = views["x"].reshape(params.rows, params.groups, params.width)
        y = x * rms_scale(x, params.eps) * views["weight"]
        y = y.reshape(params.rows, -1)
        views["y"][...] = y + views["residual"] if params.residual else y
