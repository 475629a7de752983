"""Grids expanded to arrays: one row a task. Affine maps are evaluated on whole index arrays at once."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from xdsl.dialects.builtin import AffineMapAttr
from xdsl.ir import SSAValue
from xdsl.ir.affine import AffineMap

from .attributes import BufferType, CyclicAttr, ints
from .ops import EventUse, GridOp

IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


def task_indices(grid: GridOp) -> IntArray:
    """[tasks, dims]: the index of each task, last dimension fastest."""
    return np.indices(grid.shape).reshape(len(grid.shape), -1).T.astype(np.int64)


def evaluate(affine_map: AffineMap, indices: IntArray) -> IntArray:
    """[tasks, results]: ``affine_map`` at each row of ``indices``."""
    columns: list[Any] = list(indices.T)
    results: list[Any] = list(affine_map.eval(columns, []))
    shaped = [np.broadcast_to(np.asarray(result, dtype=np.int64), len(indices)) for result in results]
    return np.stack(shaped, axis=1) if shaped else np.zeros((len(indices), 0), dtype=np.int64)


def buffer_shape(value: SSAValue) -> tuple[int, ...]:
    """The shape of a buffer value."""
    assert isinstance(value.type, BufferType)
    return ints(value.type.shape)


def box_bounds(grid: GridOp, operand: int) -> tuple[IntArray, IntArray]:
    """([tasks, rank], [tasks, rank]): first element and end of an operand's box, clipped to the buffer."""
    box, shape = grid.boxes.data[operand], np.array(buffer_shape(grid.data[operand]))
    low = evaluate(box.offset.data, task_indices(grid))
    return np.minimum(low, shape), np.minimum(low + np.array(ints(box.sizes)), shape)


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
