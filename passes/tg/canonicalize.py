"""`tg-canonicalize`: drop what changes nothing, so that later patterns have one form to match.

    %0 = tg.reshape %x : (tensor<8x256xbf16>) -> tensor<8x4x64xbf16>
    %1 = tg.reshape %0 : (tensor<8x4x64xbf16>) -> tensor<8x256xbf16>
    %2 = tg.cast %1 : (tensor<8x256xbf16>) -> tensor<8x256xbf16>

All uses of %2 become uses of %x.
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, bf16, f16, f32
from xdsl.ir import Operation, SSAValue
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from ...dialects import tg
from ..base import MpkPass
from ..rewriting import rewrite

_EXACT_WIDENINGS = {(bf16, f32), (f16, f32)}


class DropIdentity(RewritePattern):
    """A reshape, cast, slice, transpose or concat whose result is its operand."""

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter, /) -> None:
        match op:
            case tg.ReshapeOp() | tg.CastOp() | tg.SliceOp():
                source = op.x
            case tg.TransposeOp() if op.order == tuple(range(len(op.order))):
                source = op.x
            case tg.ConcatOp() if len(op.parts) == 1:
                source = op.parts[0]
            case _:
                return
        if source.type == op.results[0].type:
            rewriter.replace(op, (), [source])


class MergeReshapes(RewritePattern):
    """reshape(reshape(x)) -> reshape(x)."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: tg.ReshapeOp, rewriter: PatternRewriter, /) -> None:
        if isinstance(inner := op.x.owner, tg.ReshapeOp):
            rewriter.replace(op, tg.ReshapeOp(inner.x, tg.shape_of(op.result)))


class MergeTransposes(RewritePattern):
    """transpose(transpose(x)) -> transpose(x) by the permutation of both."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: tg.TransposeOp, rewriter: PatternRewriter, /) -> None:
        if isinstance(inner := op.x.owner, tg.TransposeOp):
            rewriter.replace(op, tg.TransposeOp(inner.x, [inner.order[dim] for dim in op.order]))


class MergeSlices(RewritePattern):
    """slice(slice(x)) -> slice(x) at the sum of the offsets."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: tg.SliceOp, rewriter: PatternRewriter, /) -> None:
        if isinstance(inner := op.x.owner, tg.SliceOp):
            offsets, sizes = op.box
            total = [a + b for a, b in zip(inner.box[0], offsets, strict=True)]
            rewriter.replace(op, tg.SliceOp(inner.x, total, sizes))


class DropCastRoundTrip(RewritePattern):
    """A cast to a wider float type and back is exact."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: tg.CastOp, rewriter: PatternRewriter, /) -> None:
        inner = op.x.owner
        if not isinstance(inner, tg.CastOp) or inner.x.type != op.result.type:
            return
        if (tg.element_of(inner.x), tg.element_of(inner.result)) in _EXACT_WIDENINGS:
            rewriter.replace(op, (), [inner.x])


class DropDoubleNegation(RewritePattern):
    """-(-x) -> x."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: tg.NegOp, rewriter: PatternRewriter, /) -> None:
        if isinstance(inner := op.x.owner, tg.NegOp):
            rewriter.replace(op, (), [inner.x])


class DropNeutralConstant(RewritePattern):
    """x + 0, 0 + x, x - 0, x * 1, 1 * x, x / 1 -> x, where the constant does not widen x's shape."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: tg.BinaryOp, rewriter: PatternRewriter, /) -> None:
        neutral = _NEUTRAL.get(type(op))
        if neutral is None:
            return
        commutes = isinstance(op, tg.AddOp | tg.MulOp)
        if _is_all(op.rhs, neutral) and op.lhs.type == op.result.type:
            rewriter.replace(op, (), [op.lhs])
        elif commutes and _is_all(op.lhs, neutral) and op.rhs.type == op.result.type:
            rewriter.replace(op, (), [op.rhs])


_NEUTRAL: dict[type[tg.BinaryOp], int] = {tg.AddOp: 0, tg.SubOp: 0, tg.MulOp: 1, tg.DivOp: 1}


def _is_all(value: SSAValue, number: int) -> bool:
    return isinstance(constant := value.owner, tg.ConstantOp) and bool((constant.array == number).all())


PATTERNS = (
    DropIdentity,
    MergeReshapes,
    MergeTransposes,
    MergeSlices,
    DropCastRoundTrip,
    DropDoubleNegation,
    DropNeutralConstant,
)


@dataclass(frozen=True)
class TgCanonicalize(MpkPass):
    """Local rewrites that remove ops, and ops nobody uses.

    ``max_rewrites`` ends a run that does not settle; 0 means 64 for each op.

    Before: `%1 = tg.reshape (tg.reshape %x)`, with the second of x's own type. After: `%x`.
    Statistics: how often each pattern applied.
    """

    name = "tg-canonicalize"
    max_rewrites: int = 0

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        patterns = [pattern() for pattern in PATTERNS]
        for pattern, times in rewrite(op, patterns, self.max_rewrites or None, erase_dead=True).items():
            self.count(pattern, times)
