"""Patterns that move what stands before and after a linear into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from xdsl.ir import Attribute, SSAValue
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from ...dialects import tg

AnyLinear = tg.LinearOp | tg.FusedLinearOp


@dataclass(frozen=True)
class LinearForm:
    """A linear, fused or not, as data: what a pattern changes one field of. It keeps the op's own ``attributes``."""

    x: SSAValue
    weight: SSAValue
    parts: tg.LinearParts
    eps: float
    epilogue: tg.Epilogue
    element: Attribute
    attributes: Mapping[str, Attribute]

    @staticmethod
    def of(op: AnyLinear) -> LinearForm:
        kept = tg.element_of(op.result), dict(op.attributes)
        if isinstance(op, tg.LinearOp):
            return LinearForm(op.x, op.weight, tg.LinearParts(bias=op.bias), 0.0, tg.Epilogue.NONE, *kept)
        return LinearForm(op.x, op.weight, op.parts, op.eps.value.data, op.epilogue.data, *kept)

    def build(self) -> tg.FusedLinearOp:
        fused = tg.FusedLinearOp(self.x, self.weight, self.parts, self.eps, self.epilogue, self.element)
        fused.attributes.update(self.attributes)
        return fused


class FuseNorm(RewritePattern):
    """linear(rms_norm(x)) -> fused_linear(x, norm), if all users of the norm are linears that can take it. Of many rows
    recomputing the norm in each task costs more than a hand-off."""

    MOST_ROWS = 64

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: tg.RmsNormOp, rewriter: PatternRewriter, /) -> None:
        users = [use.operation for use in op.result.uses]
        linears = [user for user in users if isinstance(user, AnyLinear) and _can_norm(user, op.result)]
        if tg.shape_of(op.result)[0] > self.MOST_ROWS:
            return
        if not users or len(linears) != len(users) or isinstance(op.weight.owner, tg.TgOp):
            return  # a weight that the step computes is not there yet when the linear's task begins
        for linear in linears:
            form = LinearForm.of(linear)
            parts = replace(form.parts, norm_weight=op.weight)
            rewriter.replace(linear, replace(form, x=op.x, parts=parts, eps=op.eps.value.data).build())
        rewriter.erase(op)


def _can_norm(linear: AnyLinear, normed: SSAValue) -> bool:
    """Whether ``normed`` is the activation of ``linear``, and nothing else of it, and not normed there already."""
    parts = LinearForm.of(linear).parts
    return linear.x is normed and list(linear.operands).count(normed) == 1 and parts.norm_weight is None


class FuseResidual(RewritePattern):
    """linear(x) + r -> fused_linear(x, residual r), if only the addition uses the product."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: tg.AddOp, rewriter: PatternRewriter, /) -> None:
        for product, residual in ((op.rhs, op.lhs), (op.lhs, op.rhs)):
            linear = product.owner
            if not isinstance(linear, AnyLinear) or not product.has_one_use():
                continue
            form = LinearForm.of(linear)
            if form.parts.residual is None and op.result.type == product.type == residual.type:
                fused = replace(form, parts=replace(form.parts, residual=residual)).build()
                rewriter.replace(op, fused)
                rewriter.erase(linear)
                return


class FuseNormResidual(RewritePattern):
    """rms_norm(x) + r -> fused_norm(x, residual r), of few rows, if only the addition uses the norm."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: tg.AddOp, rewriter: PatternRewriter, /) -> None:
        for normed, residual in ((op.rhs, op.lhs), (op.lhs, op.rhs)):
            norm = normed.owner
            if not isinstance(norm, tg.RmsNormOp) or not normed.has_one_use():
                continue
            shape = tg.shape_of(normed)
            if len(shape) != 2 or shape[0] > FuseNorm.MOST_ROWS:
                continue
            if op.result.type == normed.type == residual.type:
                rewriter.replace(op, tg.FusedNormOp(norm.x, norm.weight, residual, norm.eps.value.data))
                rewriter.erase(norm)
                return


class FuseActivation(RewritePattern):
    """silu_mul or gelu_mul (tanh formula) of the halves of one linear -> its epilogue, on an interleaved weight.

    The weight must be a param of two sources, as merging leaves it. That the sources are of equal size is not in the
    IR; interleaving them when the weight is bound checks it.
    """

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: tg.GatedOp, rewriter: PatternRewriter, /) -> None:
        epilogue = _epilogue_of(op)
        linear = _product_of_halves(op.gate, op.up)
        if epilogue is None or linear is None:
            return
        form = LinearForm.of(linear)
        if form.epilogue.gated or form.parts.residual is not None:
            return
        weight = _interleaved(form.weight)
        bias = None if form.parts.bias is None else _interleaved(form.parts.bias)
        if weight is None or (form.parts.bias is not None and bias is None):
            return
        parts = replace(form.parts, bias=bias and bias.result)
        fused = replace(form, weight=weight.result, parts=parts, epilogue=epilogue).build()
        rewriter.replace(op, [weight, *([bias] if bias else []), fused])


def _epilogue_of(op: tg.GatedOp) -> tg.Epilogue | None:
    if isinstance(op, tg.SiluMulOp):
        return tg.Epilogue.SILU_MUL
    return tg.Epilogue.GELU_MUL if isinstance(op, tg.GeluMulOp) and op.approximate is not None else None


def _product_of_halves(gate: SSAValue, up: SSAValue) -> AnyLinear | None:
    """The linear whose columns are ``gate`` then ``up``, if nobody else uses any of them."""
    first, second = gate.owner, up.owner
    if not (isinstance(first, tg.SliceOp) and isinstance(second, tg.SliceOp)):
        return None
    if first.x is not second.x or not (gate.has_one_use() and up.has_one_use()) or len(list(first.x.uses)) != 2:
        return None
    if len(tg.shape_of(gate)) != 2:
        return None
    rows, columns = tg.shape_of(gate)
    whole = tg.shape_of(first.x) == (rows, 2 * columns)
    if not whole or first.box != ((0, 0), (rows, columns)) or second.box != ((0, columns), (rows, columns)):
        return None
    return first.x.owner if isinstance(first.x.owner, AnyLinear) else None


def _interleaved(value: SSAValue) -> tg.ParamOp | None:
    """The param ``value`` with its two sources interleaved; None if it has other users or another form."""
    param = value.owner
    if not isinstance(param, tg.ParamOp) or not value.has_one_use() or param.interleave.value.data:
        return None
    if len(param.source_names) != 2 or tg.shape_of(value)[0] % (2 * tg.GATE_UP_BLOCK):
        return None
    new = tg.ParamOp(param.symbol.data, tg.type_of(value), param.source_names, tg.GATE_UP_BLOCK)
    new.shard(param.source_shards)
    new.result.name_hint = value.name_hint
    return new
