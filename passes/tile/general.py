"""Tile rules of reductions, softmax, norms, products of computed values and access by ids."""

from __future__ import annotations

from math import prod
from typing import Any

from xdsl.ir import Operation, SSAValue

from ...core.memory import Space
from ...dialects import tg
from ...dialects.sm import BufferOp
from ...tasks.base import Access
from ...tasks.gather import Gather, GatherParams
from ...tasks.index_copy import IndexCopy, IndexCopyParams
from ...tasks.matmul import Matmul, MatmulParams
from ...tasks.normalize import Normalize, NormalizeParams
from ...tasks.reduce import Reduce, ReduceParams
from .builder import GraphBuilder, View, element_type, tensor_shape, tile_rule
from .strided import Blocks, Placed, anywhere, blocks_of, dtype_name, one_block, operand, placed, written
from .views import Axes, Axis, broadcast, by_last

NOTHING = Axis(1, 0, 0)


@tile_rule(tg.ReduceOp.name)
def tile_reduce(op: Operation, builder: GraphBuilder) -> None:
    """A warp for each element of the result."""
    assert isinstance(op, tg.ReduceOp)
    axis, axes = op.axis.value.data, builder.strided(op.x).axes
    reduced, rest = axes[axis], axes[:axis] + axes[axis + 1 :]
    name = builder.unique(f"reduce_{op.kind.data}")
    y, blocks = _result(op.result, name, builder)
    operands = [_anywhere("x", op.x, rest or (NOTHING,), builder), y]
    fields = blocks.params(operands)
    params = ReduceParams(**fields, function=str(op.kind.data), **_axis_fields(reduced))
    builder.grid(name, Reduce(), params, blocks.extent, [one.operand for one in operands])


@tile_rule(tg.SoftmaxOp.name)
def tile_softmax(op: Operation, builder: GraphBuilder) -> None:
    """Along the last dimension; another axis is moved there and back."""
    assert isinstance(op, tg.SoftmaxOp)
    view, axis = builder.strided(op.x), op.axis.value.data
    axes = _moved_last(view.axes, axis)
    shape = tuple(one.size for one in axes)
    if axis == len(axes) - 1:
        _normalize(op.x, axes, (), op.result, ("softmax", 0.0), builder)
        return
    name = builder.unique("softmax")
    flat = (prod(shape[:-1]), shape[-1])
    target = View(builder.buffer(f"{name}.out", Space.SCRATCH, flat, element_type(op.x)), axes=by_last(shape))
    blocks = blocks_of(target, builder.target, whole_rows=True)
    y = written("y", target, blocks, dtype_name(op.x))
    x = placed("x", view, axes, blocks, dtype_name(op.x))
    _normalize_grid(name, [x, y], blocks, ("softmax", 0.0), builder)
    builder.views[op.result] = View(target.buffer, axes=_moved_from_last(target.axes, axis))


@tile_rule(tg.LayerNormOp.name)
def tile_layer_norm(op: Operation, builder: GraphBuilder) -> None:
    """Rows among the SMs."""
    assert isinstance(op, tg.LayerNormOp)
    eps = float(op.eps.value.data)
    _normalize(op.x, builder.strided(op.x).axes, (op.weight, op.bias), op.result, ("layer_norm", eps), builder)


def tile_strided_rms_norm(op: tg.RmsNormOp, builder: GraphBuilder) -> None:
    """RMS norm of any layout and element type."""
    eps = float(op.eps.value.data)
    _normalize(op.x, builder.strided(op.x).axes, (op.weight,), op.result, ("rms_norm", eps), builder)


def _normalize(
    x: SSAValue,
    axes: Axes,
    vectors: tuple[SSAValue, ...],
    value: SSAValue,
    function: tuple[str, float],
    builder: GraphBuilder,
) -> None:
    shape = tensor_shape(value)
    if len(shape) == 1:  # a vector is a column of rows elsewhere; here it is one row
        shape, axes = (1, *shape), (NOTHING, *axes)
    name = builder.unique(function[0])
    view = builder.strided_result(value, f"{name}.out")
    target = View(view.buffer, view.first, axes=broadcast(view.axes, shape), row=view.row)
    blocks = blocks_of(target, builder.target, whole_rows=True)
    y = written("y", target, blocks, dtype_name(value))
    operands = [placed("x", builder.strided(x), axes, blocks, dtype_name(x))]
    for role, vector in zip(("weight", "bias"), vectors, strict=False):
        operands.append(operand(role, vector, blocks, builder))
    _normalize_grid(name, [*operands, y], blocks, function, builder)


def _normalize_grid(
    name: str, operands: list[Placed], blocks: Blocks, function: tuple[str, float], builder: GraphBuilder
) -> None:
    roles = {one.operand.name for one in operands}
    params = NormalizeParams(
        **blocks.params(operands),
        function=function[0],
        weighted="weight" in roles,
        biased="bias" in roles,
        eps=function[1],
    )
    builder.grid(name, Normalize(), params, blocks.extent, [one.operand for one in operands])


@tile_rule(tg.MatmulOp.name)
def tile_matmul(op: Operation, builder: GraphBuilder) -> None:
    """Blocks of the result among the SMs."""
    assert isinstance(op, tg.MatmulOp)
    emit_matmul(op.lhs, op.rhs, builder.strided(op.rhs).axes, op.result, builder)


def emit_matmul(lhs: SSAValue, rhs: SSAValue, rhs_axes: Axes, value: SSAValue, builder: GraphBuilder) -> None:
    """lhs [..., M, K] by ``rhs`` seen with ``rhs_axes`` as [..., K, N]."""
    shape, lhs_axes = tensor_shape(value), builder.strided(lhs).axes
    name = builder.unique("matmul")
    y, blocks = _result(value, name, builder)
    left = broadcast((*lhs_axes[:-1], NOTHING), shape)
    right = broadcast((*rhs_axes[:-2], NOTHING, rhs_axes[-1]), shape)
    operands = [_anywhere("lhs", lhs, left, builder), _anywhere("rhs", rhs, right, builder), y]
    steps = ((axis.rows, axis.columns) for axis in (lhs_axes[-1], rhs_axes[-2]))
    left_step, right_step = steps
    fields = blocks.params(operands)
    params = MatmulParams(**fields, depth=lhs_axes[-1].size, lhs_step=left_step, rhs_step=right_step)
    builder.grid(name, Matmul(), params, blocks.extent, [one.operand for one in operands])


@tile_rule(tg.GatherOp.name)
def tile_gather(op: Operation, builder: GraphBuilder) -> None:
    """Elements of the result among the SMs."""
    assert isinstance(op, tg.GatherOp)
    x, ids = builder.strided(op.x), builder.strided(op.ids)
    name = builder.unique("gather")
    y, blocks = _result(op.result, name, builder)
    rest = x.axes[1:]
    x_axes = broadcast(rest, blocks.shape) if rest else broadcast((NOTHING,), blocks.shape)
    id_axes = (*ids.axes, *(Axis(axis.size, 0, 0) for axis in rest))
    operands = [_anywhere("x", op.x, x_axes, builder), _anywhere("ids", op.ids, id_axes, builder), y]
    params = GatherParams(**blocks.params(operands), **_axis_fields(x.axes[0]))
    builder.grid(name, Gather(), params, blocks.extent, [one.operand for one in operands])


@tile_rule(tg.IndexCopyOp.name)
def tile_index_copy(op: Operation, builder: GraphBuilder) -> None:
    """In the memory of x if nobody reads its old value later, else in a copy."""
    assert isinstance(op, tg.IndexCopyOp)
    axis, blocks = op.axis.value.data, one_block(tensor_shape(op.source))
    x = _own_memory(op, builder)
    ids = builder.strided(op.ids).axes[0]
    id_axes = tuple(ids if dim == axis else Axis(size, 0, 0) for dim, size in enumerate(blocks.shape))
    source = _anywhere("source", op.source, builder.strided(op.source).axes, builder)
    axes = tuple(Axis(one.size, 0, 0) if dim == axis else one for dim, one in enumerate(x.axes))
    moved = anywhere("x", x, axes, dtype_name(op.x), Access.READ_WRITE)
    operands = [source, _anywhere("ids", op.ids, id_axes, builder), moved]
    params = IndexCopyParams(**blocks.params(operands), **_axis_fields(x.axes[axis]))
    builder.grid("index_copy", IndexCopy(), params, blocks.extent, [one.operand for one in operands])


def _result(value: SSAValue, name: str, builder: GraphBuilder) -> tuple[Placed, Blocks]:
    view = builder.strided_result(value, f"{name}.out")
    blocks = blocks_of(view, builder.target)
    return written("y", view, blocks, dtype_name(value)), blocks


def _anywhere(role: str, value: SSAValue, axes: Axes, builder: GraphBuilder) -> Placed:
    return anywhere(role, builder.strided(value), axes, dtype_name(value))


def _own_memory(op: tg.IndexCopyOp, builder: GraphBuilder) -> View:
    """Memory that holds x and may be overwritten, and is the result's from now on."""
    view = builder.strided(op.x)
    owner = view.buffer.owner
    assert isinstance(owner, BufferOp)
    in_place = op.result not in builder.views and op.x.has_one_use() and _is_root_state(op.x, owner)
    if not in_place:
        target = builder.strided_result(op.result, "index_copy.out")
        assert builder.copy is not None
        builder.copy(op.x, target)
        return target
    builder.views[op.result] = view
    return view


def _is_root_state(value: SSAValue, buffer: BufferOp) -> bool:
    """Whether ``value`` is a state, perhaps under another shape, that nobody else reads."""
    while isinstance(value.owner, tg.ReshapeOp):
        if not value.has_one_use():
            return False
        value = value.owner.x
    return isinstance(value.owner, tg.StateOp) and value.has_one_use() and buffer.space.data is Space.STATE


def _axis_fields(axis: Axis) -> dict[str, Any]:
    return {"length": axis.size, "axis_row": axis.rows, "axis_column": axis.columns}


def _moved_last(axes: Axes, axis: int) -> Axes:
    return (*axes[:axis], *axes[axis + 1 :], axes[axis])


def _moved_from_last(axes: Axes, axis: int) -> Axes:
    return (*axes[:axis], axes[-1], *axes[axis:-1])
