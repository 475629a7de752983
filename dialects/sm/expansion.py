"""Grids expanded to arrays: one row a task. Affine maps are evaluated on whole index arrays at once."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from xdsl.dialects.builtin import AffineMapAttr
from xdsl.ir import SSAValue
from xdsl.ir.affine import AffineMap

from ...core.errors import PlanError
from ...core.ranks import TO_ALL, TO_SELF
from .attributes import BoxAttr, BufferType, CyclicAttr, ints
from .ops import EventUse, GridOp

IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


def task_indices(grid: GridOp) -> IntArray:
    """[tasks, dims]: the index of each task, last dimension fastest."""
    return np.indices(grid.shape).reshape(len(grid.shape), -1).T.astype(np.int64)


def evaluate(affine_map: AffineMap, indices: IntArray, rank: int = 0) -> IntArray:
    """[tasks, results]: ``affine_map`` at each row of ``indices``; its symbol, if it has one, is the ``rank``."""
    columns: list[Any] = list(indices.T)
    results: list[Any] = list(affine_map.eval(columns, [rank] * affine_map.num_symbols))
    shaped = [np.broadcast_to(np.asarray(result, dtype=np.int64), len(indices)) for result in results]
    return np.stack(shaped, axis=1) if shaped else np.zeros((len(indices), 0), dtype=np.int64)


def buffer_shape(value: SSAValue) -> tuple[int, ...]:
    """The shape of a buffer value."""
    assert isinstance(value.type, BufferType)
    return ints(value.type.shape)


def whole_boxes(grid: GridOp, operand: int, rank: int = 0) -> tuple[IntArray, IntArray]:
    """([tasks, dims], [tasks, dims]): first element and end of an operand's box on ``rank``, as its map says."""
    box = grid.boxes.data[operand]
    low = evaluate(box.offset.data, task_indices(grid), rank)
    return low, low + np.array(ints(box.sizes))


def box_bounds(grid: GridOp, operand: int, rank: int = 0) -> tuple[IntArray, IntArray]:
    """([tasks, dims], [tasks, dims]): first element and end of an operand's box on ``rank``, cut at the buffer's end:
    the last of its blocks may be an uneven one (sm-verify, rule bounds)."""
    shape = np.array(buffer_shape(grid.data[operand]))
    low, high = whole_boxes(grid, operand, rank)
    return np.minimum(low, shape), np.minimum(high, shape)


def push_targets(grid: GridOp, box: BoxAttr) -> IntArray:
    """[tasks]: the rank to whose memory each task writes ``box``; `TO_ALL`, or `TO_SELF` if that is all it touches."""
    if isinstance(box.to, AffineMapAttr):
        return evaluate(box.to.data, task_indices(grid))[:, 0]
    return np.full(grid.num_tasks, TO_ALL if box.pushes else TO_SELF)


def task_targets(grid: GridOp) -> IntArray:
    """[tasks]: `push_targets` of the boxes that the tasks push, which must agree. Raises PlanError if they don't."""
    found = [push_targets(grid, box) for box in grid.boxes if box.pushes]
    if any((other != found[0]).any() for other in found[1:]):
        raise PlanError(f"grid @{grid.sym_name.data}: a task writes to different ranks by different operands")
    return found[0] if found else np.full(grid.num_tasks, TO_SELF)


def rank_step(grid: GridOp, operand: int) -> tuple[int, ...]:
    """By how many elements, per dimension, an operand's boxes move from rank to rank; empty if they don't.

    Raises PlanError if that depends on the task or the rank.
    """
    offset, indices = grid.boxes.data[operand].offset.data, task_indices(grid)
    if not offset.num_symbols:
        return ()
    low = [evaluate(offset, indices, rank) for rank in range(3)]
    steps = low[1] - low[0]
    if (low[2] - low[1] != steps).any() or (steps != steps[0]).any():
        name = grid.operand_names.data[operand].data
        raise PlanError(
            f"grid @{grid.sym_name.data}, operand {name}: its boxes are not a fixed step apart on the ranks"
        )
    return tuple(steps[0].tolist())


def event_elements(grid: GridOp, use: EventUse) -> IntArray:
    """[tasks, k]: the event elements each task waits on or signals; -1 pads."""
    if isinstance(use.elements, AffineMapAttr):
        return evaluate(use.elements.data, task_indices(grid))
    table = np.frombuffer(use.elements.data.data, dtype="<i4").reshape(use.elements.get_shape())
    return table.astype(np.int64)


def placement(grid: GridOp, num_sms: int) -> IntArray:
    """[tasks]: the SM of each task; without a placement, task t runs on SM t mod ``num_sms``."""
    rule = grid.placement
    if rule is None or isinstance(rule, CyclicAttr):
        first = rule.first.data if rule is not None else 0
        return (first + np.arange(grid.num_tasks)) % num_sms
    return np.frombuffer(rule.data.data, dtype="<i4").astype(np.int64)
