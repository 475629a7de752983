"""Tile rules of the remaining ops: lookups, norms, elementwise functions, views, argmax, bookkeeping."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, prod

from xdsl.dialects.builtin import BFloat16Type, Float32Type, i32
from xdsl.ir import Operation, SSAValue

from ...core.errors import PlanError, UnsupportedError
from ...core.memory import BLOCK_ROWS, Layout, Space
from ...core.target import Target
from ...dialects import tg
from ...dialects.sm import BufferOp, GridOp
from ...dialects.sm.ops import GridOperand
from ...tasks.advance import Advance, AdvanceParams
from ...tasks.argmax import Argmax, ArgmaxParams
from ...tasks.base import CONSUMER_THREADS, Access
from ...tasks.elementwise import Elementwise, ElementwiseParams
from ...tasks.embedding import Embedding, EmbeddingParams
from ...tasks.last_rows import LastRows, LastRowsParams
from ...tasks.linear import Linear
from ...tasks.rms_norm import RmsNorm, RmsNormParams
from ...tasks.select import Select, SelectParams
from .blocks import is_blocked, row_box, rows_of_task, tile_blocks, wants_blocks
from .builder import VECTOR, GraphBuilder, View, element_type, round_up, tensor_shape, tile_rule
from .expand import MAX_ROWS, tile_expanded_norm
from .general import tile_strided_rms_norm
from .linear import add_best
from .map import NAMES, tile_map

LEAST_COLUMNS = 64
"""Of an elementwise task: fewer than this cost more in hand-off than they save."""


@tile_rule(tg.EmbeddingOp.name)
def tile_embedding(op: Operation, builder: GraphBuilder) -> None:
    """Tasks of columns of all rows; of many rows, a task an SM."""
    assert isinstance(op, tg.EmbeddingOp)
    table, ids, y = builder.view(op.table), builder.view(op.ids), builder.result(op.results[0], "embedding.out")
    assert isinstance(table.buffer.owner, BufferOp)
    packed = table.buffer.owner.layout.data is Layout.MMA_ROWS_16
    shape, total = tensor_shape(op.ids), tensor_shape(op.table)[1]
    rows, columns = lookup_block(shape[0], total, builder.target)
    operands = [
        GridOperand("table", table.buffer, table.whole(Access.READ, 2)),
        GridOperand("ids", ids.buffer, row_box(ids, Access.READ, rows, 2)),
        GridOperand("y", y.buffer, row_box(y, Access.WRITE, rows, 2, columns)),
    ]
    params = EmbeddingParams(columns, rows, prod(shape[1:]), packed)
    builder.grid("embedding", Embedding(), params, (ceil(shape[0] / rows), total // columns), operands)


def lookup_block(rows: int, columns: int, target: Target) -> tuple[int, int]:
    """(rows, columns) of a task that looks up ``rows`` rows of a table of ``columns``.

    A row's trip to memory is long and its bytes are few, so SMs share what rows there are until a thread has one
    vector. They share columns: a task has the first row, of which all know that it is active, so that who has seen its
    words knows that it has read the ids (`Operand.tells`), and `advance` writes those without an event to wait for.
    """
    if rows > MAX_ROWS:
        return rows_of_task(rows, target), columns
    shared = [c for c in range(VECTOR, columns, VECTOR) if columns % c == 0 and columns // c <= target.num_sms]
    shared.append(columns)
    return rows, max((c for c in shared if rows * c <= CONSUMER_THREADS * VECTOR), default=shared[0])


@tile_rule(tg.RmsNormOp.name)
def tile_rms_norm(op: Operation, builder: GraphBuilder) -> None:
    """Groups of columns, as few a task as the SMs allow."""
    assert isinstance(op, tg.RmsNormOp)
    if wants_blocks(op.results[0]):
        builder.views[op.results[0]] = tile_blocks(op.x, builder, op.weight, float(op.eps.value.data))
        return
    if _takes_active_rows(op, builder):
        _tile_norm(op, None, builder)
    else:
        tile_strided_rms_norm(op, builder)


@tile_rule(tg.FusedNormOp.name)
def tile_fused_norm(op: Operation, builder: GraphBuilder) -> None:
    """One task: its block takes all of a row at once."""
    assert isinstance(op, tg.FusedNormOp)
    if _takes_active_rows(op, builder):
        _tile_norm(op, op.residual, builder)
    else:
        tile_expanded_norm(op, builder)


def _takes_active_rows(op: tg.RmsNormOp | tg.FusedNormOp, builder: GraphBuilder) -> bool:
    """Whether task kind `rms_norm` computes ``op``: of some rows, in bf16 and whole vectors."""
    if "row_count" not in builder.states or not isinstance(element_type(op.x), BFloat16Type):
        return False
    views = [builder.view(value) for value in op.operands]
    views += [builder.views[op.result]] if op.result in builder.views else []
    return all(size % VECTOR == 0 for size in (tensor_shape(op.x)[-1], *(view.first for view in views)))


def _tile_norm(op: tg.RmsNormOp | tg.FusedNormOp, residual: SSAValue | None, builder: GraphBuilder) -> None:
    shape = tensor_shape(op.x)
    width, groups = shape[-1], prod(shape[1:-1])
    name = builder.unique("rms_norm")
    x, y, weight = builder.view(op.x), builder.result(op.results[0], f"{name}.out"), builder.view(op.weight)
    per_task = ceil(groups / builder.target.num_sms)
    while groups % per_task:
        per_task += 1
    columns = per_task * width
    operands = [
        GridOperand("x", x.buffer, x.box(Access.READ, 1, columns, columns)),
        GridOperand("weight", weight.buffer, weight.whole(Access.READ, 1)),
    ]
    if residual is not None:
        added = builder.view(residual)
        operands.append(GridOperand("residual", added.buffer, added.box(Access.READ, 1, columns, columns)))
    operands.append(GridOperand("y", y.buffer, y.box(Access.WRITE, 1, columns, columns)))
    params = RmsNormParams(width, per_task, shape[0], float(op.eps.value.data), residual is not None)
    builder.grid(name, RmsNorm(), params, (groups // per_task,), operands)


def _rule_of_elementwise(kind: type[Operation]) -> Callable[[Operation, GraphBuilder], None]:
    function = ROW_FUNCTIONS.get(kind)

    def rule(op: Operation, builder: GraphBuilder) -> None:
        if function is not None and _is_of_active_rows(op, builder):
            _tile_rows(function, op, builder)
        else:
            tile_map(op, builder)

    return rule


def _is_of_active_rows(op: Operation, builder: GraphBuilder) -> bool:
    """Whether only some rows of the step are active, and rows and columns are all there is to know of the operands."""
    shape = tensor_shape(op.results[0])
    plain = all(tensor_shape(o) == shape and isinstance(element_type(o), BFloat16Type) for o in op.operands)
    return plain and "row_count" in builder.states


def _tile_rows(function: str, op: Operation, builder: GraphBuilder) -> None:
    """Blocks of columns, of the active rows alone."""
    shape, name = tensor_shape(op.results[0]), builder.unique(function)
    views = [builder.view(operand) for operand in op.operands]
    y = builder.result(op.results[0], f"{name}.out")
    total = prod(shape[1:])
    columns = max(LEAST_COLUMNS, round_up(ceil(total / builder.target.num_sms), VECTOR))
    if any(view.first + total != view.shape[-1] for view in (*views, y)) and total % columns:
        columns = next(c for c in range(min(columns, total), total + 1) if total % c == 0)
    operands = [
        GridOperand(role, view.buffer, view.box(Access.READ, 1, columns, columns))
        for role, view in zip("ab", views, strict=False)
    ]
    operands.append(GridOperand("y", y.buffer, y.box(Access.WRITE, 1, columns, columns)))
    params = ElementwiseParams(function, columns, shape[0], total)
    builder.grid(name, Elementwise(), params, (ceil(total / columns),), operands)


ROW_FUNCTIONS: dict[type[Operation], str] = {
    tg.AddOp: "add",
    tg.SubOp: "sub",
    tg.MulOp: "mul",
    tg.DivOp: "div",
    tg.SiluOp: "silu",
    tg.ExpOp: "exp",
    tg.NegOp: "neg",
    tg.SiluMulOp: "silu_mul",
}
"""What `elementwise` computes, for the active rows of a step."""

for _kind in NAMES:
    tile_rule(_kind.name)(_rule_of_elementwise(_kind))


@tile_rule(tg.ArgmaxOp.name)
def tile_argmax(op: Operation, builder: GraphBuilder) -> None:
    """A task a chunk of columns, and one that puts the chunks together. The tasks of a product say themselves which of
    their columns is largest."""
    assert isinstance(op, tg.ArgmaxOp)
    rows, columns = tensor_shape(op.x)
    if not isinstance(element_type(op.x), Float32Type):
        raise UnsupportedError(f"argmax: expected logits of f32, found {element_type(op.x)}")
    y = builder.result(op.results[0], "sampled")
    product = linear_that_makes(builder.view(op.x).buffer, builder)
    if product is not None:
        _select(builder, add_best(product, builder, rows), rows, y)
    else:
        _select(builder, _argmax_chunks(builder, builder.view(op.x), rows, columns), rows, y)


def linear_that_makes(buffer: SSAValue, builder: GraphBuilder) -> GridOp | None:
    """The linear grid that alone writes ``buffer``."""
    writers = [
        op
        for op in builder.block.ops
        if isinstance(op, GridOp)
        for value, box in zip(op.data, op.boxes, strict=True)
        if value is buffer and box.mode.writes
    ]
    return writers[0] if len(writers) == 1 and writers[0].kind.data == Linear.name else None


def _argmax_chunks(builder: GraphBuilder, x: View, rows: int, columns: int) -> tuple[View, View]:
    """Values and columns, [rows, chunks] each, of the largest element of each chunk."""
    chunk = round_up(ceil(columns / builder.target.num_sms), 16 * VECTOR)
    chunks = ceil(columns / chunk)
    value = View(builder.buffer("argmax.value", Space.SCRATCH, (rows, chunks), Float32Type()), 0, chunks)
    column = View(builder.buffer("argmax.column", Space.SCRATCH, (rows, chunks), i32), 0, chunks)
    operands = [
        GridOperand("x", x.buffer, x.box(Access.READ, 1, chunk, chunk)),
        GridOperand("value", value.buffer, value.box(Access.WRITE, 1, 1, 1)),
        GridOperand("column", column.buffer, column.box(Access.WRITE, 1, 1, 1)),
    ]
    builder.grid("argmax", Argmax(), ArgmaxParams(columns, chunk, rows), (chunks,), operands)
    return value, column


def _select(builder: GraphBuilder, chunks: tuple[View, View], rows: int, y: View) -> None:
    value, column = chunks
    operands = [
        GridOperand("value", value.buffer, value.whole(Access.READ, 1)),
        GridOperand("column", column.buffer, column.whole(Access.READ, 1)),
        GridOperand("y", y.buffer, y.whole(Access.WRITE, 1)),
    ]
    builder.grid("select", Select(), SelectParams(value.columns, rows), (1,), operands)


@tile_rule(tg.LastRowsOp.name)
def tile_last_rows(op: Operation, builder: GraphBuilder) -> None:
    """One task."""
    assert isinstance(op, tg.LastRowsOp)
    batch, columns = tensor_shape(op.results[0])
    x, requests, y = builder.view(op.x), builder.view(op.requests), builder.result(op.results[0], "last_rows.out")
    block_rows = round_up(tensor_shape(op.x)[0], BLOCK_ROWS) if is_blocked(x) else 0
    operands = [
        GridOperand("x", x.buffer, x.whole(Access.READ, 1)),
        GridOperand("requests", requests.buffer, requests.whole(Access.READ, 1)),
        GridOperand("y", y.buffer, y.whole(Access.WRITE, 1)),
    ]
    builder.grid("last_rows", LastRows(), LastRowsParams(columns, batch, block_rows), (1,), operands)


@tile_rule(tg.AdvanceOp.name)
def tile_advance(op: Operation, builder: GraphBuilder) -> None:
    """One task; the request state is updated in place."""
    assert isinstance(op, tg.AdvanceOp)
    names = ("history", "requests", "rows", "row_count")
    operands = [GridOperand("sampled", builder.view(op.sampled).buffer, builder.view(op.sampled).whole(Access.READ, 1))]
    for name, old, new in zip(names, op.operands[1:], op.results, strict=True):
        view = builder.view(old)
        builder.views[new] = view
        operands.append(GridOperand(name, view.buffer, view.whole(Access.READ_WRITE, 1)))
    batch, max_length = tensor_shape(op.history)
    rows, by_request = tensor_shape(op.rows)[0], op.by_request is not None
    if batch > rows:
        raise PlanError(f"advance: {batch} requests need as many rows a step, found {rows}", advice="raise `rows`")
    stops = tuple(tg.int_list(op.stop_tokens))
    builder.grid("advance", Advance(), AdvanceParams(batch, rows, max_length, stops, by_request), (1,), operands)
