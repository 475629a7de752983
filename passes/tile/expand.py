"""Tile rules of linears that the tensor-core kind does not take: other element types, computed weights, many rows."""

from __future__ import annotations

from xdsl.dialects.builtin import BFloat16Type
from xdsl.ir import Operation, SSAValue

from ...dialects import tg
from .builder import VECTOR, GraphBuilder, element_type, rule_of, tensor_shape

MAX_ROWS = 64
"""More rows of activations do not fit in shared memory beside the weights in flight."""

AnyLinear = tg.LinearOp | tg.FusedLinearOp


def streams_weight(op: AnyLinear) -> bool:
    """Whether task kind `linear` computes ``op``: bf16, a parameter as weight, whole vectors, few rows."""
    rows, columns = tensor_shape(op.x)
    bf16 = all(isinstance(element_type(value), BFloat16Type) for value in (op.x, op.weight))
    given = isinstance(op.weight.owner, tg.ParamOp) and (op.bias is None or not isinstance(op.bias.owner, tg.TgOp))
    return bf16 and given and columns % VECTOR == 0 and rows <= MAX_ROWS


def tile_expanded(op: AnyLinear, builder: GraphBuilder) -> None:
    """As a transpose, a product and elementwise ops."""
    steps = _Steps(op, builder)
    x = op.x
    if isinstance(op, tg.FusedLinearOp) and op.norm_weight is not None:
        x = steps.run(tg.RmsNormOp(x, op.norm_weight, op.eps.value.data))
    weight = steps.run(tg.TransposeOp(op.weight, (1, 0)))
    element = tg.element_of(op.result)
    product = tg.MatmulOp(x, weight, element)
    gated = isinstance(op, tg.FusedLinearOp) and op.epilogue.data.gated
    residual = op.residual if isinstance(op, tg.FusedLinearOp) else None
    last = op.bias is None and not gated and residual is None
    value = steps.run(product, last=last)
    if op.bias is not None:
        bias = op.bias
        if tg.element_of(bias) != element:
            bias = steps.run(tg.CastOp(bias, element))
        value = steps.run(tg.AddOp(value, bias), last=not gated and residual is None)
    if gated:
        assert isinstance(op, tg.FusedLinearOp)
        value = steps.run(_gate(op, value, steps), last=residual is None)
    if residual is not None:
        steps.run(tg.AddOp(value, residual), last=True)
    steps.forget()


def tile_expanded_norm(op: tg.FusedNormOp, builder: GraphBuilder) -> None:
    """As a norm and an addition."""
    steps = _Steps(op, builder)
    normed = steps.run(tg.RmsNormOp(op.x, op.weight, op.eps.value.data))
    steps.run(tg.AddOp(normed, op.residual), last=True)
    steps.forget()


def _gate(op: tg.FusedLinearOp, value: SSAValue, steps: _Steps) -> tg.GatedOp:
    """The activation over the two interleaved halves."""
    rows, columns = tensor_shape(value)
    block = tg.GATE_UP_BLOCK
    blocks = steps.run(tg.ReshapeOp(value, (rows, columns // (2 * block), 2, block)))
    halves: list[SSAValue] = []
    for half in range(2):
        part = steps.run(tg.SliceOp(blocks, (0, 0, half, 0), (rows, columns // (2 * block), 1, block)))
        halves.append(steps.run(tg.ReshapeOp(part, (rows, columns // 2))))
    if op.epilogue.data is tg.Epilogue.SILU_MUL:
        return tg.SiluMulOp(*halves)
    return tg.GeluMulOp(*halves, approximate=True)


class _Steps:
    """Runs the rules of ops that stand for one; the last one's result is the whole's."""

    def __init__(self, op: AnyLinear | tg.FusedNormOp, builder: GraphBuilder) -> None:
        self.op = op
        self.builder = builder
        self.made: list[Operation] = []

    def run(self, op: Operation, *, last: bool = False) -> SSAValue:
        op.location = self.op.location
        self.made.append(op)
        value, whole = op.results[0], self.op.results[0]
        if last and whole in self.builder.views:
            self.builder.views[value] = self.builder.views[whole]
        rule_of(op)(op, self.builder)
        if last:
            self.builder.strided(value)
            self.builder.views[whole] = self.builder.views[value]
        return value

    def forget(self) -> None:
        """Drop the ops, so that values have only the users that the program gives them."""
        for op in reversed(self.made):
            op.drop_all_references()
