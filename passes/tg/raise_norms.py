"""Patterns that make norms of means: an RMS norm of the mean of squares, a layer norm of that of what is centred."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from xdsl.ir import Operation, SSAValue
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from ...dialects import tg
from .matching import either_order, made_by, number_of, uncast, unshaped


@dataclass(frozen=True)
class Core:
    """x / sqrt(mean(x²) + eps) over the last dimension."""

    x: SSAValue
    eps: float


class RaiseRmsNorm(RewritePattern):
    """mul(weight, x * rsqrt(mean(x * x) + eps)) -> rms_norm(x, weight), if the weight is one of x's last dimension."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: tg.MulOp, rewriter: PatternRewriter, /) -> None:
        for normed, weight in either_order(op):
            core, vector = core_of(uncast(normed)), unshaped(weight)
            if core is None or tg.shape_of(normed) != tg.shape_of(op.result):
                continue
            shape, element = tg.shape_of(op.result), tg.element_of(op.result)
            if not tg.shape_of(vector) == shape[-1:] == tg.shape_of(weight)[-1:]:
                continue
            ops: list[Operation] = []
            x = _cast(core.x, element, ops)
            ops.append(tg.RmsNormOp(x, _cast(vector, element, ops), core.eps))
            rewriter.replace(op, ops)
            return


class RaiseLayerNorm(RewritePattern):
    """rms_norm(x - mean(x), weight) -> layer_norm(x, weight, 0)."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: tg.RmsNormOp, rewriter: PatternRewriter, /) -> None:
        centred = made_by(uncast(op.x), tg.SubOp)
        reduce = made_by(unshaped(centred.rhs), tg.ReduceOp) if centred is not None else None
        if centred is None or reduce is None or reduce.kind.data is not tg.Reduction.MEAN:
            return
        x, last = _same_rows(reduce.x), len(tg.shape_of(reduce.x)) - 1
        if x is not _same_rows(centred.lhs) or reduce.axis.value.data != last:
            return
        element = tg.element_of(op.result)
        ops: list[Operation] = [tg.ConstantOp.of(np.zeros(tg.shape_of(op.weight), np.float32))]
        zeros = _cast(ops[0].results[0], element, ops)
        ops.append(tg.LayerNormOp(_cast(centred.lhs, element, ops), op.weight, zeros, op.eps.value.data))
        rewriter.replace(op, ops)


class RaiseBias(RewritePattern):
    """layer_norm(x, weight, 0) + bias -> layer_norm(x, weight, bias)."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: tg.AddOp, rewriter: PatternRewriter, /) -> None:
        for normed, bias in either_order(op):
            norm, vector = made_by(uncast(normed), tg.LayerNormOp), unshaped(bias)
            if norm is None or number_of(norm.bias) != 0.0 or tg.shape_of(normed) != tg.shape_of(op.result):
                continue
            shape, element = tg.shape_of(op.result), tg.element_of(op.result)
            if not tg.shape_of(vector) == shape[-1:] == tg.shape_of(bias)[-1:]:
                continue
            ops: list[Operation] = []
            x, weight, shift = (_cast(value, element, ops) for value in (norm.x, norm.weight, vector))
            ops.append(tg.LayerNormOp(x, weight, shift, norm.eps.value.data))
            rewriter.replace(op, ops)
            return


def core_of(value: SSAValue) -> Core | None:
    """The norm without weight that ``value`` is."""
    match value.owner:
        case tg.MulOp() as product:
            for x, scale in either_order(product):
                rsqrt = made_by(unshaped(scale), tg.RsqrtOp)
                if rsqrt is not None and (eps := _mean_square(rsqrt.x, x)) is not None:
                    return _checked(x, scale, eps)
        case tg.DivOp() as quotient:
            root = made_by(unshaped(quotient.rhs), tg.SqrtOp)
            if root is not None and (eps := _mean_square(root.x, quotient.lhs)) is not None:
                return _checked(quotient.lhs, quotient.rhs, eps)
        case _:
            pass
    return None


def _checked(x: SSAValue, scale: SSAValue, eps: float) -> Core | None:
    """If the scale has one number for each row."""
    return Core(uncast(x), eps) if tg.shape_of(scale)[-1] == 1 else None


def _mean_square(variance: SSAValue, x: SSAValue) -> float | None:
    """eps, if ``variance`` is the mean of the squares of x's last dimension, plus eps."""
    total = made_by(unshaped(variance), tg.AddOp)
    for mean, eps in either_order(total) if total is not None else ():
        reduce = made_by(unshaped(mean), tg.ReduceOp)
        if reduce is None or (found := number_of(eps)) is None or reduce.kind.data is not tg.Reduction.MEAN:
            continue
        square, last = made_by(_same_rows(reduce.x), tg.MulOp), len(tg.shape_of(reduce.x)) - 1
        if square is None or reduce.axis.value.data != last:
            continue
        if _alike(square.lhs, square.rhs) and _alike(square.lhs, x):
            return found
    return None


def _alike(one: SSAValue, other: SSAValue) -> bool:
    """Whether both are the same value, or the same difference computed twice, but for casts."""
    one, other = uncast(one), uncast(other)
    first, second = made_by(one, tg.SubOp), made_by(other, tg.SubOp)
    if one is other or first is None or second is None:
        return one is other
    return uncast(first.lhs) is uncast(second.lhs) and uncast(first.rhs) is uncast(second.rhs)


def _same_rows(value: SSAValue) -> SSAValue:
    """``value`` before casts, and before reshapes that keep the last dimension."""
    value = uncast(value)
    while isinstance(op := value.owner, tg.ReshapeOp) and tg.shape_of(op.x)[-1] == tg.shape_of(value)[-1]:
        value = uncast(op.x)
    return value


def _cast(value: SSAValue, element: object, ops: list[Operation]) -> SSAValue:
    if tg.element_of(value) == element:
        return value
    ops.append(tg.CastOp(value, element))  # pyright: ignore[reportArgumentType]
    return ops[-1].results[0]
