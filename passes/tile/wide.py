"""The tile rule of products of many rows, on wgmma."""

from __future__ import annotations

from math import ceil

from xdsl.dialects.builtin import StringAttr
from xdsl.ir import SSAValue
from xdsl.ir.affine import AffineConstantExpr, AffineDimExpr, AffineExpr, AffineMap

from ...core.target import Target
from ...dialects import tg
from ...dialects.sm import BoxAttr, BufferOp
from ...dialects.sm.ops import GridOperand
from ...tasks.base import Access
from ...tasks.wide_linear import FEATURES, ROW_CHOICES, WideLinear, WideLinearParams, wide_linear_us
from .blocks import blocked_buffer, blocked_view, wants_blocks
from .builder import GraphBuilder, View, tensor_shape
from .expand import AnyLinear

COLUMN, ROW = AffineDimExpr(0), AffineDimExpr(1)


def choose_rows(n: int, k: int, rows: int, target: Target) -> tuple[int, str]:
    """(rows of x a task, why): least time of the slowest SM, tasks being dealt evenly."""
    found: list[tuple[float, int, str]] = []
    for block in ROW_CHOICES:
        tasks = ceil(n / FEATURES) * ceil(rows / block)
        rounds = ceil(tasks / target.num_sms)
        task_us = wide_linear_us(k, block, rows)
        reason = f"{block} rows a task: {tasks} tasks on {target.num_sms} SMs, {rounds} rounds of {task_us:.1f} us"
        found.append((rounds * task_us, block, reason))
    _, block, reason = min(found)
    return block, reason


def tile_wide(op: AnyLinear, builder: GraphBuilder) -> None:
    """A product with its bias, gate and residual; its result goes where the next product takes it from, if one does."""
    (n, k), total = tensor_shape(op.weight), tensor_shape(op.x)[0]
    fused = isinstance(op, tg.FusedLinearOp)
    residual = op.residual if fused else None
    blocked = wants_blocks(op.result) and op.result not in builder.views
    block = builder.decisions.choose("rows", ROW_CHOICES, *choose_rows(n, k, total, builder.target))
    activation = str(op.epilogue.data) if fused else "none"
    params = WideLinearParams(n, k, block, total, op.bias is not None, residual is not None, activation, blocked)
    x, weight = blocked_view(op.x, builder), builder.view(op.weight)
    assert isinstance(weight.buffer.owner, BufferOp)
    name = weight.buffer.owner.sym_name.data
    if blocked:
        builder.views[op.result] = blocked_buffer(op.result, f"{name}.out", builder)
    y = builder.result(op.result, f"{name}.out")
    operands = [
        GridOperand("x", x.buffer, _box(Access.READ, (ROW * block, _constant(x.first)), (block, k))),
        GridOperand("weight", weight.buffer, _box(Access.READ, (COLUMN * FEATURES, _constant(0)), (FEATURES, k))),
        *_vector("bias", op.bias, builder),
        *([] if residual is None else [_columns("residual", builder.view(residual), Access.READ, params)]),
        _columns("y", y, Access.WRITE, params),
    ]
    grid = builder.grid(name, WideLinear(), params, (ceil(n / FEATURES), ceil(total / block)), operands)
    grid.reason = StringAttr(builder.decisions.reason("rows"))


def _constant(value: int) -> AffineExpr:
    return AffineConstantExpr(value)


def _box(access: Access, first: tuple[AffineExpr, ...], sizes: tuple[int, ...]) -> BoxAttr:
    return BoxAttr.of(access, AffineMap(2, 0, first), sizes)


def _vector(role: str, value: SSAValue | None, builder: GraphBuilder) -> list[GridOperand]:
    if value is None:
        return []
    return [GridOperand(role, builder.view(value).buffer, _box(Access.READ, (COLUMN * FEATURES,), (FEATURES,)))]


def _columns(role: str, view: View, access: Access, params: WideLinearParams) -> GridOperand:
    """The block of columns of y that the task's weight rows make, in its block of rows."""
    width = params.columns_per_task
    box = _box(access, (ROW * params.rows, COLUMN * width + view.first), (params.rows, width))
    return GridOperand(role, view.buffer, box)
