"""`advance`: the end of a step; keeps the chosen tokens and assigns the rows of the next step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..core.requests import RequestColumn, advance_requests, by_row
from ..core.target import Target
from .base import Access, Array, Operand, Params, TaskKind


@dataclass(frozen=True)
class AdvanceParams(Params):
    """Meaning: `core.requests.advance_requests`. ``by_request``: a token is chosen for each request that has rows, else
    for each row."""

    batch: int
    rows: int
    max_length: int
    stop_tokens: tuple[int, ...]
    by_request: bool = False


class Advance(TaskKind[AdvanceParams]):
    """One task."""

    name = "advance"
    params_type = AdvanceParams
    operands = (
        Operand("sampled", polled=True, tells=True),
        Operand("history", Access.READ_WRITE),
        Operand("requests", Access.READ_WRITE),
        Operand("rows", Access.READ_WRITE),
        Operand("row_count", Access.READ_WRITE),
    )

    def signature(self, params: AdvanceParams) -> str:
        shape = (params.batch, params.rows, params.max_length, str(params.by_request).lower())
        return f"mpk::Advance<{', '.join(map(str, (*shape, *params.stop_tokens)))}>"

    def cost_us(self, params: AdvanceParams, target: Target) -> float:
        return 2 * target.task_overhead_us

    def scratch_bytes(self, params: AdvanceParams) -> int:
        sampled = params.batch if params.by_request else params.rows
        return (params.batch * (len(RequestColumn) + 1) + sampled + 1) * 4

    def reference(self, params: AdvanceParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        history, requests, rows, row_count = (views[name] for name in ("history", "requests", "rows", "row_count"))
        sampled = by_row(views["sampled"], requests, params.rows) if params.by_request else views["sampled"]
        advance_requests(sampled, history, requests, rows, row_count, params.stop_tokens)
