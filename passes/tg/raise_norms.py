"""The pattern that makes an RMS norm of a mean of squares."""

from __future__ import annotations

from dataclasses import dataclass

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
        if uncast(square.lhs) is uncast(square.rhs) and uncast(square.lhs) is uncast(x):
            return found
    return None


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
