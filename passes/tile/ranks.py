"""Tile rules of what depends on the rank, in their plainest form: `sm-overlap-comm` lets transfers begin earlier.

A collective is a grid of `push`, whose tasks wait for the whole of their operand and write it into the memory of every
rank, and, where ranks are summed, a grid of `rank_sum`, whose result others wait for as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

import numpy as np
from xdsl.dialects.builtin import AffineMapAttr, BFloat16Type, UnitAttr, i32
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.ir.affine import AffineConstantExpr, AffineDimExpr, AffineMap, AffineSymExpr

from ...core.dtype import dtype_of
from ...core.errors import PlanError, UnsupportedError
from ...core.memory import Layout, Space
from ...dialects import tg
from ...dialects.sm import BoxAttr, BufferOp, GridOp
from ...dialects.sm.attributes import ALL_RANKS
from ...dialects.sm.ops import GridOperand, dense_i32
from ...tasks.base import Access
from ...tasks.push import Push, PushParams
from ...tasks.rank_sum import RankSum, RankSumParams
from ...tasks.select import Select, SelectParams
from ...tasks.shard_embedding import ShardEmbedding, ShardEmbeddingParams
from .blocks import row_box
from .builder import VECTOR, GraphBuilder, View, element_type, round_up, tensor_shape, tile_rule
from .linear import add_best
from .simple import linear_that_makes, lookup_block

LEAST_COLUMNS = 64
"""Of a task: fewer than this cost more in hand-off than they save."""
RANK = AffineSymExpr(0)


@dataclass(frozen=True)
class Landing:
    """Where a push writes in ``buffer``: the first element of rank r is ``rows`` * r down and ``columns`` * r right."""

    buffer: SSAValue
    rows: int = 0
    columns: int = 0

    def box(self, rows: int, step: int) -> BoxAttr:
        """``step`` columns a task, of ``rows`` rows."""
        row = RANK * self.rows if self.rows else AffineConstantExpr(0)
        column = AffineDimExpr(0) * step
        offset = AffineMap(1, 1, (row, column + RANK * self.columns if self.columns else column))
        return BoxAttr.of(Access.WRITE, offset, (rows, step), to=ALL_RANKS)


@tile_rule(tg.AllReduceOp.name)
def tile_all_reduce(op: Operation, builder: GraphBuilder) -> None:
    """Every rank's value to all ranks, and there the sum; with the residual that is all the sum is used for."""
    assert isinstance(op, tg.AllReduceOp)
    x = _bf16_rows(op.x, op.name, builder)
    rows, total = x.shape[0], x.columns
    name = builder.unique("all_reduce")
    slots = _slots(builder, f"{name}.slots", op.rank_count * rows, total, x)
    _push_to_all(builder, f"{name}.push", x, Landing(slots, rows=rows))
    add = _only_residual(op, builder)
    result = op.result if add is None else add.result
    residual = None
    if add is not None:
        residual = add.lhs if add.rhs is op.result else add.rhs
        builder.absorbed.add(add)
    _sum(builder, name, View(slots, 0, total), residual, result)


@tile_rule(tg.ReduceScatterOp.name)
def tile_reduce_scatter(op: Operation, builder: GraphBuilder) -> None:
    """Every rank's piece of the columns to the rank that adds it, and there the sum."""
    assert isinstance(op, tg.ReduceScatterOp)
    x = _bf16_rows(op.x, op.name, builder)
    rows, piece = x.shape[0], x.columns // op.rank_count
    if op.axis.value.data != 1:
        raise UnsupportedError(
            f"tile: {op.name} along dimension {op.axis.value.data}, expected 1", advice="use tg.all_reduce"
        )
    name = builder.unique("reduce_scatter")
    slots = _slots(builder, f"{name}.slots", op.rank_count * rows, piece, x)
    columns = next(c for c in range(min(piece, _columns_of_task(x.columns, builder)), 0, -1) if piece % c == 0)
    first = AffineDimExpr(0) * columns
    offset, owner = AffineMap(1, 1, (RANK * rows, first % piece)), AffineMapAttr(AffineMap(1, 0, (first // piece,)))
    _push(builder, f"{name}.push", x, columns, slots, BoxAttr.of(Access.WRITE, offset, (rows, columns), to=owner))
    _sum(builder, name, View(slots, 0, piece), None, op.result)


@tile_rule(tg.AllGatherOp.name)
def tile_all_gather(op: Operation, builder: GraphBuilder) -> None:
    """Every rank's value to its place on all ranks. What `tg.pick_largest` reads, that op takes care of."""
    assert isinstance(op, tg.AllGatherOp)
    if _is_of_argmax(op):
        return
    x = _bf16_rows(op.x, op.name, builder)
    rows, axis = x.shape[0], op.axis.value.data
    if axis > 1:
        raise UnsupportedError(f"tile: {op.name} along dimension {axis}, expected 0 or 1")
    name = builder.unique("all_gather")
    result = builder.result(op.result, f"{name}.out")
    if not isinstance(result.buffer.owner, BufferOp) or result.buffer.owner.space.data is not Space.SCRATCH:
        raise UnsupportedError(f"tile: {op.name} into a state or a result of the function")
    landing = Landing(result.buffer, rows=rows) if axis == 0 else Landing(result.buffer, columns=x.columns)
    _push_to_all(builder, f"{name}.push", x, landing)


@tile_rule(tg.ShardEmbeddingOp.name)
def tile_shard_embedding(op: Operation, builder: GraphBuilder) -> None:
    """Tasks as of `tg.embedding`."""
    assert isinstance(op, tg.ShardEmbeddingOp)
    table, ids, y = builder.view(op.table), builder.view(op.ids), builder.result(op.results[0], "embedding.out")
    assert isinstance(table.buffer.owner, BufferOp)
    shape, (tokens, total) = tensor_shape(op.ids), tensor_shape(op.table)
    rows, columns = lookup_block(shape[0], total, builder.target)
    starts = dense_i32(np.arange(builder.ranks) * tokens, (builder.ranks,))
    first = builder.buffer("first_token", Space.WEIGHT, (builder.ranks,), i32, constant=starts)
    packed = table.buffer.owner.layout.data is Layout.MMA_ROWS_16
    params = ShardEmbeddingParams(columns, rows, prod(shape[1:]), packed, tokens)
    operands = [
        GridOperand("table", table.buffer, table.whole(Access.READ, 2)),
        GridOperand("ids", ids.buffer, row_box(ids, Access.READ, rows, 2)),
        GridOperand("first", first, BoxAttr.of(Access.READ, AffineMap(2, 1, (RANK,)), (1,))),
        GridOperand("y", y.buffer, row_box(y, Access.WRITE, rows, 2, columns)),
    ]
    builder.grid("embedding", ShardEmbedding(), params, (ceil(shape[0] / rows), total // columns), operands)


@tile_rule(tg.ShardArgmaxOp.name)
def tile_shard_argmax(op: Operation, builder: GraphBuilder) -> None:
    """Nothing yet: `tg.pick_largest` does it all."""


@tile_rule(tg.PickLargestOp.name)
def tile_pick_largest(op: Operation, builder: GraphBuilder) -> None:
    """The tasks of the head say which of their columns is largest; every rank gets that of all tasks of all ranks."""
    assert isinstance(op, tg.PickLargestOp)
    gathers = [value.owner for value in (op.values, op.indices)]
    best = gathers[0].x.owner if isinstance(gathers[0], tg.AllGatherOp) else None
    if not isinstance(best, tg.ShardArgmaxOp) or not all(_is_of_argmax(gather) for gather in gathers):
        raise UnsupportedError(
            f"tile: {op.name} of computed tensors", advice="expected the gathered results of one tg.shard_argmax"
        )
    product = linear_that_makes(builder.view(best.x).buffer, builder)
    if product is None:
        raise UnsupportedError(f"tile: {best.name} of what is no product")
    rows, columns = tensor_shape(best.x)
    y = builder.result(op.result, "sampled")
    views = [_gathered(builder, view, rows) for view in add_best(product, builder, rows)]
    chunks = views[0].columns
    operands = [
        *(GridOperand(n, v.buffer, v.whole(Access.READ, 1)) for n, v in zip(("value", "column"), views, strict=True)),
        GridOperand("y", y.buffer, y.whole(Access.WRITE, 1)),
    ]
    builder.grid("select", Select(), SelectParams(chunks, rows, builder.ranks, columns), (1,), operands)


def _is_of_argmax(op: object) -> bool:
    """Whether ``op`` gathers a result of `tg.shard_argmax` for `tg.pick_largest` alone."""
    if not isinstance(op, tg.AllGatherOp) or not isinstance(op.x.owner, tg.ShardArgmaxOp):
        return False
    return all(isinstance(use.operation, tg.PickLargestOp) for use in op.result.uses)


def _gathered(builder: GraphBuilder, view: View, rows: int) -> View:
    """The [rows, chunks] of all ranks side by side."""
    assert isinstance(view.buffer.owner, BufferOp)
    name, total = view.buffer.owner.sym_name.data, view.columns * builder.ranks
    gathered = builder.buffer(f"{name}.all", Space.SCRATCH, (rows, total), element_type_of(view))
    _push_to_all(builder, f"{name}.push", view, Landing(gathered, columns=view.columns))
    return View(gathered, 0, total)


def element_type_of(view: View) -> Attribute:
    """Of the buffer that ``view`` lies in."""
    assert isinstance(view.buffer.owner, BufferOp)
    return view.buffer.owner.element_type


def _bf16_rows(value: SSAValue, op_name: str, builder: GraphBuilder) -> View:
    """``value`` as rows by columns. Raises UnsupportedError for elements that no task kind moves."""
    if not isinstance(element_type(value), BFloat16Type):
        raise UnsupportedError(f"tile: {op_name}: expected bf16, found {element_type(value)}")
    view = builder.view(value)
    if not view.columns:
        raise UnsupportedError(f"tile: {op_name}: expected two dimensions or more, found {tensor_shape(value)}")
    return view


def _slots(builder: GraphBuilder, name: str, rows: int, columns: int, like: View) -> SSAValue:
    return builder.buffer(name, Space.SCRATCH, (rows, columns), element_type_of(like))


def _columns_of_task(total: int, builder: GraphBuilder) -> int:
    return min(round_up(total, VECTOR), max(LEAST_COLUMNS, round_up(ceil(total / builder.target.num_sms), VECTOR)))


def _push_to_all(builder: GraphBuilder, name: str, x: View, landing: Landing) -> GridOp:
    columns = _columns_of_task(x.columns, builder)
    if landing.columns and x.columns % columns:  # a box past the end would reach into the columns of the next rank
        columns = x.columns
    return _push(builder, name, x, columns, landing.buffer, landing.box(x.shape[0], columns))


def _push(builder: GraphBuilder, name: str, x: View, columns: int, target: SSAValue, box: BoxAttr) -> GridOp:
    """``columns`` of x a task, written to ``box`` of ``target``."""
    assert isinstance(x.buffer.owner, BufferOp)
    x.buffer.owner.counted = UnitAttr()
    operands = [GridOperand("x", x.buffer, x.whole(Access.READ, 1)), GridOperand("y", target, box)]
    params = PushParams(columns, x.shape[0], x.columns, dtype_of(str(element_type_of(x))).bytes)
    return builder.grid(name, Push(), params, (ceil(x.columns / columns),), operands)


def _sum(builder: GraphBuilder, name: str, slots: View, residual: SSAValue | None, result: SSAValue) -> GridOp:
    y = builder.result(result, f"{name}.out")
    if y.axes and len(y.shape) == 2:  # a result of the function
        y = View(y.buffer, 0, y.shape[1])
    if not isinstance(y.buffer.owner, BufferOp) or slots.columns != y.columns:
        raise PlanError(f"tile: the sum of {slots.columns} columns has memory of {y.columns}")
    if y.buffer.owner.space.data is Space.SCRATCH:
        y.buffer.owner.counted = UnitAttr()
    rows, columns = y.shape[0], _columns_of_task(y.columns, builder)
    column = AffineMap(1, 0, (AffineConstantExpr(0), AffineDimExpr(0) * columns))
    operands = [GridOperand("slots", slots.buffer, BoxAttr.of(Access.READ, column, (slots.shape[0], columns)))]
    if residual is not None:
        view = builder.view(residual)
        operands.append(GridOperand("residual", view.buffer, view.box(Access.READ, 1, columns, columns)))
    operands.append(GridOperand("y", y.buffer, y.box(Access.WRITE, 1, columns, columns)))
    params = RankSumParams(builder.ranks, columns, rows, y.columns, residual is not None)
    return builder.grid(name, RankSum(), params, (ceil(y.columns / columns),), operands)


def _only_residual(op: tg.AllReduceOp, builder: GraphBuilder) -> tg.AddOp | None:
    """The addition that is the only user, if what it adds is there already and of the same shape."""
    users = [use.operation for use in op.result.uses]
    if len(users) != 1 or not isinstance(users[0], tg.AddOp) or users[0].lhs is users[0].rhs:
        return None
    other = users[0].lhs if users[0].rhs is op.result else users[0].rhs
    there = other in builder.views and not builder.views[other].axes
    return users[0] if there and other.type == op.result.type == users[0].result.type else None
