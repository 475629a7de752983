"""`tg-hoist-rows`: rows are chosen before what is computed row by row, not behind it.

    %i = tg.silu_mul %g, %u : (tensor<512x768xbf16>, tensor<512x768xbf16>) -> tensor<512x768xbf16>
    %d = tg.linear %i, %w : (tensor<512x768xbf16>, tensor<256x768xbf16>) -> tensor<512x256xbf16>
    %y = tg.last_rows %d, %requests : (tensor<512x256xbf16>, tensor<1x6xi32>) -> tensor<1x256xbf16>

becomes

    %0 = tg.last_rows %g, %requests : (tensor<512x768xbf16>, tensor<1x6xi32>) -> tensor<1x768xbf16>
    %1 = tg.last_rows %u, %requests : (tensor<512x768xbf16>, tensor<1x6xi32>) -> tensor<1x768xbf16>
    %i = tg.silu_mul %0, %1 : (tensor<1x768xbf16>, tensor<1x768xbf16>) -> tensor<1x768xbf16>
    %y = tg.linear %i, %w : (tensor<1x768xbf16>, tensor<256x768xbf16>) -> tensor<1x256xbf16>
"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern

from ...dialects import tg
from ..base import MpkPass
from ..rewriting import alike, rewrite


class ShareRows(RewritePattern):
    """Of two that choose the same rows of one value, the one that comes first is enough."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: tg.LastRowsOp, rewriter: PatternRewriter, /) -> None:
        for other in _choices(op.x):
            same = other.requests is op.requests and other.result.type == op.result.type
            if other is not op and same and other.is_before_in_block(op):
                rewriter.replace(op, (), [other.result])
                return


class HoistRows(RewritePattern):
    """last_rows(f(a, b)) -> f(last_rows(a), last_rows(b)), if nothing else uses f's rows."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: tg.LastRowsOp, rewriter: PatternRewriter, /) -> None:
        producer = op.x.owner
        if not isinstance(producer, Operation) or not op.x.has_one_use():
            return
        if (rows := _row_operands(producer)) is None:
            return
        chosen = {value: tg.LastRowsOp(value, op.requests) for value in rows}
        operands = [chosen[value].result if value in chosen else value for value in producer.operands]
        rewriter.replace(op, [*chosen.values(), alike(producer, operands, [op.result.type])])


def _choices(value: SSAValue) -> list[tg.LastRowsOp]:
    users = [use.operation for use in value.uses]
    return [user for user in users if isinstance(user, tg.LastRowsOp) and user.x is value]


def _row_operands(op: Operation) -> list[SSAValue] | None:
    """The operands of which row i alone makes row i of the result; None if ``op`` is not such a function, or makes
    something of rows of zeros, which `tg.last_rows` puts behind those there are."""
    match op:
        case tg.LinearOp() if op.bias is None:
            return [op.x]
        case tg.RmsNormOp():
            return [op.x]
        case tg.AddOp() | tg.SubOp() | tg.MulOp() | tg.GatedOp():
            same = all(tg.shape_of(value) == tg.shape_of(op.results[0]) for value in op.operands)
            return list(dict.fromkeys(op.operands)) if same else None
        case _:
            return None


@dataclass(frozen=True)
class TgHoistRows(MpkPass):
    """Move `tg.last_rows` up through additions, products of elements, gates, norms and linears without a bias.

    A step that takes prompts then computes what follows the last layer's attention for one row of each request.
    Runs before `tg-merge-linears` and `tg-fuse`, which know plain linears alone.

    Before: `tg.last_rows (tg.linear %x, %w)`. After: `tg.linear (tg.last_rows %x), %w` (see the module).
    Statistics: how often each pattern applied.
    """

    name = "tg-hoist-rows"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for pattern, times in rewrite(op, [ShareRows(), HoistRows()], erase_dead=True).items():
            self.count(pattern, times)
