"""Tile rules of ops that move no element if they can help it: a reshape, transpose, slice or broadcast is a view."""

from __future__ import annotations

from dataclasses import replace

from xdsl.ir import Operation, SSAValue

from ...core.memory import Space
from ...dialects import tg
from ...dialects.sm import BufferOp
from .builder import GraphBuilder, View, element_type, tensor_shape, tile_rule
from .views import Axis, broadcast, by_last, by_rows, reshaped


@tile_rule(tg.ReshapeOp.name)
def tile_reshape(op: Operation, builder: GraphBuilder) -> None:
    """A view where steps describe it, else a copy."""
    assert isinstance(op, tg.ReshapeOp)
    before, after = builder.strided(op.x), tensor_shape(op.result)
    axes = reshaped(before.axes, after)
    builder.views[op.result] = _copied(op.x, after, builder) if axes is None else replace(before, axes=axes)


def _copied(value: SSAValue, after: tuple[int, ...], builder: GraphBuilder) -> View:
    """A copy of ``value``, seen under the shape ``after``."""
    shape = tensor_shape(value)
    for row_dims in range(max(1, len(after) - 1), 0, -1):
        laid = by_rows(after, row_dims)
        if (axes := reshaped(laid, shape)) is not None:
            rows, columns = _extent(after, row_dims)
            flat = (rows,) if row_dims == len(after) else (rows, columns)
            buffer = builder.buffer("copy", Space.SCRATCH, flat, element_type(value))
            _copy(value, View(buffer, axes=axes), builder)
            return View(buffer, axes=laid)
    count = _extent(after, len(after))[0]
    buffer = builder.buffer("copy", Space.SCRATCH, (count,), element_type(value))
    _copy(value, View(buffer, axes=by_rows(shape, len(shape))), builder)
    return View(buffer, axes=by_rows(after, len(after)))


def _extent(shape: tuple[int, ...], row_dims: int) -> tuple[int, int]:
    rows, columns = 1, 1
    for dim, size in enumerate(shape):
        rows, columns = (rows * size, columns) if dim < row_dims else (rows, columns * size)
    return rows, columns


def _copy(value: SSAValue, target: View, builder: GraphBuilder) -> None:
    assert builder.copy is not None
    builder.copy(value, target)


@tile_rule(tg.TransposeOp.name)
def tile_transpose(op: Operation, builder: GraphBuilder) -> None:
    """A view."""
    assert isinstance(op, tg.TransposeOp)
    view = builder.strided(op.x)
    builder.views[op.result] = replace(view, axes=tuple(view.axes[dim] for dim in op.order))


@tile_rule(tg.BroadcastOp.name)
def tile_broadcast(op: Operation, builder: GraphBuilder) -> None:
    """A view: repeated dimensions have steps of zero."""
    assert isinstance(op, tg.BroadcastOp)
    view = builder.strided(op.x)
    builder.views[op.result] = replace(view, axes=broadcast(view.axes, tensor_shape(op.result)))


@tile_rule(tg.SliceOp.name)
def tile_slice(op: Operation, builder: GraphBuilder) -> None:
    """A view of a box."""
    assert isinstance(op, tg.SliceOp)
    view, (offsets, sizes) = builder.strided(op.x), op.box
    rows = sum(offset * axis.rows for offset, axis in zip(offsets, view.axes, strict=True))
    columns = sum(offset * axis.columns for offset, axis in zip(offsets, view.axes, strict=True))
    axes = tuple(Axis(size, axis.rows, axis.columns) for size, axis in zip(sizes, view.axes, strict=True))
    builder.views[op.result] = replace(view, row=view.row + rows, first=view.first + columns, axes=axes)


@tile_rule(tg.ConcatOp.name)
def tile_concat(op: Operation, builder: GraphBuilder) -> None:
    """Each part is copied to its place."""
    assert isinstance(op, tg.ConcatOp)
    axis, shape = op.axis.value.data, tensor_shape(op.result)
    flat = shape if len(shape) == 1 else _extent(shape, len(shape) - 1)
    buffer = builder.buffer("concat", Space.SCRATCH, flat, element_type(op.result))
    whole, begin = View(buffer, axes=by_last(shape)), 0
    for part in op.parts:
        size, step = tensor_shape(part)[axis], whole.axes[axis]
        axes = tuple(replace(one, size=size) if dim == axis else one for dim, one in enumerate(whole.axes))
        _copy(part, View(buffer, begin * step.columns, axes=axes, row=begin * step.rows), builder)
        begin += size
    builder.views[op.result] = whole


def in_state(view: View) -> bool:
    """Whether ``view`` is of a state's memory."""
    return isinstance(view.buffer.owner, BufferOp) and view.buffer.owner.space.data is Space.STATE
