"""`push`: columns copied to where other ranks look for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..core.target import Target
from .base import Access, Array, Operand, Params, TaskKind


@dataclass(frozen=True)
class PushParams(Params):
    """``columns`` of every row a task copies, the last task up to ``total``; elements of ``element_bytes``."""

    columns: int
    rows: int
    total: int
    element_bytes: int


class Push(TaskKind[PushParams]):
    """Grid index is the block of columns. Each task waits for the whole of x: `sm-overlap-comm` does away with it by
    letting the producer of x write y."""

    name = "push"
    params_type = PushParams
    operands = (
        Operand("x"),
        Operand("row_count", optional=True, early=True),
        Operand("y", Access.WRITE, polled=True, tells=True),
    )

    def signature(self, params: PushParams) -> str:
        return f"mpk::Push<{params.columns}, {params.rows}, {params.total}, {params.element_bytes}>"

    def cost_us(self, params: PushParams, target: Target) -> float:
        moved_bytes = 2 * params.rows * params.columns * params.element_bytes
        return moved_bytes / target.sm_bytes_per_us + target.task_overhead_us

    def reference(self, params: PushParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        first = index[0] * params.columns
        views["y"][...] = views["x"][:, first : first + views["y"].shape[1]]
