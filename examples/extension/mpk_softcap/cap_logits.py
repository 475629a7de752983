"""`softcap-logits`: cap what the next token is chosen from."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern
from xdsl.rewriter import InsertPoint

from mpk_ir.dialects.tg import ArgmaxOp
from mpk_ir.passes.base import MpkPass
from mpk_ir.passes.rewriting import rewrite

from .dialect import CapOp


@dataclass(frozen=True)
class CapBeforeArgmax(RewritePattern):
    """Every use of the logits is capped, so that those which are read out are the ones chosen from."""

    cap: float

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: ArgmaxOp, rewriter: PatternRewriter) -> None:
        if isinstance(op.x.owner, CapOp):
            return
        logits = op.x
        first = InsertPoint.after(logits.owner) if isinstance(logits.owner, Operation) else InsertPoint.before(op)
        capped = rewriter.insert(CapOp(logits, self.cap), first)
        rewriter.replace_uses_with_if(logits, capped.result, lambda use: use.operation is not capped)


@dataclass(frozen=True)
class CapLogits(MpkPass):
    """Put a soft cap on the logits that each `tg.argmax` reads.

    Before:
    ```mlir
    %t = tg.argmax %x : (tensor<8x288xf32>) -> tensor<8xi32>
    ```
    After `softcap-logits{cap=30.0}`:
    ```mlir
    %y = softcap.cap %x by 30.0 : tensor<8x288xf32>
    %t = tg.argmax %y : (tensor<8x288xf32>) -> tensor<8xi32>
    ```
    """

    name = "softcap-logits"
    cap: float = 30.0

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        self.count("capped", rewrite(op, [CapBeforeArgmax(self.cap)]).get("CapBeforeArgmax", 0))
