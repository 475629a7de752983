"""`top_k_gate`: the experts that each row goes to, and their weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..core.target import Target
from .base import Access, Array, Operand, Params, TaskKind
from .math import active_rows


@dataclass(frozen=True)
class TopKGateParams(Params):
    """The ``k`` largest of ``experts`` logits of each of ``rows`` rows."""

    experts: int
    k: int
    rows: int


class TopKGate(TaskKind[TopKGateParams]):
    """One task. Among equal logits the first expert wins; weights are the softmax of the chosen logits."""

    name = "top_k_gate"
    params_type = TopKGateParams
    operands = (
        Operand("logits"),
        Operand("row_count", optional=True, early=True),
        Operand("weights", Access.WRITE),
        Operand("experts", Access.WRITE),
    )

    def signature(self, params: TopKGateParams) -> str:
        return f"mpk::TopKGate<{params.experts}, {params.k}, {params.rows}>"

    def cost_us(self, params: TopKGateParams, target: Target) -> float:
        return 4 * params.rows * params.experts / target.sm_bytes_per_us + target.task_overhead_us

    def reference(self, params: TopKGateParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        active = slice(active_rows(views, params.rows))
        logits = views["logits"][active]
        chosen = np.argsort(-logits, axis=1, kind="stable")[:, : params.k]
        powers = np.exp(np.take_along_axis(logits, chosen, axis=1) - logits.max(axis=1, keepdims=True))
        views["experts"][active] = chosen
        views["weights"][active] = powers / powers.sum(axis=1, keepdims=True)
