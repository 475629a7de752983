"""Patterns that make activations and gates of exponentials, tanh and products."""

from __future__ import annotations

import math

from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from ...dialects import tg
from .matching import either_order, made_by, number_of, scaled, uncast


class RaiseSilu(RewritePattern):
    """x * sigmoid(x) -> silu(x)."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: tg.MulOp, rewriter: PatternRewriter, /) -> None:
        for x, factor in either_order(op):
            sigmoid = made_by(factor, tg.SigmoidOp)
            if sigmoid is not None and sigmoid.x is x:
                rewriter.replace(op, tg.SiluOp(x))
                return


class RaiseGeluTanh(RewritePattern):
    """0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x³))) -> gelu(x), approximate."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: tg.MulOp, rewriter: PatternRewriter, /) -> None:
        for half, other in either_order(op):
            x, factor = scaled(half)
            angle = _one_plus_tanh(other)
            if angle is None or not math.isclose(factor, 0.5) or tg.shape_of(x) != tg.shape_of(op.result):
                continue
            inner, constant = scaled(angle)
            if math.isclose(constant, math.sqrt(2 / math.pi), rel_tol=1e-3) and _is_cubic(inner, x):
                wide = tg.CastOp(x, tg.element_of(op.result))
                rewriter.replace(op, [wide, tg.GeluOp(wide.result, approximate=True)])
                return


def _one_plus_tanh(value: SSAValue) -> SSAValue | None:
    total = made_by(uncast(value), tg.AddOp)
    for part, one in either_order(total) if total is not None else ():
        tanh = made_by(uncast(part), tg.TanhOp)
        if tanh is not None and number_of(one) == 1.0:
            return tanh.x
    return None


def _is_cubic(value: SSAValue, x: SSAValue) -> bool:
    """Whether ``value`` is x + 0.044715 * x³."""
    total = made_by(uncast(value), tg.AddOp)
    for part, rest in either_order(total) if total is not None else ():
        cube, factor = scaled(rest)
        product = made_by(cube, tg.MulOp)
        if uncast(part) is not x or product is None or not math.isclose(factor, 0.044715, rel_tol=1e-3):
            continue
        for square, other in either_order(product):
            inner = made_by(uncast(square), tg.MulOp)
            if inner is not None and uncast(other) is x and uncast(inner.lhs) is x and uncast(inner.rhs) is x:
                return True
    return False


class SinkCasts(RewritePattern):
    """cast(f(cast(x))) -> f(x) for an activation, if the casts go to f32 and back: it computes in f32 anyway."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: tg.CastOp, rewriter: PatternRewriter, /) -> None:
        inner = op.x.owner
        if not isinstance(inner, tg.SiluOp | tg.GeluOp | tg.TanhOp | tg.SigmoidOp) or not op.x.has_one_use():
            return
        wide = made_by(inner.x, tg.CastOp)
        if wide is None or tg.element_of(inner.x) != f32 or wide.x.type != op.result.type:
            return
        new = tg.GeluOp(wide.x, inner.approximate is not None) if isinstance(inner, tg.GeluOp) else type(inner)(wide.x)
        rewriter.replace(op, new)


class RaiseGate(RewritePattern):
    """silu(gate) * up -> silu_mul(gate, up), and gelu likewise, if nothing else uses the activation."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: tg.MulOp, rewriter: PatternRewriter, /) -> None:
        for activated, up in either_order(op):
            if not activated.has_one_use() or up.type != op.result.type or activated.type != op.result.type:
                continue
            match activated.owner:
                case tg.SiluOp() as silu:
                    rewriter.replace(op, tg.SiluMulOp(silu.x, up))
                    return
                case tg.GeluOp() as gelu:
                    rewriter.replace(op, tg.GeluMulOp(gelu.x, up, gelu.approximate is not None))
                    return
                case _:
                    pass
