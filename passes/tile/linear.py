"""Tile rules of `tg.linear` and `tg.fused_linear`, and the choice of the tile count."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from xdsl.dialects.builtin import BFloat16Type, StringAttr
from xdsl.ir import Operation, SSAValue
from xdsl.ir.affine import AffineConstantExpr, AffineDimExpr, AffineMap

from ...core.errors import UnsupportedError
from ...core.target import Target
from ...dialects.sm import BoxAttr, BufferOp
from ...dialects.sm.ops import GridOperand
from ...dialects.tg import FusedLinearOp, LinearOp, ParamOp
from ...tasks.base import Access
from ...tasks.linear import TILE_ROWS, Linear, LinearParams
from .builder import VECTOR, GraphBuilder, View, element_type, tensor_shape, tile_rule
from .expand import streams_weight, tile_expanded

MAX_DEVICE_TILES = 8
"""More tiles a task would keep too many accumulators in registers."""
KIND = Linear()


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
    if not streams_weight(op):
        tile_expanded(op, builder)
        return
    form = LinearForm(op.x, op.weight, op.bias, None, None, 0.0, "none")
    _emit(form, op.results[0], builder)


@tile_rule(FusedLinearOp.name)
def tile_fused_linear(op: Operation, builder: GraphBuilder) -> None:
    """A product with its norm, bias, gate and residual."""
    assert isinstance(op, FusedLinearOp)
    if not streams_weight(op):
        tile_expanded(op, builder)
        return
    form = LinearForm(op.x, op.weight, op.bias, op.norm_weight, op.residual, op.eps.value.data, str(op.epilogue.data))
    _emit(form, op.results[0], builder)


def choose_tiles(num_tiles: int, k: int, target: Target) -> tuple[int, str]:
    """Tiles of 16 rows a task takes, and why: the least time of the slowest SM, then the fewest tasks."""
    tile_us = TILE_ROWS * k * 2 / target.sm_bytes_per_us
    limit = min(num_tiles, MAX_DEVICE_TILES if target.name != "sim" else num_tiles)

    def slowest_us(tiles: int) -> float:
        rounds = ceil(ceil(num_tiles / tiles) / target.num_sms)
        return rounds * (tiles * tile_us + target.task_overhead_us)

    best = min(range(1, limit + 1), key=lambda tiles: (round(slowest_us(tiles), 3), -tiles))
    rounds = ceil(ceil(num_tiles / best) / target.num_sms)
    return (
        best,
        f"{best} of {num_tiles} tiles a task: {rounds} rounds on {target.num_sms} SMs, {slowest_us(best):.2f} us",
    )


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
    choices = range(1, min(num_tiles, MAX_DEVICE_TILES) + 1)
    tiles = builder.decisions.choose("tiles", choices, *choose_tiles(num_tiles, k, builder.target))
    params = LinearParams(
        n=n,
        k=k,
        tiles=tiles,
        rows=rows,
        norm=form.norm_weight is not None,
        eps=form.eps,
        bias=form.bias is not None,
        residual=form.residual is not None,
        activation=form.activation,
        out="bf16" if isinstance(element_type(result), BFloat16Type) else "f32",
    )
    weight = builder.view(form.weight)
    assert isinstance(weight.buffer.owner, BufferOp)
    name = weight.buffer.owner.sym_name.data
    out = builder.result(result, f"{name}.out")
    columns = params.columns_per_task
    operands = [
        GridOperand("x", builder.view(form.x).buffer, builder.view(form.x).whole(Access.READ, 1)),
        GridOperand("weight", weight.buffer, rows_box(TILE_ROWS * tiles, k)),
        *_vector(builder, "bias", form.bias, TILE_ROWS * tiles),
        *_whole(builder, "norm_weight", form.norm_weight),
        *_columns(builder, "residual", form.residual, columns),
        GridOperand("y", out.buffer, out.box(Access.WRITE, 1, columns, columns)),
    ]
    grid = builder.grid(name, KIND, params, [ceil(num_tiles / tiles)], operands)
    grid.reason = StringAttr(builder.decisions.reason("tiles"))


def _check_types(form: LinearForm) -> None:
    for name, value in (("x", form.x), ("weight", form.weight)):
        if not isinstance(element_type(value), BFloat16Type):
            raise UnsupportedError(
                f"linear: expected {name} of bf16, found {element_type(value)}",
                advice="import the checkpoint with compute type bf16",
            )


def rows_box(rows: int, columns: int) -> BoxAttr:
    """Rows ``rows * d0`` and following, all columns."""
    offset = AffineMap(1, 0, (AffineDimExpr(0) * rows, AffineConstantExpr(0)))
    return BoxAttr.of(Access.READ, offset, (rows, columns))


def _vector(builder: GraphBuilder, name: str, value: SSAValue | None, step: int) -> list[GridOperand]:
    if value is None:
        return []
    offset = AffineMap(1, 0, (AffineDimExpr(0) * step,))
    return [GridOperand(name, builder.view(value).buffer, BoxAttr.of(Access.READ, offset, (step,)))]


def _whole(builder: GraphBuilder, name: str, value: SSAValue | None) -> list[GridOperand]:
    if value is None:
        return []
    view: View = builder.view(value)
    return [GridOperand(name, view.buffer, view.whole(Access.READ, 1))]


def _columns(builder: GraphBuilder, name: str, value: SSAValue | None, step: int) -> list[GridOperand]:
    if value is None:
        return []
    view = builder.view(value)
    return [GridOperand(name, view.buffer, view.box(Access.READ, 1, step, step))]
