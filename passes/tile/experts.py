"""Tile rules of mixture of experts."""

from __future__ import annotations

from math import ceil

from xdsl.dialects.builtin import BFloat16Type, Float32Type, StringAttr
from xdsl.ir import Operation, SSAValue
from xdsl.ir.affine import AffineConstantExpr, AffineMap

from ...core.errors import UnsupportedError
from ...core.target import Target
from ...dialects import tg
from ...dialects.sm import BoxAttr
from ...dialects.sm.ops import GridOperand
from ...tasks.base import Access
from ...tasks.expert_sum import ExpertSum, ExpertSumParams
from ...tasks.grouped_linear import MAX_K, GroupedLinear, GroupedLinearParams
from ...tasks.top_k_gate import TopKGate, TopKGateParams
from .builder import VECTOR, GraphBuilder, View, element_type, round_up, tensor_shape, tile_rule

LEAST_COLUMNS = 64
"""Of an `expert_sum` task: fewer cost more in hand-off than they save."""


@tile_rule(tg.TopKGateOp.name)
def tile_top_k_gate(op: Operation, builder: GraphBuilder) -> None:
    """One task, a warp a row."""
    assert isinstance(op, tg.TopKGateOp)
    if not isinstance(element_type(op.logits), Float32Type):
        raise UnsupportedError(f"top_k_gate: expected logits of f32, found {element_type(op.logits)}")
    rows, experts = tensor_shape(op.logits)
    name = builder.unique("top_k_gate")
    logits = builder.view(op.logits)
    weights, chosen = (builder.result(value, f"{name}.{part}") for value, part in zip(op.results, _GATE, strict=True))
    operands = [
        GridOperand("logits", logits.buffer, logits.whole(Access.READ, 1)),
        GridOperand("weights", weights.buffer, weights.whole(Access.WRITE, 1)),
        GridOperand("experts", chosen.buffer, chosen.whole(Access.WRITE, 1)),
    ]
    builder.grid(name, TopKGate(), TopKGateParams(experts, op.k.value.data, rows), (1,), operands)


_GATE = ("weights", "experts")


@tile_rule(tg.GroupedLinearOp.name)
def tile_grouped_linear(op: Operation, builder: GraphBuilder) -> None:
    """A task an SM, among which the work is dealt at run time, some columns of one expert at a time."""
    assert isinstance(op, tg.GroupedLinearOp)
    n, k = tensor_shape(op.result)[2], tensor_shape(op.weight)[1]
    rows, slots = tensor_shape(op.experts)
    _require_size(op, k)
    columns = builder.decisions.choose(
        "columns", range(VECTOR, round_up(n, VECTOR) + 1, VECTOR), *choose_columns(n, slots, builder.target)
    )
    params = GroupedLinearParams(
        experts=op.num_experts.value.data,
        n=n,
        k=k,
        slots=slots,
        rows=rows,
        columns=columns,
        takers=builder.target.num_sms,
        gated=op.gated is not None,
        per_slot=len(tensor_shape(op.x)) == 3,
    )
    weight = builder.strided(op.weight)
    x, experts, y = builder.view(op.x), builder.view(op.experts), builder.result(op.result, "experts.out")
    operands = [
        GridOperand("x", x.buffer, x.whole(Access.READ, 1)),
        GridOperand("weight", weight.buffer, weight.whole(Access.READ, 1)),
        GridOperand("experts", experts.buffer, experts.whole(Access.READ, 1)),
        GridOperand("y", y.buffer, _dealt(y)),
    ]
    grid = builder.grid(_name_of(op.weight), GroupedLinear(), params, (params.takers,), operands)
    grid.reason = StringAttr(builder.decisions.reason("columns"))


def choose_columns(n: int, slots: int, target: Target) -> tuple[int, str]:
    """(columns an item, why): the least for the SM with most, where a row chose ``slots`` experts of ``n`` columns."""
    most = {
        width: ceil(slots * ceil(n / width) / target.num_sms) * width for width in range(VECTOR, n + VECTOR, VECTOR)
    }
    columns = min(most, key=lambda width: (most[width], -width))
    items = slots * ceil(n / columns)
    return columns, f"{columns} columns an item: {items} items a row on {target.num_sms} SMs"


def _require_size(op: tg.GroupedLinearOp, k: int) -> None:
    for name, value in (("x", op.x), ("weight", op.weight)):
        if not isinstance(element_type(value), BFloat16Type):
            raise UnsupportedError(f"grouped_linear: expected {name} of bf16, found {element_type(value)}")
    if k % VECTOR or k > MAX_K:
        raise UnsupportedError(
            f"grouped_linear: found {k} input columns, expected a multiple of {VECTOR} up to {MAX_K}"
        )


def _dealt(view: View) -> BoxAttr:
    """All of a result, of which each task writes a part that is found at run time."""
    offset = AffineMap(1, 0, (AffineConstantExpr(0), AffineConstantExpr(view.first)))
    return BoxAttr.of(Access.WRITE, offset, (view.shape[0], view.columns), (-1, 0))


def _name_of(weight: SSAValue) -> str:
    return weight.owner.symbol.data if isinstance(weight.owner, tg.ParamOp) else "experts"


@tile_rule(tg.ExpertSumOp.name)
def tile_expert_sum(op: Operation, builder: GraphBuilder) -> None:
    """Blocks of columns."""
    assert isinstance(op, tg.ExpertSumOp)
    rows, slots, total = tensor_shape(op.x)
    if not isinstance(element_type(op.x), BFloat16Type):
        raise UnsupportedError(f"expert_sum: expected x of bf16, found {element_type(op.x)}")
    columns = max(LEAST_COLUMNS, round_up(ceil(total / builder.target.num_sms), VECTOR))
    name = builder.unique("expert_sum")
    x, weights, y = builder.view(op.x), builder.view(op.weights), builder.result(op.result, f"{name}.out")
    operands = [
        GridOperand("x", x.buffer, x.whole(Access.READ, 1)),
        GridOperand("weights", weights.buffer, weights.whole(Access.READ, 1)),
        GridOperand("y", y.buffer, y.box(Access.WRITE, 1, columns, columns)),
    ]
    params = ExpertSumParams(slots, columns, rows, total)
    builder.grid(name, ExpertSum(), params, (ceil(total / columns),), operands)
