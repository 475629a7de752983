"""ATen rules of access by computed index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from xdsl.dialects.builtin import i32
from xdsl.ir import SSAValue

from ...core.errors import UnsupportedError
from ...dialects import tg
from .emitter import Emitter, tg_shape
from .rules import aten_rule
from .shaping import positive, shape_of

if TYPE_CHECKING:
    from torch.fx import Node


@aten_rule("embedding.default")
def embedding(e: Emitter, node: Node, table: SSAValue, ids: SSAValue, *_: Any, **__: Any) -> SSAValue:
    """Rows of a table."""
    return e.reshape(e.emit(tg.GatherOp(table, ids)), shape_of(node))


@aten_rule("index_select.default")
def index_select(e: Emitter, node: Node, x: SSAValue, dim: int, ids: SSAValue) -> SSAValue:
    """Slices of one dimension."""
    return _along(e, x, positive(dim, len(tg.shape_of(x))), ids, shape_of(node))


def _along(e: Emitter, x: SSAValue, dim: int, ids: SSAValue, shape: Sequence[int]) -> SSAValue:
    rank, count = len(tg.shape_of(x)), len(tg.shape_of(ids))
    moved = e.transpose(x, [dim, *(d for d in range(rank) if d != dim)])
    chosen = e.emit(tg.GatherOp(moved, ids))
    back = [*range(count, count + dim), *range(count), *range(count + dim, count + rank - 1)]
    return e.reshape(e.transpose(chosen, back), shape)


@aten_rule("index.Tensor")
def index(e: Emitter, node: Node, x: SSAValue, indices: Sequence[SSAValue | None]) -> SSAValue:
    """x[:, ids]: by one tensor, or by several that lie side by side and are joined into one."""
    given = [dim for dim, ids in enumerate(indices) if ids is not None]
    if _has_mask(node):
        raise UnsupportedError("indexing by a mask: the result's shape depends on data", advice="use torch.where")
    if len(given) == 1:
        ids = indices[given[0]]
        assert ids is not None
        return _along(e, x, given[0], ids, shape_of(node))
    if given != list(range(given[0], given[0] + len(given))):
        raise UnsupportedError("indexing by tensors that do not lie side by side")
    return _joined(e, x, given, [ids for ids in indices if ids is not None], shape_of(node))


def _has_mask(node: Node) -> bool:
    """Whether truth values are among the indices."""
    import torch

    listed = node.args[1]
    assert isinstance(listed, list | tuple)
    return any(isinstance(ids, torch.fx.Node) and ids.meta["val"].dtype is torch.bool for ids in listed)


def _joined(e: Emitter, x: SSAValue, dims: list[int], ids: list[SSAValue], result: Sequence[int]) -> SSAValue:
    """Several indices as one into the dimensions made one."""
    shape = tg.shape_of(x)
    total = _wrapped(e, ids[0], shape[dims[0]])
    for dim, one in zip(dims[1:], ids[1:], strict=True):
        scaled = e.emit(tg.MulOp(total, e.constant(shape[dim], i32)))
        total = e.emit(tg.AddOp(scaled, _wrapped(e, one, shape[dim])))
    merged = 1
    for dim in dims:
        merged *= shape[dim]
    flat = e.reshape(x, (*shape[: dims[0]], merged, *shape[dims[-1] + 1 :]))
    return _along(e, flat, dims[0], total, result)


def _wrapped(e: Emitter, ids: SSAValue, size: int) -> SSAValue:
    """Negative ids counted from the end."""
    below = e.emit(tg.CompareOp(tg.Predicate.LT, ids, e.constant(0, i32)))
    return e.emit(tg.SelectOp(below, e.emit(tg.AddOp(ids, e.constant(size, i32))), ids))


@aten_rule("gather.default")
def gather(e: Emitter, node: Node, x: SSAValue, dim: int, ids: SSAValue, sparse_grad: bool = False) -> SSAValue:
    """x[i, ids[i, j]]: an index into the flattened tensor."""
    shape, chosen = tg.shape_of(x), tg.shape_of(ids)
    axis = positive(dim, len(shape))
    offsets = np.zeros(chosen, np.int32)
    for other, size in enumerate(chosen):
        if other != axis:
            step = int(np.prod(shape[other + 1 :]))
            offsets += (np.arange(size) * step).reshape([-1 if d == other else 1 for d in range(len(chosen))])
    scaled = e.emit(tg.MulOp(ids, e.constant(int(np.prod(shape[axis + 1 :])), i32)))
    flat_ids = e.emit(tg.AddOp(scaled, e.emit(tg.ConstantOp.of(offsets.astype(np.int32)))))
    return e.reshape(e.emit(tg.GatherOp(e.reshape(x, (int(np.prod(shape)),)), flat_ids)), shape_of(node))


@aten_rule("index_copy.default")
def index_copy(e: Emitter, node: Node, x: SSAValue, dim: int, ids: SSAValue, source: SSAValue) -> SSAValue:
    """Slices of one dimension replaced."""
    axis = positive(dim, len(tg.shape_of(x)))
    return e.emit(tg.IndexCopyOp(x, ids, source, axis))


@aten_rule("index_put.default")
def index_put(
    e: Emitter, node: Node, x: SSAValue, indices: Sequence[SSAValue | None], values: SSAValue, accumulate: bool = False
) -> SSAValue:
    """Slices of one dimension replaced: x[:, ids] = values."""
    given = [(dim, ids) for dim, ids in enumerate(indices) if ids is not None]
    if _has_mask(node):
        raise UnsupportedError("index_put by a mask", advice="torch.where(mask, values, x) has the shape of x")
    if accumulate or len(given) != 1 or len(tg.shape_of(given[0][1])) != 1:
        raise UnsupportedError("index_put by several indices, or that adds up")
    dim, ids = given[0]
    shape = tg.shape_of(x)
    replaced = tg_shape([*shape[:dim], *tg.shape_of(ids), *shape[dim + 1 :]])
    source = e.broadcast(e.cast(values, tg.element_of(x)), replaced)
    return e.emit(tg.IndexCopyOp(x, ids, source, dim))


@aten_rule("slice_scatter.default")
def slice_scatter(e: Emitter, node: Node, x: SSAValue, source: SSAValue, dim: int = 0, *ends: int | None) -> SSAValue:
    """x with a range of one dimension replaced."""
    start, end, step = (*ends, *(None,) * (3 - len(ends)))
    axis = positive(dim, len(tg.shape_of(x)))
    begin, stop, _ = slice(start, end).indices(tg.shape_of(x)[axis])
    ids = e.constant(list(range(begin, stop, step or 1)), i32)
    return e.emit(tg.IndexCopyOp(x, ids, e.cast(source, tg.element_of(x)), axis))


@aten_rule("select_scatter.default")
def select_scatter(e: Emitter, node: Node, x: SSAValue, source: SSAValue, dim: int, index: int) -> SSAValue:
    """x with one slice of a dimension replaced."""
    shape = list(tg.shape_of(x))
    axis = positive(dim, len(shape))
    ids = e.constant([positive(index, shape[axis])], i32)
    shape[axis] = 1
    return e.emit(tg.IndexCopyOp(x, ids, e.reshape(source, shape), axis))
