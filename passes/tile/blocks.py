"""Which products run on wgmma, and the layout that they take activations in."""

from __future__ import annotations

from math import ceil

from xdsl.dialects.builtin import BFloat16Type, DenseArrayBase, i64
from xdsl.ir import Operation, SSAValue
from xdsl.ir.affine import AffineConstantExpr, AffineDimExpr, AffineMap

from ...core.memory import BLOCK_COLUMNS, BLOCK_ROWS, Layout, Space
from ...core.target import Target
from ...dialects import tg
from ...dialects.sm import BoxAttr, BufferOp, LayoutAttr
from ...dialects.sm.ops import GridOperand
from ...tasks.base import Access
from ...tasks.block_rows import BlockRows, BlockRowsParams
from ...tasks.linear import TILE_ROWS
from ...tasks.wide_linear import STEP_COLUMNS
from .builder import GraphBuilder, View, element_type, round_up, tensor_shape
from .expand import MAX_ROWS, AnyLinear


def is_wide(op: AnyLinear) -> bool:
    """Whether task kind `wide_linear` computes ``op``: bf16, a weight that is a parameter, whole tiles, many rows."""
    values = (op.x, op.weight, op.result, *([op.bias] if op.bias is not None else []))
    normed = isinstance(op, tg.FusedLinearOp) and op.norm_weight is not None
    given = isinstance(op.weight.owner, tg.ParamOp) and (op.bias is None or isinstance(op.bias.owner, tg.ParamOp))
    rows, k = tensor_shape(op.x)
    whole = k % STEP_COLUMNS == 0 and tensor_shape(op.weight)[0] % TILE_ROWS == 0
    bf16 = all(isinstance(element_type(value), BFloat16Type) for value in values)
    return rows > MAX_ROWS and bf16 and given and not normed and whole


def wants_blocks(value: SSAValue) -> bool:
    """Whether ``value`` is the activation of products on wgmma, and nothing else; or rows are chosen from it."""
    users = [use.operation for use in value.uses]
    return bool(users) and all(_takes_blocks(user, value) for user in users)


def _takes_blocks(user: Operation, value: SSAValue) -> bool:
    if isinstance(user, tg.LastRowsOp):
        return tensor_shape(value)[0] > MAX_ROWS
    wide = isinstance(user, tg.LinearOp | tg.FusedLinearOp) and user.x is value and is_wide(user)
    return wide and list(user.operands).count(value) == 1


def blocked_buffer(value: SSAValue, name: str, builder: GraphBuilder) -> View:
    """Scratch for ``value`` [R, K] in `Layout.K_BLOCKS_64`."""
    rows, columns = tensor_shape(value)
    padded = [round_up(rows, BLOCK_ROWS), round_up(columns, BLOCK_COLUMNS)]
    props = {"layout": LayoutAttr(Layout.K_BLOCKS_64), "padded": DenseArrayBase.from_list(i64, padded)}
    return View(builder.buffer(name, Space.SCRATCH, (rows, columns), element_type(value), **props), 0, columns)


def is_blocked(view: View) -> bool:
    """Whether ``view`` is of a buffer in `Layout.K_BLOCKS_64`."""
    return isinstance(view.buffer.owner, BufferOp) and view.buffer.owner.layout.data is Layout.K_BLOCKS_64


def blocked_view(value: SSAValue, builder: GraphBuilder) -> View:
    """``value`` in `Layout.K_BLOCKS_64`, brought into it if it is not."""
    if value in builder.blocked:
        return builder.blocked[value]
    known = builder.views.get(value)
    builder.blocked[value] = known if known is not None and is_blocked(known) else tile_blocks(value, builder)
    return builder.blocked[value]


def tile_blocks(x: SSAValue, builder: GraphBuilder, norm_weight: SSAValue | None = None, eps: float = 0.0) -> View:
    """A task an SM that brings rows of ``x``, normed if there is a weight for it, into `Layout.K_BLOCKS_64`."""
    rows, columns = tensor_shape(x)
    source, name = builder.view(x), builder.unique("block_rows")
    y = blocked_buffer(x, f"{name}.out", builder)
    mine = rows_of_task(rows, builder.target)
    operands = [GridOperand("x", source.buffer, row_box(source, Access.READ, mine))]
    if norm_weight is not None:
        weight = builder.view(norm_weight)
        operands.append(GridOperand("weight", weight.buffer, weight.whole(Access.READ, 1)))
    operands.append(GridOperand("y", y.buffer, row_box(y, Access.WRITE, mine)))
    padded = round_up(rows, BLOCK_ROWS)
    params = BlockRowsParams(columns, mine, padded, norm_weight is not None, eps)
    builder.grid(name, BlockRows(), params, (ceil(rows / mine),), operands)
    return y


def rows_of_task(rows: int, target: Target) -> int:
    """``rows`` dealt evenly to the SMs."""
    return ceil(rows / target.num_sms)


def row_box(view: View, access: Access, rows: int, dims: int = 1, columns: int = 0) -> BoxAttr:
    """Rows ``rows * d0`` and as many more, in the columns of ``view``; or in ``columns`` of them, from ``columns * d1``
    on."""
    column = AffineDimExpr(1) * columns + view.first if columns else AffineConstantExpr(view.first)
    first = (AffineDimExpr(0) * rows, column)
    if len(view.shape) == 1:
        return BoxAttr.of(access, AffineMap(dims, 0, first[:1]), (rows,))
    return BoxAttr.of(access, AffineMap(dims, 0, first), (rows, columns or view.columns or view.shape[1]))
