"""Which elements of an event tensor tasks wait on or signal: as sets, tables, and affine maps where one fits."""

from __future__ import annotations

import numpy as np
from xdsl.dialects.builtin import AffineMapAttr, DenseIntOrFPElementsAttr
from xdsl.ir.affine import AffineConstantExpr, AffineDimExpr, AffineExpr, AffineMap

from ...dialects.sm import GridOp
from ...dialects.sm.expansion import IntArray, evaluate, task_indices
from ...dialects.sm.ops import dense_i32
from .dependences import BoolArray


def predecessor_sets(relation: BoolArray) -> tuple[IntArray, BoolArray]:
    """The distinct sets of producers: ([consumers] the set each waits for, -1 if none; [producers, sets] members)."""
    packed = np.packbits(relation.T, axis=1)
    _, first, inverse = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)  # number the sets by their first consumer
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    group, members = rank[inverse.reshape(-1)], relation[:, first[order]]
    used = members.any(axis=0)
    renumber = np.where(used, np.cumsum(used) - 1, -1)
    return renumber[group].astype(np.int64), members[:, used]


def memberships(members: BoolArray) -> IntArray:
    """[producers, k]: the sets each producer belongs to, padded with -1."""
    width = max(1, int(members.sum(axis=1).max()))
    table = np.full((len(members), width), -1, dtype=np.int64)
    rows, columns = np.nonzero(members)
    position = np.concatenate([np.arange(n) for n in np.bincount(rows, minlength=len(members))])
    table[rows, position.astype(np.int64)] = columns
    return table


def elements_attr(grid: GridOp, elements: IntArray) -> AffineMapAttr | DenseIntOrFPElementsAttr:
    """``elements`` [tasks, k] as an affine map where one fits, else as a table."""
    if elements.shape[1] == 1 and (elements >= 0).all():
        fitted = fit_affine(grid, elements[:, 0])
        if fitted is not None:
            return AffineMapAttr(fitted)
    return dense_i32(elements, elements.shape)


def fit_affine(grid: GridOp, elements: IntArray) -> AffineMap | None:
    """A map with one result that gives ``elements``: a sum of index times or floor-divided by a constant."""
    indices, dims = task_indices(grid), len(grid.shape)
    expression: AffineExpr = AffineConstantExpr(int(elements[0]))
    origin = elements.reshape(grid.shape)
    for dim in range(dims):
        line = origin[tuple(slice(None) if d == dim else 0 for d in range(dims))] - int(elements[0])
        if not line.any():
            continue
        first = int(np.flatnonzero(line)[0])
        if int(line[first]) < 0:
            return None
        step = AffineDimExpr(dim) if first == 1 else AffineDimExpr(dim) // first
        slope = step * int(line[first]) if line[first] != 1 else step
        expression = (
            slope if isinstance(expression, AffineConstantExpr) and not expression.value else expression + slope
        )
    candidate = AffineMap(dims, 0, (expression,))
    return candidate if (evaluate(candidate, indices)[:, 0] == elements).all() else None
