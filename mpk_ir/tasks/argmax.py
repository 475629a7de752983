"""`argmax`: the largest logit of each row in one chunk of the vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..core.target import Target
from .base import Access, Array, Operand, Params, TaskKind


@dataclass(frozen=True)
class ArgmaxParams(Params):
    """``chunk`` columns a task; the last chunk ends at ``columns``."""

    columns: int
    chunk: int
    rows: int


class Argmax(TaskKind[ArgmaxParams]):
    """Grid index is the chunk. Among equal logits the first column wins."""

    name = "argmax"
    params_type = ArgmaxParams
    operands = (
        Operand("x"),
        Operand("row_count", optional=True, early=True),
        Operand("value", Access.WRITE),
        Operand("column", Access.WRITE),
    )

    def signature(self, params: ArgmaxParams) -> str:
        return f"mpk::Argmax<{params.columns}, {params.chunk}, {params.rows}>"

    def cost_us(self, params: ArgmaxParams, target: Target) -> float:
        return 4 * params.rows * params.chunk / target.sm_bytes_per_us + target.task_overhead_us

    def scratch_bytes(self, params: ArgmaxParams) -> int:
        return 64

    def reference(self, params: ArgmaxParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        x = views["x"]
        best = x.argmax(axis=1)
        views["column"][:, 0] = best + index[0] * params.chunk
        views["value"][:, 0] = x[range(len(best)), best]
