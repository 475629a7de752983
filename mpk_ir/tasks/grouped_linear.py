"""`grouped_linear`: rows of activations times the weights of the experts that they chose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..core.target import Target
from .base import CONSUMER_WARPS, Access, Array, Operand, Params, TaskKind
from .math import active_rows, silu

MAX_K = 4096
"""Columns of a weight: a warp holds a whole row of it, of a gated expert two."""


@dataclass(frozen=True)
class GroupedLinearParams(Params):
    """Of ``experts`` experts, each with a weight of ``expert_rows`` rows, those that the step's rows chose, ``slots``
    a row. An item is ``columns`` of the ``n`` result columns of one of them.

    ``gated``: an expert's first half of rows is its gate, and the result silu(gate) * up. ``per_slot``: x has ``k``
    columns for each slot, else all experts of a row read the same.
    """

    experts: int
    n: int
    k: int
    slots: int
    rows: int
    columns: int
    takers: int
    gated: bool
    per_slot: bool

    @property
    def expert_rows(self) -> int:
        return 2 * self.n if self.gated else self.n

    @property
    def blocks(self) -> int:
        """Items of an expert."""
        return -(-self.n // self.columns)


class GroupedLinear(TaskKind[GroupedLinearParams]):
    """Grid index is the taker. Items, those of the first expert with rows first, are dealt to the takers in turn: taker
    t computes items t, t + takers, t + 2 takers, ..., whichever experts these are of."""

    name = "grouped_linear"
    params_type = GroupedLinearParams
    dealt_because = "which experts have rows is known when the step has chosen them"
    operands = (
        Operand("x"),
        Operand("weight"),
        Operand("experts"),
        Operand("row_count", optional=True, early=True),
        Operand("y", Access.WRITE),
    )

    def takers(self, params: GroupedLinearParams) -> int:
        return params.takers

    def signature(self, params: GroupedLinearParams) -> str:
        shape = (params.experts, params.n, params.k, params.slots, params.rows, params.columns, params.takers)
        flags = (str(flag).lower() for flag in (params.gated, params.per_slot))
        return f"mpk::GroupedLinear<{', '.join((*map(str, shape), *flags))}>"

    def cost_us(self, params: GroupedLinearParams, target: Target) -> float:
        items = -(-params.slots * params.blocks // params.takers)
        rows = params.columns * (2 if params.gated else 1)
        return items * rows * params.k * 2 / target.sm_bytes_per_us + target.task_overhead_us

    def scratch_bytes(self, params: GroupedLinearParams) -> int:
        return 4 * (params.rows * params.slots + -(-params.experts // 32) * 32 + CONSUMER_WARPS)

    def reference(self, params: GroupedLinearParams, views: Mapping[str, Array], index: tuple[int, ...]) -> None:
        rows = active_rows(views, params.rows)
        experts, y = views["experts"][:rows], views["y"]
        for expert, columns in items_of(params, experts, index[0]):
            weights = _rows_of(params, views["weight"], expert, columns)
            for row, slot in np.argwhere(experts == expert).tolist():
                x = views["x"][row]
                x = x[slot * params.k : (slot + 1) * params.k] if params.per_slot else x
                products = [weight @ x for weight in weights]
                value = silu(products[0]) * products[1] if params.gated else products[0]
                y[row, slot * params.n + columns.start : slot * params.n + columns.stop] = value


def items_of(params: GroupedLinearParams, experts: Array, taker: int) -> list[tuple[int, slice]]:
    """(expert, its columns) of each item that ``taker`` computes, where rows chose ``experts`` [rows, slots]."""
    used = np.unique(experts).tolist()
    found: list[tuple[int, slice]] = []
    for item in range(taker, len(used) * params.blocks, params.takers):
        which, block = divmod(item, params.blocks)
        first = block * params.columns
        found.append((used[which], slice(first, min(first + params.columns, params.n))))
    return found


def _rows_of(params: GroupedLinearParams, weight: Array, expert: int, columns: slice) -> list[Array]:
    """The rows of an expert's weight for some result columns: of its gate and of what goes up, or alone."""
    first = expert * params.expert_rows
    parts = (0, params.n) if params.gated else (0,)
    return [weight[first + part + columns.start : first + part + columns.stop] for part in parts]
