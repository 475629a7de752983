"""Tile rules of `tg.linear` and `tg.fused_linear`, and the choice of the tile count."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from xdsl.dialects.builtin import BFloat16Type, Float32Type, StringAttr, i32
from xdsl.ir import Operation, SSAValue
from xdsl.ir.affine import AffineConstantExpr, AffineDimExpr, AffineExpr, AffineMap

from ...core.errors import UnsupportedError
from ...core.memory import Space
from ...core.target import SIM, Target
from ...dialects.sm import BoxAttr, BufferOp, GridOp
from ...dialects.sm.ops import GridOperand
from ...dialects.tg import FusedLinearOp, LinearOp, ParamOp
from ...tasks.base import Access
from ...tasks.linear import MAX_ROWS, MAX_TILES, TILE_ROWS, Linear, LinearParams, is_whole
from .blocks import is_wide
from .builder import VECTOR, GraphBuilder, View, element_type, tensor_shape, tile_rule
from .expand import streams_weight, tile_expanded
from .wide import tile_wide

KIND = Linear()
MANY_TILES = 6
"""Of a task: three passes of two instead of two of three (measured on an H200; with three, one pass is best)."""


@dataclass(frozen=True)
class LinearForm:
    """What `tg.linear` and `tg.fused_linear` have in common once read from the op."""

    x: SSAValue
    weight: SSAValue
    bias: SSAValue | None
    norm_weight: SSAValue | None
    residual: SSAValue | None
    eps: float
    activation: str


@tile_rule(LinearOp.name)
def tile_linear(op: Operation, builder: GraphBuilder) -> None:
    """A product alone."""
    assert isinstance(op, LinearOp)
    if is_wide(op):
        tile_wide(op, builder)
        return
    if not streams_weight(op):
        tile_expanded(op, builder)
        return
    form = LinearForm(op.x, op.weight, op.bias, None, None, 0.0, "none")
    _emit(form, op.results[0], builder)


@tile_rule(FusedLinearOp.name)
def tile_fused_linear(op: Operation, builder: GraphBuilder) -> None:
    """A product with its norm, bias, gate and residual."""
    assert isinstance(op, FusedLinearOp)
    if is_wide(op):
        tile_wide(op, builder)
        return
    if not streams_weight(op):
        tile_expanded(op, builder)
        return
    form = LinearForm(op.x, op.weight, op.bias, op.norm_weight, op.residual, op.eps.value.data, str(op.epilogue.data))
    _emit(form, op.results[0], builder)


def choose_tiles(num_tiles: int, k: int, target: Target) -> tuple[int, str]:
    """(tiles of 16 rows a task, why) for ``num_tiles`` tiles: a task an SM, dealt evenly."""
    tiles = ceil(num_tiles / target.num_sms)
    tasks = ceil(num_tiles / tiles)
    task_us = tiles * TILE_ROWS * k * 2 / target.sm_bytes_per_us + target.task_overhead_us
    return tiles, f"{tiles} tiles a task: {tasks} tasks on {target.num_sms} SMs, {task_us:.2f} us each"


def choose_most(tiles: int, rows: int) -> tuple[int, str]:
    """(tiles of a pass at most, why) where passes share one load of x: sums of more than 8 rows take shared memory from
    the ring, and more and smaller passes cost less than that if there are many tiles."""
    half = MAX_TILES // 2
    if tiles >= MANY_TILES:
        return half, f"{half} tiles a pass: sums of {rows} rows leave shared memory to the ring"
    return MAX_TILES, f"{MAX_TILES} tiles a pass: {tiles} are too few for more passes"


def _tiles_of_pass(builder: GraphBuilder, tiles: int, k: int, rows: int) -> int:
    half, most = MAX_TILES // 2, MAX_TILES
    if tiles > half and rows > MAX_ROWS // 2 and is_whole(k, rows):
        most = builder.decisions.choose("pass_tiles", (half, MAX_TILES), *choose_most(tiles, rows))
    return ceil(tiles / ceil(tiles / most))


def _emit(form: LinearForm, result: SSAValue, builder: GraphBuilder) -> None:
    n, k = tensor_shape(form.weight)
    rows = tensor_shape(form.x)[0]
    if k % VECTOR:
        raise UnsupportedError(f"linear: the kernel reads {VECTOR} elements at once; {k} input columns do not divide")
    _check_types(form)
    if not isinstance(form.weight.owner, ParamOp):
        raise UnsupportedError(
            "linear: expected a parameter as weight, found a computed value",
            advice="weights are packed before the launch and streamed ahead of every event",
        )
    num_tiles = ceil(n / TILE_ROWS)
    planned = choose_tiles(num_tiles, k, builder.target)
    tiles = builder.decisions.choose("tiles", range(1, num_tiles + 1), *planned)
    block = _rows_of_task(builder, rows, ceil(num_tiles / tiles))
    params = LinearParams(
        n=n,
        k=k,
        tiles=tiles,
        pass_tiles=_tiles_of_pass(builder, tiles, k, block),
        rows=block,
        norm=form.norm_weight is not None,
        eps=form.eps,
        bias=form.bias is not None,
        residual=form.residual is not None,
        best=False,
        activation=form.activation,
        out="bf16" if isinstance(element_type(result), BFloat16Type) else "f32",
        total_rows=rows if rows % block else 0,
    )
    weight = builder.view(form.weight)
    assert isinstance(weight.buffer.owner, BufferOp)
    name = weight.buffer.owner.sym_name.data
    out = builder.result(result, f"{name}.out")
    extent = [ceil(n / params.weight_rows), ceil(rows / params.rows)]
    blocks = _Blocks(builder, params, extent if extent[1] > 1 else extent[:1])
    operands = [
        blocks.rows_of("x", form.x),
        GridOperand("weight", weight.buffer, blocks.weight_box()),
        *blocks.vector("bias", form.bias, params.weight_rows),
        *blocks.vector("norm_weight", form.norm_weight, 0),
        *blocks.columns_of("residual", form.residual),
        GridOperand("y", out.buffer, blocks.column_box(out, Access.WRITE)),
    ]
    grid = builder.grid(name, KIND, params, blocks.extent, operands)
    grid.reason = StringAttr(builder.decisions.reason("tiles", "rows", "pass_tiles"))


def _rows_of_task(builder: GraphBuilder, rows: int, tasks: int) -> int:
    """Of x, with ``tasks`` tasks for each block of rows. The simulator takes all at once."""
    if builder.target is SIM or rows <= MAX_ROWS // 2:
        return rows
    half, most = MAX_ROWS // 2, min(rows, MAX_ROWS)
    if 2 * tasks <= builder.target.num_sms:
        return builder.decisions.choose(
            "rows", (half, most), half, f"{half} rows a task: there are SMs for twice {tasks}"
        )
    reason = f"{most} rows a task: its weights are read once for them"
    return builder.decisions.choose("rows", (half, most), most, reason)


def _check_types(form: LinearForm) -> None:
    for name, value in (("x", form.x), ("weight", form.weight)):
        if not isinstance(element_type(value), BFloat16Type):
            raise UnsupportedError(
                f"linear: expected {name} of bf16, found {element_type(value)}",
                advice="import the checkpoint with compute type bf16",
            )


@dataclass(frozen=True)
class _Blocks:
    """The boxes of a task: index 0 is the block of weight rows, index 1, if there is one, the block of rows of x."""

    builder: GraphBuilder
    params: LinearParams
    extent: list[int]

    def _map(self, *exprs: AffineExpr) -> AffineMap:
        return AffineMap(len(self.extent), 0, exprs)

    @property
    def _first_row(self) -> AffineExpr:
        return AffineDimExpr(1) * self.params.rows if len(self.extent) > 1 else AffineConstantExpr(0)

    def weight_box(self) -> BoxAttr:
        size = self.params.weight_rows
        offset = self._map(AffineDimExpr(0) * size, AffineConstantExpr(0))
        return BoxAttr.of(Access.READ, offset, (size, self.params.k))

    def rows_of(self, name: str, value: SSAValue) -> GridOperand:
        view = self.builder.view(value)
        offset = self._map(self._first_row, AffineConstantExpr(view.first))
        return GridOperand(name, view.buffer, BoxAttr.of(Access.READ, offset, (self.params.rows, view.columns)))

    def column_box(self, view: View, access: Access) -> BoxAttr:
        width = self.params.columns_per_task
        offset = self._map(self._first_row, AffineDimExpr(0) * width + view.first)
        return BoxAttr.of(access, offset, (self.params.rows, width))

    def columns_of(self, name: str, value: SSAValue | None) -> list[GridOperand]:
        if value is None:
            return []
        view = self.builder.view(value)
        return [GridOperand(name, view.buffer, self.column_box(view, Access.READ))]

    def vector(self, name: str, value: SSAValue | None, step: int) -> list[GridOperand]:
        """``step`` elements a block of weight rows; 0: all of them in every task."""
        if value is None:
            return []
        view = self.builder.view(value)
        first = AffineDimExpr(0) * step if step else AffineConstantExpr(0)
        return [GridOperand(name, view.buffer, BoxAttr.of(Access.READ, self._map(first), (step or view.shape[0],)))]


def add_best(grid: GridOp, builder: GraphBuilder, rows: int) -> tuple[View, View]:
    """Let each task of a linear grid say which of its columns is largest in each row: (values, columns), both [rows,
    tasks]."""
    tasks = grid.shape[0]
    blocks = [
        View(builder.buffer(f"{grid.sym_name.data}.best_{name}", Space.SCRATCH, (rows, tasks), element), 0, tasks)
        for name, element in (("value", Float32Type()), ("column", i32))
    ]
    params = grid.task_params
    assert isinstance(params, LinearParams)
    operands = [
        GridOperand(*row) for row in zip((n.data for n in grid.operand_names), grid.data, grid.boxes, strict=True)
    ]
    dims = len(grid.shape)
    for name, view in zip(("best_value", "best_column"), blocks, strict=True):
        row = AffineDimExpr(1) * params.rows if dims > 1 else AffineConstantExpr(0)
        box = BoxAttr.of(Access.WRITE, AffineMap(dims, 0, (row, AffineDimExpr(0))), (params.rows, 1))
        operands.append(GridOperand(name, view.buffer, box))
    wider = GridOp(grid.sym_name.data, KIND, replace(params, best=True), grid.shape, operands)
    wider.reason = grid.reason
    builder.replace(grid, wider)
    return blocks[0], blocks[1]
